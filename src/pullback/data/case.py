"""Cases of a dataset, and its splits, which are different types so that they cannot be mixed up."""

from abc import ABC
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
import torch

from pullback.alignment import Pair, stacked
from pullback.data.memory import Memory
from pullback.data.normalise import preprocessed
from pullback.data.pairing import drawn_pairs, pairs_of_two
from pullback.data.people import person_in
from pullback.errors import InputError
from pullback.files.images.channels import read_channels
from pullback.files.images.nifti import read_labels
from pullback.files.points.boxes import read_boxes
from pullback.space import Boxes, Grid, Image, Labels, Points, Transform, canonical, centred

LOADED = Memory(limit=4 * 2**30)  # shared by all cases of a process


@dataclass(frozen=True, eq=False)
class Subject:
    """A loaded case, which is an example by itself: a labelled image.

    Attributes:
        to_template: where known, the transform from its world to the world that all cases share.
        about: what a table of people and the image's path say of it: age, visit and so on.
        points: landmarks, or keypoints whose matches in the other image of a pair are that one's points, row by row.
        boxes: of labels, which may be known where the labels are not.
    """

    image: Image
    labels: Labels | None = None
    to_template: Transform | None = None
    about: Mapping[str, float | str] = field(default_factory=dict)
    name: str = ""
    points: Points | None = None
    boxes: Boxes | None = None

    @property
    def images(self) -> tuple[Image, ...]:
        """The image, alone."""
        return (self.image,)

    def to(self, device: torch.device) -> Self:
        """Return the subject with all its parts on `device`."""
        labels, map_ = self.labels and self.labels.to(device), self.to_template and self.to_template.to(device)
        points, boxes = self.points and self.points.to(device), self.boxes and self.boxes.to(device)
        return replace(self, image=self.image.to(device), labels=labels, to_template=map_, points=points, boxes=boxes)


class Case(Protocol):
    """A case that can be loaded, as a `Subject` or as another example by itself."""

    @property
    def name(self) -> str: ...
    def load(self) -> Any: ...


@runtime_checkable
class Owned(Protocol):
    """A case that says whose it is; "" where that is its name."""

    @property
    def subject(self) -> str: ...


@dataclass(frozen=True)
class FileCase:
    """A case of files on disk, stored on loading along axes near R, A, S; `labels` and `mask` lie on the image's grid.

    Intensities are `preprocessed`, by `scale` where it is given. `shape`, counted along these axes, lays the middle of
    each image over the others'.
    `subject`, where it is not the name, says whose image it is, and `about` is `Subject.about` as pairs. `channels` are
    further images on the same grid. With `as_stored` axes stay as stored, and intensities are those of the file.
    `points` is a table of voxel coordinates without a head, as Learn2Reg has keypoints; with a `shape` they are left
    out, for the image is moved then. `boxes` are files of boxes of labels, which a `shape` refuses.
    """

    name: str
    image: Path
    labels: Path | None = None
    mask: Path | None = None
    shape: tuple[int, ...] | None = None
    subject: str = ""
    about: tuple[tuple[str, float | str], ...] = ()
    as_stored: bool = False
    channels: tuple[Path, ...] = ()
    points: Path | None = None
    scale: float | None = None
    boxes: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path | None, ...]:
        """The files of the image, its labels, its mask and others; None for one of the three that it does not have."""
        points = () if self.points is None else (self.points,)
        return self.image, self.labels, self.mask, *self.channels, *points, *self.boxes

    def load(self) -> Subject:
        """Return the subject; one that was loaded before is kept until its files change."""
        return LOADED.get((self, *map(stamp, self.files)), self._read)

    def _read(self) -> Subject:
        stored = read_channels((self.image, *self.channels), self.mask)
        points = None if self.points is None or self.shape else _read_voxels(self.points, stored.grid)
        boxes = _read_boxes(self.boxes, stored.grid) if self.boxes else None
        if boxes is not None and self.shape is not None:
            raise InputError(f"{self.boxes[0]}: boxes in mm and data.shape, which moves images; give one of the two")
        known = Subject(stored, about=dict(self.about), name=self.name, points=points, boxes=boxes)
        if self.as_stored:
            labels = None if self.labels is None else read_labels(self.labels, on=stored.grid)
            return replace(known, labels=labels)
        image = preprocessed(canonical(stored), self.scale)
        labels = None if self.labels is None else canonical(read_labels(self.labels, on=stored.grid))
        if self.shape is not None:
            image, labels = centred(image, self.shape), labels and centred(labels, self.shape)
        return replace(known, image=image, labels=labels)


