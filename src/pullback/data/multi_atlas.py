"""A dataset for multi-atlas segmentation: unlabelled targets, each with the labels of several registered atlases."""

from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor

from pullback.alignment import Register
from pullback.data.candidates import CandidateDraws, Candidates
from pullback.data.case import LOADED, Case, Dataset, Subject, Test, Validation
from pullback.errors import InputError
from pullback.numerics.random import drawn_number
from pullback.space import Affine, Labels, pull

Shares = tuple[tuple[float, Register], ...]
"""Registers, each with the share of the candidates that it makes."""


@dataclass(frozen=True)
class SharedError:
    """An error that most candidates of some targets share: the true labels, shifted the same way.

    No vote within such a target can know better; the other targets do.

    Attributes:
        targets: share of the targets where it is so.
        atlases: share of their candidates that have it.
        voxels: the shift along each of the first two axes, of a sign drawn for each target.
        seed: of the draws.
    """

    targets: float = 0.5
    atlases: float = 0.6
    voxels: int = 3
    seed: int = 0

    def here(self, name: str) -> bool:
        """Return whether the target of this name is among them."""
        return drawn_number(self.seed, f"shared {name}") < self.targets

    def __call__(self, labels: Labels, truth: Labels, name: str) -> Labels:
        """Return a target's candidates `(A, 1, *spatial)`, the first of which have the error."""
        count = round(self.atlases * labels.batch)
        signs = [1.0 if drawn_number(self.seed, f"axis {axis} of {name}") < 0.5 else -1.0 for axis in range(2)]
        step = torch.zeros(truth.grid.ndim, dtype=torch.float64)
        step[:2] = self.voxels * torch.tensor(signs, dtype=torch.float64)
        matrix = torch.eye(truth.grid.ndim + 1, dtype=torch.float64)
        matrix[:-1, -1] = truth.grid.affine[:-1, :-1] @ step
        wrong = pull(truth, Affine(matrix), onto=truth)
        return replace(labels, data=torch.cat([wrong.data.expand(count, *wrong.data.shape[1:]), labels.data[count:]]))


@dataclass(frozen=True)
class MultiAtlas:
    """A dataset of targets, each with the labels of the same atlases, which were brought onto it by some register.

    Targets and atlases are people of another dataset's training split, in its order: targets first. All targets are
    learned from, without their labels. By those of some, `chosen_by`, checkpoints are chosen; on those of the others is
    measured: so validation and test have nobody in common, and training sees the images of both.

    Attributes:
        data: the dataset, of labelled images.
        ways: registers, and the share of the candidates that each makes; which one it is depends on the names alone.
        targets, atlases: how many.
        chosen_by: how many of the targets choose the checkpoint.
        spacing: of the voxels that a network sees, mm, along each axis; None for those of the images.
        at_once, each: as of `CandidateDraws`.
        error: changes the candidates of a target, such as `SharedError()`; None leaves them.
        seed: of the draw of registers.
        root: the folder of the dataset, where it is read from one; "" leaves it as it is.

    Raises:
        InputError: fewer than one target of either kind, or than two atlases; or shares that are not 1 in sum.
    """

    data: Dataset
    ways: Shares
    targets: int = 20
    atlases: int = 10
    chosen_by: int = 4
    spacing: float | None = 2.0
    at_once: int = 8
    each: int = 1
    error: SharedError | None = None
    seed: int = 0
    root: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.chosen_by < self.targets or self.atlases < 2:
            raise InputError(
                f"MultiAtlas: two atlases or more, and targets to choose by and others expected, got {self.atlases}, "
                f"and {self.chosen_by} of {self.targets}"
            )
        if abs(sum(share for share, _ in self.ways) - 1) > 1e-6:
            raise InputError(f"MultiAtlas: shares of ways of 1 in sum expected, got {[s for s, _ in self.ways]}")

    @property
    def train(self) -> CandidateDraws:
        return CandidateDraws(self._cases, self, self.at_once, self.each)

    @property
    def validation(self) -> Validation:
        return Validation.singles(self._cases[: self.chosen_by])

    @property
    def test(self) -> Test:
        return Test.singles(self._cases[self.chosen_by :])

    @cached_property
    def _cases(self) -> "tuple[TargetCase, ...]":
        known = replace(cast(Any, self.data), root=self.root) if self.root else self.data
        cases, count = known.train.cases, self.targets + self.atlases
        if len(cases) < count:
            raise InputError(
                f"MultiAtlas: {self.targets} targets and {self.atlases} atlases of {len(cases)} people for training; "
                f"set data.targets and data.atlases"
            )
        atlases = tuple(cases[self.targets : count])
        return tuple(self._case(target, atlases, n * self.atlases) for n, target in enumerate(cases[: self.targets]))

    def _case(self, target: Case, atlases: tuple[Case, ...], first: int) -> "TargetCase":
        ends = list(accumulate(share for share, _ in self.ways))
        registers = []
        for atlas in atlases:
            drawn = drawn_number(self.seed, f"{atlas.name} onto {target.name}")
            registers.append(self.ways[sum(drawn >= end for end in ends[:-1])][1])
        error = self.error if self.error is not None and self.error.here(target.name) else None
        return TargetCase(target, atlases, tuple(registers), first, self.spacing, error)


@dataclass(frozen=True)
class TargetCase:
    """A target with the labels of atlases.

    Attributes:
        target: a labelled image, whose labels are the truth.
        atlases: labelled images.
        registers: that bring each of them onto the target.
        first: number of the first candidate among those of all targets.
        spacing, error: as of `MultiAtlas`.
    """

    target: Case
    atlases: tuple[Case, ...]
    registers: tuple[Register, ...]
    first: int = 0
    spacing: float | None = None
    error: SharedError | None = None

    @property
    def name(self) -> str:
        """The name of the target."""
        return self.target.name

    def load(self) -> Candidates:
        """Return the candidates on the target's grid; those that were made before are kept.

        Raises:
            InputError: the target or an atlas has no labels.
        """
        return LOADED.get(self, self._made)

    def seen(self) -> Candidates:
        """Return the candidates as a network sees them."""
        return LOADED.get((self, "seen"), self._shrunk)

    def _made(self) -> Candidates:
        subject: Subject = self.target.load()
        if subject.labels is None:
            raise InputError(f"{self.name}: the labels of targets are what is measured, and this one has none")
        pairs = zip(self.atlases, self.registers, strict=True)
        maps = [LOADED.get((self.target, *pair), partial(self._pulled, *pair)) for pair in pairs]
        labels = Labels(torch.cat(maps), subject.image.grid)
        if self.error is not None:
            labels = self.error(labels, replace(subject.labels, data=subject.labels.data.to(labels.data)), self.name)
        numbers = torch.arange(self.first, self.first + len(maps))
        names = tuple(atlas.name for atlas in self.atlases)
        return Candidates(subject.image, labels, numbers, subject.labels, names, self.name)

    def _pulled(self, atlas: Case, register: Register) -> Tensor:
        """Return the labels of an atlas on the target's grid, `(1, 1, *spatial)`."""
        target, other = self.target.load(), atlas.load()
        if other.labels is None:
            raise InputError(f"{atlas.name}: has no labels, and atlases are there for their labels")
        found = register(target.image, other.image)
        return pull(other.labels, found.transform, onto=target.image).data

    def _shrunk(self) -> Candidates:
        known = self.load()
        if self.spacing is None:
            return known
        return known.on(known.image.grid.at_spacing((self.spacing,) * known.image.grid.ndim))
