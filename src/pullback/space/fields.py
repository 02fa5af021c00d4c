"""Transforms that are a field on a grid."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from pullback.numerics.integrate import exponential, invert
from pullback.numerics.sample import sample
from pullback.numerics.separable import apply_along, linear_weights, spline_weights
from pullback.space.grid import Grid, transform_channels, turned
from pullback.space.short_repr import short_repr
from pullback.space.transform import Transform

SAME = 1e-6  # voxels: rounding of places far from the origin


class Dense(Transform):
    """A transform that is a field on a grid, such as a registration network predicts.

    `field` is `(B, d, *grid.shape)` in voxels of `grid`, channels i, j, k. Points beyond the grid stay where they are
    (after a fade over one voxel), as in ITK and ANTs.
    """

    field: Tensor
    grid: Grid

    @property
    @abstractmethod
    def own_displacement(self) -> Tensor:
        """The displacement on the transform's own grid, in its voxels."""

    @property
    def ndim(self) -> int:
        return self.grid.ndim

    @property
    def batch(self) -> int:
        return len(self.field)

    @property
    def grids(self) -> tuple[Grid, ...]:
        return (self.grid,)

    @staticmethod
    def weights(where: Tensor, n: int) -> Tensor:
        """Return the matrix `(m, n)` that interpolates `n` values of the field along an axis at `where` `(m,)`."""
        return linear_weights(where, n)

    @property
    def params(self) -> tuple[Tensor, ...]:
        return (self.field,)

    def nth(self, n: int) -> Self:
        return self if self.batch == 1 else replace(self, field=self.field[n : n + 1])  # type: ignore[type-var]

    def stack(self, others: Sequence[Transform]) -> Transform:
        alike = [one for one in others if type(one) is type(self) and one.grids == self.grids]
        if len(alike) < len(others):
            return super().stack(others)
        return replace(self, field=torch.cat([self.field, *(one.field for one in alike)]))  # type: ignore[type-var]

    def followed(self, where: Tensor, margin: float = 0.0) -> tuple[Tensor, Tensor]:
        return self.at(where), self.grid.holds(where, margin)

    def field_on(self, grid: Grid, displacement: bool = False) -> Tensor:
        return self.own_displacement if displacement else self.field

    def motion_on(self, grid: Grid) -> tuple[Tensor, Grid]:
        return self.own_displacement[None], self.grid

    def at(self, where: Tensor) -> Tensor:
        at = self.grid.to_voxels(where)
        return self.grid.to_world(at + self.between(at))

    def displacement_at(self, where: Tensor, grid: Grid) -> Tensor:
        here = torch.linalg.solve(self.grid.affine, grid.affine)
        moved = self.between(transform_channels(here, where))
        return turned(torch.linalg.inv(here[:-1, :-1]), moved)

    def between(self, at: Tensor) -> Tensor:
        """Return the displacement at any voxel coordinates `(B, d, …)` of its grid."""
        return sample(self.own_displacement, at).to(at)

    @abstractmethod
    def inverse(self) -> "Dense":
        """Return the inverse as a field on a grid; `pullback.space.inverted` is exact between voxels too."""

    def along(self, where: Sequence[Tensor]) -> Tensor:
        """Return the displacement at all voxels with coordinates `where` along each axis: `between`, axis by axis."""
        values = self.own_displacement
        for axis, (at, n) in enumerate(zip(where, values.shape[2:], strict=True)):
            first = _in_a_row(at, n)
            if first is None:
                values = apply_along(linear_weights(at, n).to(values), values, axis)
            else:
                values = values.narrow(2 + axis, first, len(at))
        return values

    def displacement(self, grid: Grid) -> Tensor:
        if grid == self.grid:
            return self.own_displacement
        steps = _along_axes(grid, self.grid)
        if steps is None:
            return super().displacement(grid)
        where = [at for at, _ in steps]
        return _in_steps(self.along(where), steps)

    def on(self, grid: Grid) -> Self:
        """Return the same kind of transform on another grid with the same axes.

        Its field is interpolated; beyond its border the border value is repeated.

        Raises:
            ValueError: the other grid has other axes.
        """
        steps = _along_axes(grid, self.grid)
        if steps is None:
            raise ValueError(f"{type(self).__name__}.on: the grids' axes differ")
        where = [at.clamp(0, n - 1) for (at, _), n in zip(steps, self.grid.shape, strict=True)]
        field = _tensor_product(self.weights, where, self.field)
        return replace(self, field=_in_steps(field, steps), grid=grid)  # type: ignore[type-var]

    def _check(self) -> None:
        expected = (self.grid.ndim, *self.grid.shape)
        if self.field.ndim != len(expected) + 1 or tuple(self.field.shape[1:]) != expected:
            raise ValueError(
                f"{type(self).__name__}: the field must be (B, {', '.join(map(str, expected))}) for its grid,"
                f" got {tuple(self.field.shape)}"
            )


