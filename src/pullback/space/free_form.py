"""Free-form deformations whose coefficients come from another tool."""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from pullback.numerics.separable import apply_along
from pullback.space.fields import Dense, Displacement
from pullback.space.grid import Grid
from pullback.space.short_repr import short_repr
from pullback.space.transform import Transform

EDGE = 1e-3  # voxels: the outermost voxel of an image may lie on the very edge


@dataclass(frozen=True, eq=False)
class FreeForm(Dense):
    """The free-form deformation φ(x) = x + Σ cₖ βⁿ(x − k), with B-splines of degree n about the voxels of `grid`.

    As in ITK and elastix, points move where the coefficients on all sides are known, (n − 1)/2 voxels and more within
    the outermost ones, and stay where they are elsewhere. `BSpline`, which solvers use, mirrors coefficients instead.

    Attributes:
        field: the coefficients, `(B, d, *grid.shape)` in voxels of `grid`.
        grid: of the control points.
        degree: 1, 2 or 3.

    Raises:
        ValueError: another degree, or a field that is not of the grid.
    """

    field: Tensor
    grid: Grid
    degree: int = 3

    __repr__ = short_repr

    def __post_init__(self) -> None:
        self._check()
        if self.degree not in (1, 2, 3):
            raise ValueError(f"FreeForm: splines of degree 1, 2 or 3 are expected, not {self.degree}")

    @cached_property
    def own_displacement(self) -> Tensor:
        return self.along([torch.arange(n, dtype=torch.float64) for n in self.grid.shape])

    def between(self, at: Tensor) -> Tensor:
        flat = at.flatten(2)
        taps = [_taps(flat[:, axis], n, self.degree) for axis, n in enumerate(self.grid.shape)]
        batch = max(len(flat), len(self.field))
        coefficients = self.field.to(at).flatten(2).expand(batch, -1, -1)
        moved = torch.zeros_like(flat)  # (B, d, N), where B fields see one set of points too
        for neighbour in itertools.product(*taps):
            index = torch.zeros_like(neighbour[0][0])
            for (step, _), n in zip(neighbour, self.grid.shape, strict=True):
                index = index * n + step
            weight = functools.reduce(torch.mul, (weight for _, weight in neighbour))
            here = coefficients.gather(2, index[:, None].expand(batch, self.ndim, -1))
            moved = moved + here * weight[:, None]
        return moved.reshape(batch, *at.shape[1:])

    def along(self, where: Sequence[Tensor]) -> Tensor:
        values = self.field
        for axis, (at, n) in enumerate(zip(where, self.grid.shape, strict=True)):
            matrix = at.new_zeros(len(at), n)
            for step, weight in _taps(at, n, self.degree):
                matrix[torch.arange(len(at)), step] += weight
            values = apply_along(matrix.to(values), values, axis)
        return values

    def on(self, grid: Grid) -> "FreeForm":
        """Return itself on its own grid.

        Raises:
            ValueError: another grid, on which other coefficients would make another map.
        """
        if grid != self.grid:
            raise ValueError("FreeForm.on: coefficients belong to their grid; sample the displacement instead")
        return self

    def with_params(self, *params: Tensor) -> "FreeForm":
        return replace(self, field=params[0])

    def inverse(self) -> Displacement:
        """Return the inverse by fixed-point iteration on a grid four times as fine.

        A spline bends between its control points.
        """
        fine = self.grid.at_spacing(tuple((self.grid.spacing / 4).tolist()))
        return Displacement(Transform.displacement(self, fine), fine).inverse()


def _taps(at: Tensor, n: int, degree: int) -> list[tuple[Tensor, Tensor]]:
    """Return the degree + 1 control points next to each coordinate along an axis of n, and their weights; 0 where one
    of them is beyond an end."""
    first = torch.floor(at - (degree - 1) / 2)
    margin = (degree - 1) / 2
    known = (at >= margin - EDGE) & (at <= n - 1 - margin + EDGE)
    taps = []
    for offset in range(degree + 1):
        weight = _spline((at - first - offset).abs(), degree)
        taps.append(((first.long() + offset).clamp(0, n - 1), torch.where(known, weight, torch.zeros_like(weight))))
    return taps


def _spline(distance: Tensor, degree: int) -> Tensor:
    """Return the centred B-spline of a degree at distances from its middle."""
    if degree == 1:
        return (1 - distance).clamp(min=0)
    if degree == 2:
        return torch.where(distance < 0.5, 0.75 - distance**2, (1.5 - distance).clamp(min=0) ** 2 / 2)
    near = 2 / 3 - distance**2 * (1 - distance / 2)
    return torch.where(distance < 1, near, (2 - distance).clamp(min=0) ** 3 / 6)