def _read_boxes(paths: Sequence[Path], grid: Grid) -> Boxes:
    """Read the boxes of an image.

    Raises:
        InputError: as of `read_boxes`, or one lies beyond the image.
    """
    boxes = read_boxes(*paths)
    faces = boxes.on(grid, boxes.values)[0]  # (N, d, 2)
    last = torch.tensor(grid.shape) - 0.5
    beyond = ((faces[..., 1] <= -0.5) | (faces[..., 0] >= last)).any(1)
    if beyond.any():
        raise InputError(
            f"{paths[0]}: the box of label {int(boxes.values[beyond][0])} lies beyond the image; check that both are "
            f"of one scan, and the space that the file names"
        )
    return boxes


def _read_voxels(path: Path, grid: Grid) -> Points:
    """Read a table of voxel coordinates, a row for each point, parted by commas, as points of the world.

    Raises:
        InputError: it cannot be read, or has other columns.
    """
    try:
        rows = np.loadtxt(path, delimiter=",", ndmin=2, dtype=np.float64)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: a table of voxel coordinates, without a head, expected ({error})") from error
    if rows.shape[1] != grid.ndim or not np.isfinite(rows).all():
        raise InputError(f"{path}: {grid.ndim} finite voxel coordinates in each row expected, got {rows.shape}")
    return Points(grid.to_world(torch.from_numpy(rows).mT[None]).mT)


def stamp(path: Path | None) -> tuple[int, int]:
    """Return a file's size and time of change in ns, which tell that it was written anew; 0, 0 of no file."""
    try:
        known = None if path is None else path.stat()
    except OSError:  # whoever reads it says so
        known = None
    return (0, 0) if known is None else (known.st_size, known.st_mtime_ns)


T = TypeVar("T", bound=Case)
Placing = Callable[[Pair], Pair]
"""A function from a loaded pair to what is seen of it, each time the same: a pre-alignment, say."""


def subject_of(case: Case) -> str:
    """Return the name of the subject of a case, by which splits are made."""
    return (case.subject if isinstance(case, Owned) else "") or case.name


def person_of(case: Case) -> str:
    """Return whose a case is, as far as its subject's name says: two visits of one are of the same."""
    return person_in(subject_of(case))


def pair_of(fixed: Case, moving: Case) -> Pair:
    """Return two cases as a pair, with the true transform where both know theirs, and the points of one person.

    Raises:
        InputError: the images or labels of the two do not make a pair, or there are more points of one than of the
            other.
    """
    a, b, name = fixed.load(), moving.load(), f"{fixed.name} ← {moving.name}"
    truth = None
    if a.to_template is not None and b.to_template is not None:
        truth = b.to_template.inverse() @ a.to_template
    points: tuple[Points | None, Points | None] = (None, None)
    if a.points is not None and b.points is not None and person_of(fixed) == person_of(moving):
        points = a.points, b.points
        counts = [known.data.shape[1] for known in (a.points, b.points)]
        if counts[0] != counts[1]:
            raise InputError(f"{name}: points that match row by row expected, got {counts[0]} and {counts[1]}")
    try:
        pair = Pair(a.image, b.image, a.labels, b.labels, *points, truth=truth, name=name)
        return replace(pair, fixed_boxes=a.boxes, moving_boxes=b.boxes)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error


def with_atlas(case: T, atlas: T, atlas_moves: bool) -> tuple[T, T]:
    """Return a case and the atlas as fixed and moving."""
    return (case, atlas) if atlas_moves else (atlas, case)


