"""A dataset whose examples are single images of people, with what is known of them, made of another dataset."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import torch

from pullback.data.case import LOADED, Case, Dataset, Singles, Subject, Test, Validation, subject_of
from pullback.space import Affine, Grid, pull


@dataclass(frozen=True)
class Lattice:
    """A grid along R, A, S, as plain numbers.

    Attributes:
        shape: voxels along each axis.
        spacing: of the voxels, mm.
        centre: its middle in the world, mm.
    """

    shape: tuple[int, ...]
    spacing: float
    centre: tuple[float, ...]

    @property
    def grid(self) -> Grid:
        """The grid."""
        found = Grid.centred(self.shape, self.spacing)
        affine = found.affine.clone()
        affine[:-1, -1] += torch.tensor(self.centre, dtype=torch.float64)
        return Grid(found.shape, affine)


@dataclass(frozen=True)
class SingleScans:
    """The images of another dataset, one by one, in the splits they are in: `Subject`s, with labels and ages.

    Attributes:
        data: the other dataset, of images.
        lattice: what all are resampled on; None leaves each on its grid.
        root: the folder of the other dataset, where it is read from one; "" leaves it as it is.
    """

    data: Dataset
    lattice: Lattice | None = None
    root: str = ""

    @property
    def train(self) -> Singles:
        return Singles(self._seen(self._placed.train.cases), of=self)

    @property
    def validation(self) -> Validation:
        return Validation.singles(self._seen(case for pair in self._placed.validation.pairs for case in pair))

    @property
    def test(self) -> Test:
        return Test.singles(self._seen(case for pair in self._placed.test.pairs for case in pair))

    @cached_property
    def _placed(self) -> Dataset:
        return replace(cast(Any, self.data), root=self.root) if self.root else self.data

    def _seen(self, cases: Iterable[Case]) -> "list[ScanCase]":
        """Return each case once, in the order of their names."""
        return [ScanCase(case, self.lattice) for _, case in sorted({case.name: case for case in cases}.items())]


@dataclass(frozen=True)
class ScanCase:
    """A case on a lattice."""

    case: Case
    lattice: Lattice | None = None

    @property
    def name(self) -> str:
        return self.case.name

    @property
    def subject(self) -> str:
        return subject_of(self.case)

    def load(self) -> Subject:
        return self.case.load() if self.lattice is None else LOADED.get(self, self._resampled)

    def _resampled(self) -> Subject:
        assert self.lattice is not None
        known, grid = self.case.load(), self.lattice.grid
        still = Affine.identity(grid.ndim)
        labels = None if known.labels is None else pull(known.labels, still, onto=grid)
        return replace(known, image=pull(known.image, still, onto=grid), labels=labels, points=None, boxes=None)
