"""A dataset of 4-D series in a folder: the ends of each are a pair, with the images between."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pullback.alignment import Pair
from pullback.data.case import LOADED, Singles, Test, Validation, stamp
from pullback.data.normalise import normalised
from pullback.data.people import person_in
from pullback.data.splits import check_splits, draw_splits, known_as, too_few
from pullback.errors import InputError
from pullback.files import is_series, read_series
from pullback.files.suffixes import NIFTI, ends
from pullback.space import Series, canonical


@dataclass(frozen=True)
class SeriesFolder:
    """A folder of series, one file each: breaths, heartbeats, or other motion that has a beginning and an end.

    The moving image is the frame `first`, the fixed one the frame `last`; those between are on the way. Frames are
    stored along axes near R, A, S, intensities of each 0 … 1. Series of one `sub-…` of BIDS are in one split.

    Attributes:
        root: the folder, or "" until one is given.
        images: a pattern under `root`.
        first, last: numbers of frames from 0, in either order; below 0 from the end.
        validation_split, test_split: names of people, or shares, as in `PairFolder`.
        seed: of the draw.
    """

    root: str = ""
    images: str = "*.nii.gz"
    first: int = 0
    last: int = -1
    validation_split: tuple[str, ...] | float = 0.15
    test_split: tuple[str, ...] | float = 0.15
    seed: int = 0

    @property
    def centred(self) -> bool:
        return False

    @property
    def train(self) -> Singles:
        return Singles(self._split("train"), of=self)

    @property
    def validation(self) -> Validation:
        return Validation.singles(self._split("validation"))

    @property
    def test(self) -> Test:
        return Test.singles(self._split("test"))

    @cached_property
    def cases(self) -> tuple["SeriesCase", ...]:
        """All series, sorted by name.

        Raises:
            InputError: no such folder, none in it, or a file that is no series.
        """
        folder = Path(self.root)
        paths = sorted(path for path in folder.glob(self.images) if path.is_file()) if self.root else []
        if not paths:
            where = f"{self.root}: nothing is called {self.images!r}" if self.root else "no folder given"
            raise InputError(
                f"{where}; say where the series are with --data DIR, and how they are called by data.images"
            )
        for path in paths:
            if not is_series(path):
                raise InputError(f"{path}: a 4-D series expected, time last; a single image has nothing on the way")
        return tuple(SeriesCase(path, self.first, self.last) for path in paths)

    @cached_property
    def _people(self) -> dict[str, tuple[str, ...]]:
        names = {case.name: case.name for case in self.cases}
        test, validation = (known_as(split, names, self.root) for split in (self.test_split, self.validation_split))
        check_splits(test, validation, self.root)
        return draw_splits(names, test, validation, self.seed, least=1)

    def _split(self, kind: str) -> tuple["SeriesCase", ...]:
        if not self._people[kind]:
            raise too_few(self._people, 1, self.root)
        return tuple(case for case in self.cases if case.name in self._people[kind])


@dataclass(frozen=True)
class SeriesCase:
    """A case that is one series: a pair by itself. It is called as its person."""

    path: Path
    first: int = 0
    last: int = -1

    @property
    def name(self) -> str:
        plain = next((self.path.name[: -len(e)] for e in NIFTI if ends(self.path.name, e)), self.path.stem)
        return person_in(plain)

    def load(self) -> Pair:
        """Return the ends with what is between, kept until its file changes or others need the room.

        Raises:
            InputError: the series has no such frames, or the two are one.
        """
        return LOADED.get((self, stamp(self.path)), self._read)

    def _read(self) -> Pair:
        series = read_series(self.path)
        count = len(series)
        if not all(-count <= n < count for n in (self.first, self.last)) or (self.last - self.first) % count == 0:
            raise InputError(
                f"{self.path}: {count} frames, of which first {self.first} and last {self.last} are no two; set "
                f"data.first and data.last"
            )
        first, last = self.first % count, self.last % count
        step = 1 if last > first else -1
        order = range(first, last + step, step)
        moving, *between, fixed = (normalised(canonical(series.frames[n])) for n in order)
        way = Series(tuple(between), fixed.grid, series.times[[*order][1:-1]], series.unit) if between else None
        return replace(Pair(fixed, moving, name=self.path.name), between=way)
