"""Pairs of stained sections with landmarks, as BIRL and the ANHIR challenge list them in a table.

Borovec et al., ANHIR: Automatic Non-rigid Histological Image Registration Challenge, IEEE TMI 2020.
"""

import csv
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pullback.data.case import LOADED, Subject, Test, Train, Validation, stamp
from pullback.data.normalise import preprocessed
from pullback.data.pattern import some
from pullback.data.splits import Split, check_splits, draw_splits, too_few
from pullback.errors import InputError
from pullback.files.images.nifti import read_image
from pullback.files.points.pixels import read_pixels
from pullback.space import Points, canonical, resampled

IMAGES, LANDMARKS = ("Target image", "Source image"), ("Target landmarks", "Source landmarks")
"""Columns of the table, of the fixed and of the moving side."""


@dataclass(frozen=True)
class BIRL:
    """A dataset of the pairs of a table: what it calls target is fixed, and what it calls source moves.

    Images are in grey, glass 0 and tissue bright, along axes near R, A, S, intensities 0 … 1; pictures have 1 mm a
    pixel. Pairs of one tissue, by the first folder of the target's path, are in one split. Landmarks that only one of
    two lists has at its end are left out, with a warning.

    Attributes:
        root: the folder that paths of the table are relative to, or "" until one is given.
        table: name of the table in it.
        spacing: mm, of the pixels that are seen; None takes the file's.
        test_split, validation_split: names of tissues, or shares of them; a test split of 1 tests on all.
        seed: of the draw.

    Raises:
        InputError: shares that leave nothing.
    """

    root: str = ""
    table: str = "pairs-imgs-lnds_histol.csv"
    spacing: float | None = None
    test_split: Split = 0.2
    validation_split: Split = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        check_splits(self.test_split, self.validation_split, "BIRL")

    @property
    def centred(self) -> bool:
        return False

    @property
    def train(self) -> Train:
        pairs = self._split("train")
        return Train([case for pair in pairs for case in pair], pairs=pairs, of=self)

    @property
    def validation(self) -> Validation:
        return Validation(self._split("validation"))

    @property
    def test(self) -> Test:
        return Test(self._split("test"))

    def _split(self, kind: str) -> list[tuple["SectionCase", "SectionCase"]]:
        tissues = {fixed.subject for fixed, _ in self.pairs}
        splits = draw_splits(tissues, self.test_split, self.validation_split, self.seed, 1)
        for name in (name for group in splits.values() for name in group if name not in tissues):
            raise InputError(f"{self.root}: no tissue {name!r} for the splits; found {some(tissues)}")
        if not splits[kind]:
            raise too_few(splits, 1, self.root)
        return [pair for pair in self.pairs if pair[0].subject in splits[kind]]

    @cached_property
    def pairs(self) -> tuple[tuple["SectionCase", "SectionCase"], ...]:
        """All pairs of the table, fixed and moving, in its order.

        Raises:
            InputError: no such table, one without the columns, or files that are missing.
        """
        path = Path(self.root) / self.table
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = [*csv.DictReader(file)]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: no table of pairs ({error}); say where it is with --data DIR") from error
        if not rows or not {*IMAGES} <= {*rows[0]}:
            raise InputError(f"{path}: a row for each pair expected, with the columns {' and '.join(IMAGES)}")
        return tuple(self._pair(row) for row in rows)

    def _pair(self, row: Mapping[str, str]) -> tuple["SectionCase", "SectionCase"]:
        images = [Path(self.root) / row[column] for column in IMAGES]
        points = [Path(self.root) / row[column] if row.get(column) else None for column in LANDMARKS]
        for path in (*images, *points):
            if path is not None and not path.is_file():
                raise InputError(f"{path}: no such file, and the table names it; paths begin at {self.root}")
        counts = [None if path is None else read_pixels(path).data.shape[1] for path in points]
        known = None if None in counts else min(count for count in counts if count is not None)
        if known is not None and len({*counts}) > 1:
            warnings.warn(
                f"{images[0].name} ← {images[1].name}: {counts[0]} and {counts[1]} landmarks; the first {known} of "
                f"each are taken for pairs",
                stacklevel=2,
            )
        tissue = Path(row[IMAGES[0]]).parts[0].rstrip("_")
        fixed, moving = (
            SectionCase(f"{tissue}/{image.stem}", tissue, str(image), str(path or ""), known or 0, self.spacing)
            for image, path in zip(images, points, strict=True)
        )
        return fixed, moving


@dataclass(frozen=True)
class SectionCase:
    """A case that is a stained section, with the first `count` of its landmarks."""

    name: str
    subject: str
    image: str
    landmarks: str = ""
    count: int = 0
    spacing: float | None = None

    def load(self) -> Subject:
        """Return the section in grey; one that was loaded before is kept until its files change."""
        return LOADED.get((self, stamp(Path(self.image)), stamp(Path(self.landmarks))), self._read)

    def _read(self) -> Subject:
        image = preprocessed(canonical(read_image(self.image)))
        if self.spacing is not None:
            image = resampled(image, (self.spacing,) * image.grid.ndim)
        points = Points(read_pixels(self.landmarks).data[:, : self.count]) if self.count else None
        return Subject(image, name=self.name, points=points)
