"""One subject of a dataset, and the splits, which are different types so that they cannot be mixed up."""

from abc import ABC
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import torch

from pullback.alignment import Pair
from pullback.data.memory import Memory
from pullback.data.normalise import preprocessed
from pullback.errors import InputError
from pullback.files.images.nifti import read_image, read_labels
from pullback.space import Image, Labels, Transform, canonical, centred

LOADED = Memory(limit=4 * 2**30)  # shared by all cases of a process


@dataclass(frozen=True, eq=False)
class Subject:
    """One loaded case, which is an example by itself: a labelled image.

    Attributes:
        to_template: where known, maps its world to the world that all cases share.
        about: what a table of people and the image's path say of it: age, visit and so on.
    """

    image: Image
    labels: Labels | None = None
    to_template: Transform | None = None
    about: Mapping[str, float | str] = field(default_factory=dict)
    name: str = ""

    @property
    def images(self) -> tuple[Image, ...]:
        """Its only one."""
        return (self.image,)

    def to(self, device: torch.device) -> Self:
        """All that it knows, on `device`."""
        labels, map_ = self.labels and self.labels.to(device), self.to_template and self.to_template.to(device)
        return replace(self, image=self.image.to(device), labels=labels, to_template=map_)


class Case(Protocol):
    """Something that can be loaded: as a `Subject`, or as an example by itself."""

    @property
    def name(self) -> str: ...
    def load(self) -> Any: ...


@dataclass(frozen=True)
class FileCase:
    """Files on disk, turned on loading to axes near R, A, S; `labels` and `mask` lie on the image's grid.

    Intensities are `shown`. `shape`, counted along the turned axes, lays the middle of each image over the others'.
    `subject`, where it is not the name, is whose image it is, and `about` what `Subject.about` will be, by pairs.
    With `as_stored` nothing is turned, and intensities are those of the file.
    """

    name: str
    image: Path
    labels: Path | None = None
    mask: Path | None = None
    shape: tuple[int, ...] | None = None
    subject: str = ""
    about: tuple[tuple[str, float | str], ...] = ()
    as_stored: bool = False

    @property
    def files(self) -> tuple[Path | None, ...]:
        """Of the image, its labels and its mask; None for one that it does not have."""
        return self.image, self.labels, self.mask

    def load(self) -> Subject:
        return LOADED.get(self, self._read)

    def _read(self) -> Subject:
        stored = read_image(self.image, self.mask)
        if self.as_stored:
            labels = None if self.labels is None else read_labels(self.labels, on=stored.grid)
            return Subject(stored, labels, about=dict(self.about), name=self.name)
        image = preprocessed(canonical(stored))
        labels = None if self.labels is None else canonical(read_labels(self.labels, on=stored.grid))
        if self.shape is not None:
            image, labels = centred(image, self.shape), labels and centred(labels, self.shape)
        return Subject(image, labels, about=dict(self.about), name=self.name)


T = TypeVar("T", bound=Case)


def subject_of(case: Case) -> str:
    """The name of whose image a case is: what splits are made by."""
    return case.subject or case.name if isinstance(case, FileCase) else case.name


def pair_of(fixed: Case, moving: Case) -> Pair:
    """Two cases as a pair, with the true transform where both know theirs.

    Raises:
        InputError: the images or labels of the two do not make a pair.
    """
    a, b, name = fixed.load(), moving.load(), f"{fixed.name} ← {moving.name}"
    truth = None
    if a.to_template is not None and b.to_template is not None:
        truth = b.to_template.inverse() @ a.to_template
    try:
        return Pair(a.image, b.image, a.labels, b.labels, truth=truth, name=name)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error


def with_atlas(case: T, atlas: T, atlas_moves: bool) -> tuple[T, T]:
    """Fixed and moving."""
    return (case, atlas) if atlas_moves else (atlas, case)


@dataclass(frozen=True)
class Train:
    """What networks learn from: any two different cases make a pair; with an `atlas`, it and any one case.

    The atlas is the moving image of them all, or, unless `atlas_moves`, the fixed one. Where `pairs` are named, fixed
    and moving cases, they alone are learned from.
    """

    cases: Sequence[Case]
    atlas: Case | None = None
    atlas_moves: bool = True
    pairs: Sequence[tuple[Case, Case]] = ()

    def draw(self, generator: torch.Generator) -> Pair:
        """A random ordered pair, or a random case with the atlas."""
        if self.pairs:
            return pair_of(*self.pairs[int(torch.randint(len(self.pairs), (), generator=generator))])
        one, other = (self.cases[n] for n in torch.randperm(len(self.cases), generator=generator)[:2].tolist())
        if self.atlas is not None:
            return pair_of(*with_atlas(one, self.atlas, self.atlas_moves))
        return pair_of(one, other)

    def several(self, count: int, generator: torch.Generator) -> list[tuple[Case, Case]]:
        """So many different pairs, fixed ← moving, by chance, or all there are; none both ways before all are in."""
        if self.pairs:
            drawn = [self.pairs[n] for n in torch.randperm(len(self.pairs), generator=generator).tolist()]
            first = {frozenset(way): n for n, way in reversed([*enumerate(drawn)])}
            return sorted(drawn, key=lambda way: drawn[first[frozenset(way)]] != way)[:count]
        if self.atlas is not None:
            ways = [with_atlas(case, self.atlas, self.atlas_moves) for case in self.cases]
        else:
            ways = [(a, b) for n, a in enumerate(self.cases) for b in self.cases[:n]]
        ways = [ways[n] for n in torch.randperm(len(ways), generator=generator)]
        if self.atlas is None:
            turned = (torch.rand(len(ways), generator=generator) < 0.5).tolist()
            ways = [way[::-1] if turn else way for way, turn in zip(ways, turned, strict=True)]
            ways += [way[::-1] for way in ways]
        return ways[:count]

    def load(self, cases: tuple[Case, Case]) -> Pair:
        """One of `several`."""
        return pair_of(*cases)

    @property
    def names(self) -> tuple[str, ...]:
        """Its subjects, sorted."""
        return tuple(sorted({subject_of(case) for case in self.cases}))


