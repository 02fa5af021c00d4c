"""Inverses that are exact wherever they are asked."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from pullback.space.brief import brief
from pullback.space.transform import Composite, Dense, Transform

TOLERANCE = 1e-3  # voxels
ITERATIONS = 50


@dataclass(frozen=True, eq=False)
class Inverse(Transform):
    """The inverse of a field, sought at each point by itself; without gradient.

    A field that bends from voxel to voxel has an inverse that bends between voxels: no grid as coarse as the field's
    own holds it. The fixed point x ← y − u(x) starts from the inverse on the grid; its steps are halved where they do
    not converge. Where the field folds, no inverse is found.
    """

    field: Dense

    __repr__ = brief

    @cached_property
    def guess(self) -> Dense:
        """The inverse on the grid, made when first asked for."""
        return self.field.inverse()

    @property
    def params(self) -> tuple[Tensor, ...]:
        return self.field.params

    def with_params(self, *params: Tensor) -> "Inverse":
        return replace(self, field=self.field.with_params(*params))

    @torch.no_grad()
    def at(self, where: Tensor) -> Tensor:
        grid = self.field.grid
        goal = grid.to_voxels(where).double()
        found = grid.to_voxels(self.guess.at(where)).double()
        step, last = torch.ones_like(goal[:, :1]), torch.full_like(goal[:, :1], torch.inf)
        for _ in range(ITERATIONS):
            away = found + self.field.between(found) - goal
            size = away.norm(dim=1, keepdim=True)
            if float(size.max()) < TOLERANCE:
                break
            step = torch.where(size > 0.9 * last, (step / 2).clamp(min=0.1), step)
            found, last = found - step * away, size
        return grid.to_world(found).to(where)

    def inverse(self) -> Dense:
        return self.field


def inverted(transform: Transform) -> Transform:
    """The map back, exact at each point where there is one; `transform.inverse()` is quicker, and rougher."""
    if isinstance(transform, Composite):
        return Composite(inverted(transform.inner), inverted(transform.outer))
    if isinstance(transform, Dense):
        return Inverse(transform)
    return transform.inverse()
