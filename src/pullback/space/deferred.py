"""Transforms that are made when they are first asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from pullback.space.grid import Grid
from pullback.space.transform import Affine, Transform


@dataclass(frozen=True, eq=False)
class Deferred(Transform):
    """A transform that another one stands for, made only where something is asked that depends on it.

    So a network can answer with a map that is dear to make, and learn without it.

    Attributes:
        make: makes it.
        dimensions: of it.
        count: of pairs that it is of.
    """

    make: Callable[[], Transform]
    dimensions: int
    count: int = 1

    def __repr__(self) -> str:
        return f"Deferred({self.dimensions}-D, {self.count} of them)"

    @cached_property
    def made(self) -> Transform:
        """The transform itself."""
        return self.make()

    @property
    def ndim(self) -> int:
        return self.dimensions

    @property
    def batch(self) -> int:
        return self.count

    @property
    def parts(self) -> tuple[Transform, ...]:
        return self.made.parts

    @property
    def grids(self) -> tuple[Grid, ...]:
        return self.made.grids

    @property
    def as_affine(self) -> Affine | None:
        return self.made.as_affine

    @property
    def inverse_is_exact(self) -> bool:
        return self.made.inverse_is_exact

    @property
    def is_flow(self) -> bool:
        return self.made.is_flow

    @property
    def params(self) -> tuple[Tensor, ...]:
        return self.made.params

    def with_params(self, *params: Tensor) -> "Deferred":
        return Deferred(lambda: self.made.with_params(*params), self.dimensions, self.count)

    def at(self, where: Tensor) -> Tensor:
        return self.made.at(where)

    def inverse(self) -> Transform:
        return self.made.inverse()

    def nth(self, n: int) -> Transform:
        return self if self.count == 1 else Deferred(lambda: self.made.nth(n), self.dimensions)

    def stack(self, others: Sequence[Transform]) -> Transform:
        return self.made.stack([other.made if isinstance(other, Deferred) else other for other in others])

    def followed(self, where: Tensor, margin: float = 0.0) -> tuple[Tensor, Tensor]:
        return self.made.followed(where, margin)

    def field_on(self, grid: Grid, displacement: bool = False) -> Tensor:
        return self.made.field_on(grid, displacement)

    def motion_on(self, grid: Grid) -> tuple[Tensor, Grid]:
        return self.made.motion_on(grid)

    def displacement(self, grid: Grid) -> Tensor:
        return self.made.displacement(grid)

    def displacement_at(self, where: Tensor, grid: Grid) -> Tensor:
        return self.made.displacement_at(where, grid)