@dataclass(frozen=True)
class Train:
    """The training split of pairs: any two cases, of two people if there are some; with an `atlas`, it and one case.

    The atlas is the moving image of all pairs, or, unless `atlas_moves`, the fixed one. Where `pairs` of fixed and
    moving cases are given, only these are used. An example is `at_once` pairs, `stacked`: small images on one grid
    are learned from at once. `of` is the data set that it is a split of. Pairs are seen as `placing` answers with them.
    """

    cases: Sequence[Case]
    atlas: Case | None = None
    atlas_moves: bool = True
    pairs: Sequence[tuple[Case, Case]] = ()
    at_once: int = 1
    of: "Dataset | None" = field(default=None, repr=False, compare=False)
    placing: Placing | None = None

    def draw(self, generator: torch.Generator) -> Pair:
        """Draw an ordered pair, or a case with the atlas; or a batch of them."""
        return stacked([self.load(self._one(generator)) for _ in range(self.at_once)])

    def _one(self, generator: torch.Generator) -> tuple[Case, Case]:
        if self.pairs:
            return self.pairs[int(torch.randint(len(self.pairs), (), generator=generator))]
        order = torch.randperm(len(self.cases), generator=generator)
        one, other = (self.cases[n] for n in order[:2].tolist())
        if self.atlas is not None:
            return with_atlas(one, self.atlas, self.atlas_moves)
        if person_of(one) == person_of(other):
            others = (self.cases[n] for n in order[2:].tolist())
            other = next((case for case in others if person_of(case) != person_of(one)), other)
        return one, other

    def several(self, count: int, generator: torch.Generator) -> list[tuple[Case, Case]]:
        """Draw `count` different pairs, fixed ← moving, or all there are; no pair comes both ways before all are in."""
        if self.pairs:
            drawn = [self.pairs[n] for n in torch.randperm(len(self.pairs), generator=generator).tolist()]
            first = {frozenset(way): n for n, way in reversed([*enumerate(drawn)])}
            return sorted(drawn, key=lambda way: drawn[first[frozenset(way)]] != way)[:count]
        if self.atlas is not None:
            ways = [with_atlas(case, self.atlas, self.atlas_moves) for case in self.cases]
            return [ways[n] for n in torch.randperm(len(ways), generator=generator)][:count]
        drawn_ways = drawn_pairs(_who(self.cases), count, generator)
        ways = [(self.cases[a], self.cases[b]) for a, b in drawn_ways]
        turned = (torch.rand(len(ways), generator=generator) < 0.5).tolist()
        ways = [way[::-1] if turn else way for way, turn in zip(ways, turned, strict=True)]
        return [*ways, *(way[::-1] for way in ways)][:count]

    def load(self, cases: tuple[Case, Case]) -> Pair:
        """Load a pair of `several`."""
        pair = pair_of(*cases)
        return pair if self.placing is None else self.placing(pair)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its subjects, sorted."""
        return tuple(sorted({subject_of(case) for case in self.cases}))


@dataclass(frozen=True)
class Singles:
    """The training split where each case is an example by itself; `of` is the data set that it is a split of."""

    cases: Sequence[Case]
    of: "Dataset | None" = field(default=None, repr=False, compare=False)

    def draw(self, generator: torch.Generator) -> Any:
        """Draw a case and load it."""
        return self.cases[int(torch.randint(len(self.cases), (), generator=generator))].load()

    def several(self, count: int, generator: torch.Generator) -> list[Case]:
        """Draw `count` different cases, or all there are."""
        return [self.cases[n] for n in torch.randperm(len(self.cases), generator=generator)[:count].tolist()]

    def load(self, case: Case) -> Any:
        """Load a case of `several`."""
        return case.load()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its subjects, sorted."""
        return tuple(sorted({subject_of(case) for case in self.cases}))


class PairMaker(Protocol):
    """A function that makes the example at `number` of a list from its fixed case alone, each time the same."""

    def __call__(self, case: Case, number: int) -> Any: ...


def itself(case: Case, number: int) -> Any:
    """Return the case, loaded: the maker of examples that are stored as such."""
    return case.load()


@dataclass(frozen=True)
class _Renumbered:
    """A maker of the pairs at `numbers` of a longer list."""

    make: PairMaker
    numbers: Sequence[int]

    def __call__(self, case: Case, number: int) -> Pair:
        return self.make(case, self.numbers[number])