@dataclass(frozen=True)
class Singles:
    """What networks learn from where each case is an example by itself."""

    cases: Sequence[Case]

    def draw(self, generator: torch.Generator) -> Any:
        """One of them by chance, loaded."""
        return self.cases[int(torch.randint(len(self.cases), (), generator=generator))].load()

    def several(self, count: int, generator: torch.Generator) -> list[Case]:
        """So many different ones, by chance, or all there are."""
        return [self.cases[n] for n in torch.randperm(len(self.cases), generator=generator)[:count].tolist()]

    def load(self, case: Case) -> Any:
        """One of `several`."""
        return case.load()

    @property
    def names(self) -> tuple[str, ...]:
        """Its cases, sorted."""
        return tuple(sorted({case.name for case in self.cases}))


class PairMaker(Protocol):
    """Makes the example at `number` of a list out of its fixed case alone, each time the same."""

    def __call__(self, case: Case, number: int) -> Any: ...


def itself(case: Case, number: int) -> Any:
    """The maker of examples that are stored as such: the case, loaded."""
    return case.load()


@dataclass(frozen=True)
class _Renumbered:
    """Makes pairs of a list of which some were taken: those at `numbers`."""

    make: PairMaker
    numbers: Sequence[int]

    def __call__(self, case: Case, number: int) -> Pair:
        return self.make(case, self.numbers[number])


@dataclass(frozen=True)
class _Listed(ABC):
    """Pairs that are the same each time, fixed ← moving; an `atlas` is none of the subjects.

    With `make` only the fixed cases are as they are stored: pairs, or other examples, are made of them.
    """

    pairs: Sequence[tuple[Case, Case]]
    atlas: Case | None = None
    make: PairMaker | None = None

    @classmethod
    def singles(cls, cases: Sequence[Case], make: PairMaker = itself) -> Self:
        """An example of each case."""
        return cls([(case, case) for case in cases], make=make)

    def __iter__(self) -> Iterator[Any]:
        for number, (fixed, moving) in enumerate(self.pairs):
            yield pair_of(fixed, moving) if self.make is None else self.make(fixed, number)

    def __len__(self) -> int:
        return len(self.pairs)

    def some(self, count: int) -> Self:
        """So many of its pairs, spread evenly, each the same as here; all, where there are no more."""
        chosen = _spread(len(self), count)
        pairs, make = [self.pairs[number] for number in chosen], self.make and _Renumbered(self.make, chosen)
        return replace(self, pairs=pairs, make=make)

    @property
    def names(self) -> tuple[str, ...]:
        """The subjects of its pairs, sorted."""
        return tuple(sorted({subject_of(case) for pair in self.pairs for case in pair if case is not self.atlas}))


@dataclass(frozen=True)
class Validation(_Listed):
    """What checkpoints are chosen on."""


@dataclass(frozen=True)
class Test(_Listed):
    """What is reported. Only `evaluate` takes it; nothing is chosen on it."""

    __test__ = False  # not a test class, whatever pytest thinks


class Dataset(Protocol):
    """Three splits without a subject in common."""

    @property
    def train(self) -> Train | Singles: ...
    @property
    def validation(self) -> Validation: ...
    @property
    def test(self) -> Test: ...


class PairDataset(Dataset, Protocol):
    """Of pairs of images."""

    @property
    def centred(self) -> bool:
        """Whether images lie middle on middle, whatever their headers say."""
        ...


def ordered_pairs(cases: Sequence[T], limit: int | None = None) -> list[tuple[T, T]]:
    """All ordered pairs of different cases, or `limit` of them.

    Fewer than all are (i, i + k mod n), k = 1, 2, …: each case is fixed as often as any other, up to one, and moving
    too, and none is there both ways before all are in.
    """
    n = len(cases)
    if limit is None or limit >= n * (n - 1):
        return [(a, b) for a in cases for b in cases if a is not b]
    return [(case, cases[(i + k) % n]) for k in range(1, n) for i, case in enumerate(cases)][: max(limit, 0)]


def pairs_within(groups: Iterable[Sequence[T]], limit: int | None = None) -> list[tuple[T, T]]:
    """All ordered pairs of different cases of one group, such as the images of one subject, or `limit` of them.

    In rounds, as `ordered_pairs` has them: each case is fixed once before any is so again.
    """
    known = [[*group] for group in groups]
    rounds = range(1, max(map(len, known), default=0))
    ways = [(case, g[(i + k) % len(g)]) for k in rounds for g in known if k < len(g) for i, case in enumerate(g)]
    return ways[:limit]


def _spread(length: int, count: int) -> list[int]:
    """`count` places of a list, evenly, or all of them."""
    count = min(count, length)
    return [round(i * length / count) for i in range(count)]
