"""Maps of world points, fixed → moving."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from pullback.numerics.integrate import exponential, invert
from pullback.numerics.sample import sample
from pullback.space.grid import Grid, transform_channels


class Transform(ABC):
    """A map of world points from the fixed to the moving world, in mm."""

    @property
    @abstractmethod
    def params(self) -> tuple[Tensor, ...]:
        """What a solver may change."""

    @abstractmethod
    def with_params(self, *params: Tensor) -> Self:
        """The same kind of transform with other parameters."""

    @abstractmethod
    def at(self, where: Tensor) -> Tensor:
        """World coordinates `(B, d, …)` in RAS mm to world coordinates, channel first."""

    @abstractmethod
    def inverse(self) -> "Transform":
        """The map back, moving → fixed."""

    def __call__(self, points: Tensor) -> Tensor:
        """Points `(B, N, d)` or `(N, d)` in RAS mm to where they lie in the moving world."""
        batched = points if points.ndim == 3 else points[None]
        moved = self.at(batched.mT).mT
        return moved if points.ndim == 3 or moved.shape[0] > 1 else moved[0]

    def displacement(self, grid: Grid) -> Tensor:
        """This map on `grid`: `(B, d, *grid.shape)` in voxels of `grid`, φ(x) = x + u(x)."""
        where = grid.voxels(self.params[0])[None]
        return grid.to_voxels(self.at(grid.to_world(where))) - where

    def __matmul__(self, inner: "Transform") -> "Transform":
        """`(φ @ ψ)(x) = φ(ψ(x))`; composed, so that an image is resampled once."""
        if isinstance(self, Affine) and isinstance(inner, Affine):
            return Affine(self.matrix.to(inner.matrix) @ inner.matrix)
        return Composite(self, inner)


@dataclass(frozen=True, eq=False)
class Affine(Transform):
    """`matrix` `(d+1, d+1)`, or `(B, d+1, d+1)`, homogeneous: RAS mm to RAS mm."""

    matrix: Tensor

    @classmethod
    def identity(cls, ndim: int) -> "Affine":
        return cls(torch.eye(ndim + 1, dtype=torch.float64))

    @property
    def params(self) -> tuple[Tensor, ...]:
        """The rows above the last, `(…, d, d+1)`: the last is 0 … 0 1 in every affine, and no solver may move it."""
        return (self.matrix[..., :-1, :],)

    def with_params(self, *params: Tensor) -> "Affine":
        (rows,) = params
        last = torch.zeros_like(rows[..., :1, :])
        last[..., -1] = 1
        return Affine(torch.cat([rows, last], -2))

    def at(self, where: Tensor) -> Tensor:
        return transform_channels(self.matrix, where)

    def inverse(self) -> "Affine":
        return Affine(torch.linalg.inv(self.matrix))


class Dense(Transform):
    """A transform that is a field on a grid: what a registration network predicts.

    `field` is `(B, d, *grid.shape)` in voxels of `grid`, channels i, j, k. Beyond the grid points stay where they are
    (after a fade over one voxel), as in ITK and ANTs.
    """

    field: Tensor
    grid: Grid

    @property
    @abstractmethod
    def own_displacement(self) -> Tensor:
        """The displacement on the transform's own grid, in its voxels."""

    @property
    def params(self) -> tuple[Tensor, ...]:
        return (self.field,)

    def at(self, where: Tensor) -> Tensor:
        at = self.grid.to_voxels(where)
        return self.grid.to_world(at + sample(self.own_displacement.to(at), at))

    def displacement(self, grid: Grid) -> Tensor:
        return self.own_displacement if grid == self.grid else super().displacement(grid)

    def _check(self) -> None:
        expected = (self.grid.ndim, *self.grid.shape)
        if self.field.ndim != len(expected) + 1 or tuple(self.field.shape[1:]) != expected:
            raise ValueError(
                f"{type(self).__name__}: the field must be (B, {', '.join(map(str, expected))}) for its grid,"
                f" got {tuple(self.field.shape)}"
            )


@dataclass(frozen=True, eq=False)
class Displacement(Dense):
    """φ(x) = x + u(x): `field` is u."""

    field: Tensor
    grid: Grid

    def __post_init__(self) -> None:
        self._check()

    @classmethod
    def identity(cls, grid: Grid, like: Tensor) -> "Displacement":
        """No motion, one batch, in the dtype and on the device of `like`."""
        return cls(like.new_zeros(1, grid.ndim, *grid.shape), grid)

    @property
    def own_displacement(self) -> Tensor:
        return self.field

    def with_params(self, *params: Tensor) -> "Displacement":
        return replace(self, field=params[0])

    def inverse(self) -> "Displacement":
        """By fixed-point iteration on the same grid; without gradient. Exact only where the map does not fold."""
        with torch.no_grad():
            return Displacement(invert(self.field), self.grid)


@dataclass(frozen=True, eq=False)
class Velocity(Dense):
    """φ = exp(v): `field` is a stationary velocity v, integrated by `squarings` of scaling and squaring."""

    field: Tensor
    grid: Grid
    squarings: int = 7

    def __post_init__(self) -> None:
        self._check()

    @cached_property
    def own_displacement(self) -> Tensor:
        return exponential(self.field, self.squarings)

    def with_params(self, *params: Tensor) -> "Velocity":
        return replace(self, field=params[0])

    def inverse(self) -> "Velocity":
        """exp(−v)."""
        return replace(self, field=-self.field)


@dataclass(frozen=True, eq=False)
class Composite(Transform):
    """`outer ∘ inner`."""

    outer: Transform
    inner: Transform

    @property
    def params(self) -> tuple[Tensor, ...]:
        return self.outer.params + self.inner.params

    def with_params(self, *params: Tensor) -> "Composite":
        split = len(self.outer.params)
        return Composite(self.outer.with_params(*params[:split]), self.inner.with_params(*params[split:]))

    def at(self, where: Tensor) -> Tensor:
        return self.outer.at(self.inner.at(where))

    def displacement(self, grid: Grid) -> Tensor:
        inner = self.inner.displacement(grid)
        where = grid.voxels(inner)[None]
        return grid.to_voxels(self.outer.at(grid.to_world(where + inner))) - where

    def inverse(self) -> "Composite":
        return Composite(self.inner.inverse(), self.outer.inverse())