@dataclass(frozen=True)
class _Listed(ABC):
    """A split of listed pairs, fixed ← moving, the same each time; an `atlas` is none of the subjects.

    With `make` only the fixed cases are used as stored: pairs, or other examples, are made from them. Pairs are seen as
    `placing` answers with them.
    """

    pairs: Sequence[tuple[Case, Case]]
    atlas: Case | None = None
    make: PairMaker | None = None
    placing: Placing | None = None

    @classmethod
    def singles(cls, cases: Sequence[Case], make: PairMaker = itself) -> Self:
        """Return a split with an example of each case."""
        return cls([(case, case) for case in cases], make=make)

    def __iter__(self) -> Iterator[Any]:
        for number, (fixed, moving) in enumerate(self.pairs):
            example = pair_of(fixed, moving) if self.make is None else self.make(fixed, number)
            yield example if self.placing is None else self.placing(example)

    def __len__(self) -> int:
        return len(self.pairs)

    def some(self, count: int) -> Self:
        """Return `count` of its pairs, spread evenly, each the same as here; all, where there are no more."""
        return self._chosen(_spread(len(self), count))

    def without(self, names: Collection[str]) -> Self:
        """Return the split without the pairs of these cases, by name; the others are the same as here."""
        kept = [n for n, pair in enumerate(self.pairs) if not any(case.name in names for case in pair)]
        return self._chosen(kept)

    def _chosen(self, numbers: Sequence[int]) -> Self:
        pairs, make = [self.pairs[number] for number in numbers], self.make and _Renumbered(self.make, numbers)
        return replace(self, pairs=pairs, make=make)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the subjects of its pairs, sorted."""
        return tuple(sorted({subject_of(case) for pair in self.pairs for case in pair if case is not self.atlas}))


@dataclass(frozen=True)
class Validation(_Listed):
    """The split on which checkpoints are chosen."""


@dataclass(frozen=True)
class Test(_Listed):
    """The split that is reported. Only `evaluate` takes it; nothing is chosen on it."""

    __test__ = False  # not a test class, whatever pytest thinks


class Dataset(Protocol):
    """A dataset of three splits without a subject in common."""

    @property
    def train(self) -> Train | Singles: ...
    @property
    def validation(self) -> Validation: ...
    @property
    def test(self) -> Test: ...


class PairDataset(Dataset, Protocol):
    """A dataset of pairs of images."""

    @property
    def centred(self) -> bool:
        """Whether images lie middle on middle, whatever their headers say."""
        ...


def ordered_pairs(cases: Sequence[T], limit: int | None = None) -> list[tuple[T, T]]:
    """Return all ordered pairs of different cases, of two people where there are some, or `limit` of them.

    Fewer than all are rounds, in each of which a case is fixed with the next one in the list, and round, of another
    person that it was not with: each case is fixed as often as any other, up to one. Where each has one, it
    moves as often too, up to one, and no pair comes both ways before all are in. Neither time nor memory grows with the
    square of the cases unless all pairs are asked for.
    """
    return [(cases[a], cases[b]) for a, b in pairs_of_two(_who(cases), limit)]


def _who(cases: Sequence[Case]) -> Sequence[object]:
    """Return whose each case is; where all are of one person, each is its own."""
    people = [person_of(case) for case in cases]
    return people if len({*people}) > 1 else range(len(cases))


def pairs_within(groups: Iterable[Sequence[T]], limit: int | None = None, one_way: bool = False) -> list[tuple[T, T]]:
    """Return all ordered pairs of different cases of one group, such as the images of one subject, or `limit` of them.

    They come in rounds, as in `ordered_pairs`: each case is fixed once before any is so again. With `one_way` a case is
    fixed for those alone that come after it in its group, the next ones first, so each two make one pair.
    """
    known = [[*group] for group in groups]
    rounds = range(1, max(map(len, known), default=0))
    ways = [
        (case, g[(i + k) % len(g)])
        for k in rounds
        for g in known
        if k < len(g)
        for i, case in enumerate(g[: len(g) - k] if one_way else g)
    ]
    return ways[:limit]


def _spread(length: int, count: int) -> list[int]:
    """Return `count` indices of a list, evenly spread, or all of them."""
    count = min(count, length)
    return [round(i * length / count) for i in range(count)]
