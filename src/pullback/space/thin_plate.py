"""Thin-plate splines as transforms: maps known at scattered points."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.numerics.spline import Spline, spline
from pullback.space.fields import BSpline
from pullback.space.grid import Grid
from pullback.space.points import Points
from pullback.space.short_repr import short_repr
from pullback.space.transform import Transform

BEYOND = 2  # nodes of a lattice beyond a grid


@dataclass(frozen=True, eq=False)
class ThinPlate(Transform):
    """The transform φ(x) = x + s(x), with s the thin-plate spline of displacements at some points (Bookstein 1989).

    Attributes:
        points: `(N, d)` in RAS mm.
        weights: `(N + 1 + d, d)`: of the spline's kernels, then of 1 and the coordinates.
    """

    points: Tensor
    weights: Tensor

    __repr__ = short_repr

    @classmethod
    def between(cls, fixed: Points, moving: Points, smoothing: float = 0.0) -> "ThinPlate":
        """Return the smoothest map that takes each fixed point to the moving point of the same number.

        Args:
            fixed, moving: `(1, N, d)`, matched; more than d of them, not all in one plane (2-D: line).
            smoothing: 0 meets every point; more, in mm (2-D: mm²), comes nearer to an affine map.

        Raises:
            InputError: another number of points in one than in the other, too few, in one plane, or two that are one.
        """
        here, there = (points.data[0].double() for points in (fixed, moving))
        if here.shape != there.shape:
            raise InputError(f"matched points: as many of both expected, got {len(here)} and {len(there)}")
        try:
            return cls.of(spline(here, there - here, smoothing))
        except (ValueError, RuntimeError) as error:
            said = "two of the fixed points coincide" if isinstance(error, RuntimeError) else error
            raise InputError(f"matched points: {said}") from error

    @classmethod
    def of(cls, displacement: Spline) -> "ThinPlate":
        """Return a displacement in mm as a map."""
        return cls(displacement.points, displacement.weights)

    @cached_property
    def spline(self) -> Spline:
        return Spline(self.points, self.weights)

    @property
    def ndim(self) -> int:
        return self.points.shape[1]

    @property
    def batch(self) -> int:
        return 1

    @property
    def params(self) -> tuple[Tensor, ...]:
        return (self.weights,)

    def nth(self, n: int) -> "ThinPlate":
        return self

    def with_params(self, *params: Tensor) -> "ThinPlate":
        return replace(self, points=self.points.to(params[0]), weights=params[0])

    def at(self, where: Tensor) -> Tensor:
        flat = where.movedim(1, -1)
        # (points, d) to (B, …, d) to (B, d, …)
        moved = self.spline(flat.reshape(-1, flat.shape[-1]).to(self.points)).view(flat.shape).movedim(-1, 1)
        return where + moved.to(where)

    def on(self, grid: Grid, every: int = 4) -> BSpline:
        """Return it as a spline on a grid, exact at every so many voxels along each axis, and cubic between.

        Evaluation at all voxels takes some everyᵈ times as long. The lattice reaches two nodes beyond the grid on all
        sides, for such a spline is flat at its ends; further out nothing moves.
        """
        shape = tuple(-(-(n - 1) // every) + 1 for n in grid.shape)
        steps = torch.tensor([*[float(every)] * grid.ndim, 1.0], dtype=torch.float64)
        nodes = Grid(shape, grid.affine @ steps.diag()).padded((BEYOND,) * grid.ndim)
        return BSpline.through(self.displacement(nodes), nodes)

    def inverse(self) -> "ThinPlate":
        """Return the spline that takes the points back: exact at the points, and near the inverse elsewhere."""
        moved = self.points + self.spline(self.points)
        return ThinPlate.of(spline(moved, self.points - moved))