@dataclass(frozen=True, eq=False)
class Displacement(Dense):
    """The transform φ(x) = x + u(x): `field` is u."""

    field: Tensor
    grid: Grid

    __repr__ = short_repr

    def __post_init__(self) -> None:
        self._check()

    @classmethod
    def identity(cls, grid: Grid, like: Tensor) -> "Displacement":
        """Return the identity for each of the batch of `like`, in its dtype and on its device."""
        return cls(like.new_zeros(len(like), grid.ndim, *grid.shape), grid)

    @property
    def own_displacement(self) -> Tensor:
        return self.field

    def with_params(self, *params: Tensor) -> "Displacement":
        return replace(self, field=params[0])

    def continued(self, margins: Sequence[int]) -> "Displacement":
        """Return it on a grid with `margins` more voxels on both sides of each axis, its border values repeated."""
        around = [margin for margin in reversed(margins) for _ in range(2)]
        return Displacement(F.pad(self.field, around, mode="replicate"), self.grid.padded(tuple(margins)))

    def inverse(self) -> "Displacement":
        """Return the inverse on the same grid, by fixed-point iteration, without gradient.

        It is exact only where φ does not fold.
        """
        with torch.no_grad():
            return Displacement(invert(self.field), self.grid)


@dataclass(frozen=True, eq=False)
class Velocity(Dense):
    """The transform φ = exp(v): `field` is a stationary velocity v, integrated by scaling and `squarings`."""

    field: Tensor
    grid: Grid
    squarings: int = 7

    __repr__ = short_repr

    def __post_init__(self) -> None:
        self._check()

    @property
    def is_flow(self) -> bool:
        return True

    @cached_property
    def own_displacement(self) -> Tensor:
        return exponential(self.field, self.squarings)

    def motion_on(self, grid: Grid) -> tuple[Tensor, Grid]:
        return self.field[None], self.grid

    def with_params(self, *params: Tensor) -> "Velocity":
        return replace(self, field=params[0])

    def inverse(self) -> "Velocity":
        """Return exp(−v)."""
        return replace(self, field=-self.field)


@dataclass(frozen=True, eq=False)
class BSpline(Dense):
    """The free-form deformation φ(x) = x + Σ cₖ β³(x − k), with cubic B-splines about the voxels of `grid`.

    Rueckert et al. 1999, free-form deformation. Coefficients are mirrored at the grid's ends.
    """

    field: Tensor
    grid: Grid

    __repr__ = short_repr

    def __post_init__(self) -> None:
        self._check()

    @cached_property
    def own_displacement(self) -> Tensor:
        at = [torch.arange(n, dtype=torch.float64) for n in self.grid.shape]
        return _tensor_product(spline_weights, at, self.field)

    def between(self, at: Tensor) -> Tensor:
        return sample(self.field, at, "spline").to(at)

    def along(self, where: Sequence[Tensor]) -> Tensor:
        return _tensor_product(spline_weights, where, self.field)

    @classmethod
    def through(cls, displacement: Tensor, grid: Grid) -> "BSpline":
        """Return the free-form deformation with this displacement, in voxels, at the voxels of a grid."""
        for axis, n in enumerate(grid.shape):
            weights = spline_weights(torch.arange(n, dtype=torch.float64), n)
            displacement = apply_along(torch.linalg.inv(weights).to(displacement), displacement, axis)
        return cls(displacement, grid)

    def on(self, grid: Grid) -> "BSpline":
        return BSpline.through(self.displacement(grid), grid)

    def with_params(self, *params: Tensor) -> "BSpline":
        return replace(self, field=params[0])

    def inverse(self) -> "Displacement":
        """Return the inverse by fixed-point iteration on a grid four times as fine.

        A spline bends between its control points.
        """
        fine = self.grid.at_spacing(tuple((self.grid.spacing / 4).tolist()))
        return Displacement(self.displacement(fine), fine).inverse()


def as_field(transform: Transform, grid: Grid) -> Dense:
    """Return the transform itself, where it is a field; else its displacement on `grid` as one."""
    return transform if isinstance(transform, Dense) else Displacement(transform.displacement(grid), grid)


def _tensor_product(weights: Callable[[Tensor, int], Tensor], where: Sequence[Tensor], values: Tensor) -> Tensor:
    for axis, (at, n) in enumerate(zip(where, values.shape[2:], strict=True)):
        values = apply_along(weights(at, n).to(values), values, axis)
    return values


def _along_axes(grid: Grid, other: Grid) -> list[tuple[Tensor, float]] | None:
    """Return, for each axis, the voxels of `grid` in voxels of `other` and their step; None where the axes differ.

    Opposite axes are the same ones, with a negative step.
    """
    frames = torch.linalg.solve(other.affine, grid.affine)
    scales = frames[:-1, :-1].diagonal()
    reach = torch.tensor(grid.shape, dtype=torch.float64)
    skew = (frames[:-1, :-1] - scales.diag()).abs() @ reach
    if float(skew.max()) > 1e-3:
        return None
    return [
        (torch.arange(n, dtype=torch.float64) * scale + shift, float(scale))
        for n, scale, shift in zip(grid.shape, scales, frames[:-1, -1], strict=True)
    ]


def _in_a_row(at: Tensor, n: int) -> int | None:
    """Return the first of n voxels of which `at` are some, one after the other; None where they are others."""
    first = round(float(at[0]))
    there = torch.arange(first, first + len(at), dtype=at.dtype)
    whole = first >= 0 and first + len(at) <= n and float((at - there).abs().max()) < SAME
    return first if whole else None


def _in_steps(field: Tensor, steps: list[tuple[Tensor, float]]) -> Tensor:
    """Convert a field in voxels of the other grid to voxels of the grid that `_along_axes` was asked for."""
    scale = field.new_tensor([step for _, step in steps])
    return field / scale.view(-1, *[1] * len(steps))
