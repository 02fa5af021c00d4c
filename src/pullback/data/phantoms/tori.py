"""Tori: flat rings between two ellipses, on which LDDMM is tried in two dimensions. Nothing is read for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from pullback.data.case import Subject, Test, Train, Validation
from pullback.errors import InputError
from pullback.numerics.random import make_generator
from pullback.space import Grid, Image, Labels

VOXELS = 64  # along the sides of the images that the lengths below are given for
INNER, OUTER = (4.0, 2.0), (12.0, 4.0)  # mean and standard deviation of the semi-axes
LEAST, THINNEST, MOST = 1.0, 2.0, 28.0  # inner semi-axis, outer less inner, and outer semi-axis
TINY = 1e-6


@dataclass(frozen=True)
class Tori:
    """A set of bright rings on black, each between two ellipses about the middle of the image.

    Ramon, Hernandez & Mayordomo 2022, section 4: the semi-axes of the inner ellipse are drawn from N(4, 2), those of
    the outer one from N(12, 4), in voxels of 64×64; read here as mean and standard deviation, each of the four by
    itself. The paper is silent on draws that are no ring: all four are drawn again where an inner one is below 1, an
    outer one above 28, or a ring thinner than 2, some 28 % of the draws. Edges are one voxel wide. Labels: 1 the ring,
    2 the hole. Pairs of the validation and test splits have no torus in common.

    Attributes:
        side: voxels of 1 mm along both axes; lengths are as many 64ths of it as they are voxels of 64.
        train_subjects, validation_subjects, test_subjects: number of tori in each split.
        at_once: pairs of one example for training.
        seed: of all draws.

    Raises:
        InputError: fewer than 16 voxels, in which there is no ring, no pair for a split, or none for an example.
    """

    side: int = VOXELS
    train_subjects: int = 2560
    validation_subjects: int = 64
    test_subjects: int = 128
    at_once: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        splits = self.train_subjects, self.validation_subjects, self.test_subjects
        if self.side < VOXELS // 4 or min(splits) < 2 or self.at_once < 1:
            raise InputError(
                f"Tori: {VOXELS // 4} voxels or more, two tori or more for each split and one pair or more for an "
                f"example expected, got {self.side}, {', '.join(map(str, splits))} and {self.at_once}"
            )

    def _cases(self, first: int, count: int) -> tuple["TorusCase", ...]:
        return tuple(TorusCase(self.side, self.seed, number) for number in range(first, first + count))

    @property
    def centred(self) -> bool:
        return False

    @property
    def train(self) -> Train:
        return Train(self._cases(0, self.train_subjects), at_once=self.at_once, of=self)

    @property
    def validation(self) -> Validation:
        return Validation(_by_twos(self._cases(self.train_subjects, self.validation_subjects)))

    @property
    def test(self) -> Test:
        return Test(_by_twos(self._cases(self.train_subjects + self.validation_subjects, self.test_subjects)))


@dataclass(frozen=True)
class TorusCase:
    """A case that is torus `number` of those of a seed, in an image of `side` voxels along both axes."""

    side: int
    seed: int
    number: int

    @property
    def name(self) -> str:
        return f"torus-{self.number:04d}"

    @property
    def axes(self) -> tuple[Tensor, Tensor]:
        """The semi-axes of the inner and of the outer ellipse, `(2,)` each, float64 in voxels."""
        generator = make_generator(self.seed, self.number)
        while True:
            draws = torch.randn(2, 2, generator=generator, dtype=torch.float64)
            inner, outer = (mean + sd * draw for (mean, sd), draw in zip((INNER, OUTER), draws, strict=True))
            if inner.min() >= LEAST and outer.max() <= MOST and (outer - inner).min() >= THINNEST:
                return inner * self.side / VOXELS, outer * self.side / VOXELS

    def load(self) -> Subject:
        return _made(self)


@lru_cache(maxsize=4096)
def _made(case: TorusCase) -> Subject:
    grid = Grid.centred((case.side, case.side))
    hole, disc = (_depth(grid, axes) for axes in case.axes)
    data = (0.5 + disc).clamp(0, 1) - (0.5 + hole).clamp(0, 1)
    labels = (disc > 0).to(torch.uint8) + (hole > 0)
    return Subject(Image(data[None, None].float(), grid), Labels(labels[None, None], grid), name=case.name)


def _depth(grid: Grid, axes: Tensor) -> Tensor:
    """Return how deep each voxel lies within an ellipse about the middle, `(*grid.shape)` in voxels, to first order."""
    middle = (torch.tensor(grid.shape, dtype=torch.float64) - 1) / 2
    off = grid.voxels(middle) - middle.view(-1, 1, 1)
    radius = (off / axes.view(-1, 1, 1)).norm(dim=0).clamp(min=TINY)
    slope = (off / axes.view(-1, 1, 1) ** 2).norm(dim=0).clamp(min=TINY) / radius  # of the radius, per voxel
    return (1 - radius) / slope


def _by_twos(cases: Sequence[TorusCase]) -> list[tuple[TorusCase, TorusCase]]:
    return list(zip(cases[::2], cases[1::2], strict=False))
