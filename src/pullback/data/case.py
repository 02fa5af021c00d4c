"""One subject of a dataset, and the splits, which are different types so that they cannot be mixed up."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from pullback.alignment import Pair
from pullback.data.normalise import normalised
from pullback.errors import InputError
from pullback.files.nifti import read_image, read_labels
from pullback.space import Image, Labels, Transform, centred


@dataclass(frozen=True, eq=False)
class Subject:
    """One loaded case. `to_template`, where known, maps its world to the world that all cases share."""

    image: Image
    labels: Labels | None = None
    to_template: Transform | None = None


class Case(Protocol):
    """Something that can be loaded as a subject."""

    @property
    def name(self) -> str: ...
    def load(self) -> Subject: ...


@dataclass(frozen=True)
class FileCase:
    """Files on disk. Intensities are normalised on loading; `shape` lays the middle of each image over the others'."""

    name: str
    image: Path
    labels: Path | None = None
    mask: Path | None = None
    shape: tuple[int, ...] | None = None

    def load(self) -> Subject:
        return _load(self)


@lru_cache(maxsize=256)
def _load(case: FileCase) -> Subject:
    image = normalised(read_image(case.image, case.mask))
    labels = None if case.labels is None else read_labels(case.labels, on=image.grid)
    if case.shape is None:
        return Subject(image, labels)
    return Subject(centred(image, case.shape), labels and centred(labels, case.shape))


def pair_of(fixed: Case, moving: Case) -> Pair:
    """Two cases as a pair, with the true transform where both know theirs."""
    a, b = fixed.load(), moving.load()
    if a.image.grid.ndim != b.image.grid.ndim:
        raise InputError(
            f"{fixed.name} is {a.image.grid.ndim}-D and {moving.name} {b.image.grid.ndim}-D; both must be alike"
        )
    truth = None
    if a.to_template is not None and b.to_template is not None:
        truth = b.to_template.inverse() @ a.to_template
    return Pair(a.image, b.image, a.labels, b.labels, truth=truth, name=f"{fixed.name} ← {moving.name}")


@dataclass(frozen=True)
class Train:
    """What networks learn from: any two different cases make a pair."""

    cases: Sequence[Case]

    def draw(self, generator: torch.Generator) -> Pair:
        """A random ordered pair."""
        fixed, moving = torch.randperm(len(self.cases), generator=generator)[:2].tolist()
        return pair_of(self.cases[fixed], self.cases[moving])


@dataclass(frozen=True)
class Validation:
    """What checkpoints are chosen on: fixed ← moving."""

    pairs: Sequence[tuple[Case, Case]]

    def __iter__(self):
        return (pair_of(fixed, moving) for fixed, moving in self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)


@dataclass(frozen=True)
class Test:
    """What is reported. Only `evaluate` takes it; nothing is chosen on it."""

    __test__ = False  # not a test class, whatever pytest thinks

    pairs: Sequence[tuple[Case, Case]]

    def __iter__(self):
        return (pair_of(fixed, moving) for fixed, moving in self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)


class Dataset(Protocol):
    """Three splits without a subject in common."""

    @property
    def train(self) -> Train: ...
    @property
    def validation(self) -> Validation: ...
    @property
    def test(self) -> Test: ...
    @property
    def centred(self) -> bool:
        """Whether images lie middle on middle, whatever their headers say."""
        ...


Some = TypeVar("Some", bound=Case)


def ordered_pairs(cases: Sequence[Some], limit: int | None = None) -> list[tuple[Some, Some]]:
    """All ordered pairs of different cases, or `limit` of them, spread evenly."""
    pairs = [(a, b) for a in cases for b in cases if a is not b]
    if limit is None or limit >= len(pairs):
        return pairs
    return [pairs[round(i * len(pairs) / limit)] for i in range(limit)]
