"""Augmentation of examples; the truth of a pair follows its images."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pullback.alignment import Pair
from pullback.numerics.rotation import nearby
from pullback.space import Affine, Grid, pull


@dataclass(frozen=True)
class RandomAffine:
    """A generator of affine maps about the middle of a grid; each of their parts is drawn uniformly.

    Attributes:
        degrees: largest rotation, about each axis in turn.
        scale: the largest logarithm of each axis' scale.
        shear: largest tangent of a shear between two axes.
        shift: largest, as a share of the grid's extent along each world axis.
    """

    degrees: float = 10.0
    scale: float = 0.1
    shear: float = 0.05
    shift: float = 0.05

    def __call__(self, grid: Grid, generator: torch.Generator) -> Affine:
        """Draw a map, RAS mm to RAS mm."""
        d = grid.ndim

        def uniform(*shape: int) -> Tensor:
            return 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1

        still = torch.eye(d, dtype=torch.float64)
        turn = nearby(still[None], 1, self.degrees, generator)[0]
        stretch = still + self.shear * uniform(d, d).triu(1)
        linear = turn @ stretch @ (self.scale * uniform(d)).exp().diag()
        extent = grid.affine[:-1, :-1].abs() @ torch.tensor(grid.shape, dtype=torch.float64)
        return Affine.about(linear, grid.centre, grid.centre + self.shift * extent * uniform(d))


@dataclass(frozen=True)
class IndependentAffines:
    """Augmentation by a random affine map for each image of a pair; the truth follows.

    Attributes:
        affine: the generator of the maps.
    """

    affine: RandomAffine = RandomAffine()

    def __call__(self, pair: Pair, generator: torch.Generator) -> Pair:
        return seen_through(pair, *self.maps(pair, generator))

    def maps(self, pair: Pair, generator: torch.Generator) -> tuple[Affine, Affine]:
        """Draw the maps through which the fixed and the moving image are pulled."""
        return self.affine(pair.fixed.grid, generator), self.affine(pair.moving.grid, generator)


@dataclass(frozen=True)
class RandomFlips:
    """Augmentation by a flip along each axis of the fixed grid, about its middle, by the toss of a coin each.

    Both images are flipped alike, in the world, and the truth with them (TransMorph, Chen et al. 2022, on IXI).
    """

    def __call__(self, pair: Pair, generator: torch.Generator) -> Pair:
        grid = pair.fixed.grid
        signs = 1 - 2 * torch.randint(2, (grid.ndim,), generator=generator).double()
        axes = grid.affine[:-1, :-1]
        mirror = Affine.about(axes @ signs.diag() @ torch.linalg.inv(axes), grid.centre, grid.centre)
        return seen_through(pair, mirror, mirror)


@dataclass(frozen=True)
class InTurn:
    """A sequence of augmentations, each of which draws where the last one ended.

    Attributes:
        parts: `part(example, generator)` each.
    """

    parts: tuple[Callable[[Any, torch.Generator], Any], ...]

    def __call__(self, example: Any, generator: torch.Generator) -> Any:
        for part in self.parts:
            example = part(example, generator)
        return example


def seen_through(pair: Pair, fixed: Affine, moving: Affine) -> Pair:
    """Pull the images through affine maps of their own, each onto its own grid, with the truth between them.

    Where φ maps fixed to moving, the point x of the new fixed image lies at moving⁻¹(φ(fixed(x))) of the new
    moving one. Labels and points are dropped: no supervision uses them here.
    """
    truth = pair.truth and moving.inverse() @ (pair.truth @ fixed)
    return replace(
        Pair(pull(pair.fixed, fixed, onto=pair.fixed), pull(pair.moving, moving, onto=pair.moving)),
        truth=truth,
        name=pair.name,
    )
