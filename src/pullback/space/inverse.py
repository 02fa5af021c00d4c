"""Inverses of fields that are exact at every point, not only at the voxels of a grid."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from pullback.space.deferred import Deferred
from pullback.space.fields import Dense
from pullback.space.grid import Grid
from pullback.space.short_repr import short_repr
from pullback.space.transform import Composite, Transform

TOLERANCE = 1e-3  # voxels
ITERATIONS = 50
CHUNK = 2**16  # points at once


@dataclass(frozen=True, eq=False)
class Inverse(Transform):
    """The inverse of a field, found at each point by itself, without gradient.

    A field that bends from voxel to voxel has an inverse that bends between voxels, so no grid as coarse as the field's
    own can hold it.

    1. The equation x + u(x) = y is solved by the fixed point x ← y − u(x), with steps halved where it does not
       converge, starting from the inverse on the grid.
    2. Beyond the grid points stay where they are. So a point y may come both from itself beyond the grid, and from a
       point within the grid that a large motion carries there. The solution within the grid is taken.
    3. That solution is searched for from the field's `bulk` on, the affine nearest to the map.

    Where the field folds, no inverse is found.
    """

    field: Dense

    __repr__ = short_repr

    @cached_property
    def guess(self) -> Dense:
        """The inverse on the grid, made when first asked for."""
        return self.field.inverse()

    @cached_property
    def bulk(self) -> tuple[Tensor, Tensor]:
        """The affine nearest to the map over its grid, in its voxels, float64: `(B, d, d)` and a shift `(B, d, 1)`."""
        field, shape = self.field.own_displacement.detach(), self.field.grid.shape
        axes = range(2, field.ndim)
        linear, shift = [], field.mean(tuple(axes), dtype=torch.float64)[..., None]
        for axis, n in zip(axes, shape, strict=True):
            off = torch.arange(n, dtype=torch.float64, device=field.device) - (n - 1) / 2
            profile = field.movedim(axis, 2).flatten(3).mean(3, dtype=torch.float64)  # (B, d, n)
            linear.append(profile @ off / off.square().sum().clamp(min=0.5))
        slopes, middle = torch.stack(linear, 2), shift.new_tensor(shape)[:, None] / 2 - 0.5
        return slopes + torch.eye(len(shape)).to(slopes), shift - slopes @ middle

    @property
    def ndim(self) -> int:
        return self.field.ndim

    @property
    def batch(self) -> int:
        return self.field.batch

    @property
    def grids(self) -> tuple[Grid, ...]:
        return self.field.grids

    @property
    def inverse_is_exact(self) -> bool:
        return True

    @property
    def params(self) -> tuple[Tensor, ...]:
        return self.field.params

    def with_params(self, *params: Tensor) -> "Inverse":
        return replace(self, field=self.field.with_params(*params))

    def nth(self, n: int) -> "Inverse":
        return self if self.batch == 1 else Inverse(self.field.nth(n))

    def stack(self, others: Sequence[Transform]) -> Transform:
        fields = [one.field for one in others if isinstance(one, Inverse)]
        stacked = self.field.stack(fields) if len(fields) == len(others) else None
        return Inverse(stacked) if isinstance(stacked, Dense) else super().stack(others)

    def followed(self, where: Tensor, margin: float = 0.0) -> tuple[Tensor, Tensor]:
        there = self.at(where)
        return there, self.field.grid.holds(there, margin)

    @torch.no_grad()
    def at(self, where: Tensor) -> Tensor:
        flat = where.flatten(2)  # (B, d, N)
        if not flat.numel():
            return where
        return torch.cat([self._home(part) for part in flat.split(CHUNK, 2)], 2).unflatten(2, where.shape[2:])

    def _home(self, where: Tensor) -> Tensor:
        grid = self.field.grid
        goal = grid.to_voxels(where).double()
        found = grid.to_voxels(self.guess.at(where)).double()
        found = _settled(self._off, found, goal, TOLERANCE / 10)
        beyond = (found - self._clamped(found)).abs().amax(1, keepdim=True)
        doubtful = (beyond > TOLERANCE) | ~self._right(found, goal)
        some = doubtful.any(0)[0]
        if some.any():
            again = self._within(goal[..., some])
            better = doubtful[..., some] & self._right(again, goal[..., some])
            found[..., some] = torch.where(better, again, found[..., some])
        return grid.to_world(found).to(where)

    def _off(self, at: Tensor, goal: Tensor) -> Tensor:
        return at + self.field.between(at) - goal

    def _right(self, at: Tensor, goal: Tensor) -> Tensor:
        return self._off(at, goal).norm(dim=1, keepdim=True) < TOLERANCE

    def _clamped(self, at: Tensor) -> Tensor:
        last = at.new_tensor(self.field.grid.shape)[:, None] - 1
        return at.clamp(torch.zeros_like(last), last)

    def _within(self, goal: Tensor) -> Tensor:
        """Return points of the grid, in voxels, that the map takes to `goal` `(B, d, N)`; any point where none does.

        For the search, the map goes on beyond the grid as the bulk does, so that no solution lies there.
        """
        linear, shift = (part.to(goal) for part in self.bulk)
        back = torch.linalg.pinv(linear, rtol=1e-3)

        def off(at: Tensor, goal: Tensor) -> Tensor:
            edge = self._clamped(at)
            return back @ (linear @ (at - edge) + self._off(edge, goal))

        return self._clamped(_settled(off, back @ (goal - shift), goal, TOLERANCE / 4))

    def inverse(self) -> Dense:
        return self.field


def inverted(transform: Transform) -> Transform:
    """Return the inverse, exact at each point where there is one; `transform.inverse()` is faster and less exact."""
    if isinstance(transform, Deferred):
        return inverted(transform.made)
    if transform.inverse_is_exact:
        return transform.inverse()
    if isinstance(transform, Composite):
        return Composite(inverted(transform.inner), inverted(transform.outer))
    if isinstance(transform, Dense):
        return Inverse(transform)
    return transform.inverse()


def _settled(off: Callable[[Tensor, Tensor], Tensor], found: Tensor, goal: Tensor, tolerance: float) -> Tensor:
    """Step points `(B, d, N)` against `off(points, goal)` until it is shorter than `tolerance`, or `ITERATIONS` times.

    Those that are there rest. The steps of a point are halved where `off` hardly shrinks.
    """
    step, last = torch.ones_like(found[:, :1]), torch.full_like(found[:, :1], torch.inf)
    found, left = found.clone(), torch.arange(found.shape[2], device=found.device)
    for _ in range(ITERATIONS):
        here = found[..., left]
        away = off(here, goal[..., left])
        size = away.norm(dim=1, keepdim=True)
        far = (size >= tolerance).any(0)[0]
        if not far.any():
            break
        step = torch.where(size > 0.9 * last, (step / 2).clamp(min=0.1), step)[..., far]
        left, last = left[far], size[..., far]
        found[..., left] = torch.where(last < tolerance, here[..., far], here[..., far] - step * away[..., far])
    return found
