"""Augmentation of examples; the truth of a pair follows its images."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pullback.alignment import Pair
from pullback.numerics.rotation import nearby
from pullback.space import Affine, Grid, keypoints, pull, push


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
class OneAffine:
    """Augmentation by a random affine map of one image of a pair, by chance the fixed or the moving one.

    Heinrich & Hansen 2022, as in the authors' code, which takes the images by turns.

    Attributes:
        deviation: of each of the map's numbers from the identity's, in half the extent of the grid along each axis.
    """

    deviation: float = 0.035

    def __call__(self, pair: Pair, generator: torch.Generator) -> Pair:
        still = Affine.identity(pair.fixed.grid.ndim)
        if int(torch.randint(2, (), generator=generator)):
            return seen_through(pair, self.drawn(pair.fixed.grid, generator), still)
        return seen_through(pair, still, self.drawn(pair.moving.grid, generator))

    def drawn(self, grid: Grid, generator: torch.Generator) -> Affine:
        """Draw a map about the middle of a grid."""
        d = grid.ndim
        numbers = self.deviation * torch.randn(d, d + 1, generator=generator, dtype=torch.float64)
        axes = grid.affine[:-1, :-1] * torch.tensor(grid.shape, dtype=torch.float64) / 2  # half the extent, as columns
        linear = axes @ (torch.eye(d, dtype=torch.float64) + numbers[:, :d]) @ torch.linalg.inv(axes)
        return Affine.about(linear, grid.centre, grid.centre + axes @ numbers[:, d])


@dataclass(frozen=True)
class DrawnPoints:
    """A choice of a pair's points at random, which a supervision by points learns from.

    They are the pair's own, the moving ones with them where there are any; else keypoints of the fixed image, and where
    the truth takes them.

    Attributes:
        count: how many, or all where there are fewer.
        noise: standard deviation that is added to the moving points along each axis, mm: the error of the matches of an
            automatic method.
    """

    count: int = 512
    noise: float = 0.0

    def __call__(self, pair: Pair, generator: torch.Generator) -> Pair:
        fixed, moving = pair.fixed_points, pair.moving_points
        if fixed is None:
            fixed = keypoints(pair.fixed)
            moving = None if pair.truth is None else push(fixed, pair.truth)
        order = torch.randperm(fixed.data.shape[1], generator=generator)[: self.count]
        fixed, moving = fixed[order], moving and moving[order]
        if moving is not None and self.noise:
            off = self.noise * torch.randn(moving.data.shape, generator=generator, dtype=torch.float64)
            moving = replace(moving, data=moving.data + off.to(moving.data))
        return replace(pair, fixed_points=fixed, moving_points=moving)


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
    moving one. Points and the lesion come along; labels are dropped: no supervision uses them here.
    """
    truth = pair.truth and moving.inverse() @ (pair.truth @ fixed)
    return replace(
        Pair(pull(pair.fixed, fixed, onto=pair.fixed), pull(pair.moving, moving, onto=pair.moving)),
        fixed_points=pair.fixed_points and push(pair.fixed_points, fixed.inverse()),
        moving_points=pair.moving_points and push(pair.moving_points, moving.inverse()),
        truth=truth,
        name=pair.name,
        lesion=pair.lesion and pull(pair.lesion, fixed, onto=pair.fixed),
    )
