"""Maps of world points, fixed → moving."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from pullback.numerics.axes import apply_along, linear_weights, spline_weights
from pullback.numerics.integrate import exponential, invert
from pullback.numerics.sample import sample
from pullback.space.batch import one_batch
from pullback.space.brief import brief
from pullback.space.grid import Grid, transform_channels


class Transform(ABC):
    """A map of world points from the fixed to the moving world, in mm."""

    @property
    @abstractmethod
    def ndim(self) -> int:
        """In how many dimensions it moves points."""

    @property
    @abstractmethod
    def batch(self) -> int:
        """How many pairs it is of; one serves any number."""

    @property
    def parts(self) -> tuple["Transform", ...]:
        """Maps that make it up, the outermost first, linear ones next to each other as one; else itself alone."""
        return (self,)

    @property
    def grids(self) -> tuple[Grid, ...]:
        """Grids of its fields, the outermost first."""
        return ()

    @property
    def as_affine(self) -> "Affine | None":
        """The same map as one matrix, where it is linear; None where it deforms."""
        return None

    @property
    def inverse_is_exact(self) -> bool:
        """Whether `inverse()` is the inverse at every point, but for rounding; else see `pullback.space.inverted`."""
        return False

    @property
    @abstractmethod
    def params(self) -> tuple[Tensor, ...]:
        """What a solver may change."""

    @abstractmethod
    def with_params(self, *params: Tensor) -> Self:
        """The same kind of transform with other parameters."""

    def to(self, device: torch.device) -> Self:
        """The same map, all that it is made of on `device`."""
        here = all(p.device == device for p in self.params)
        return self if here else self.with_params(*(p.to(device) for p in self.params))

    @abstractmethod
    def at(self, where: Tensor) -> Tensor:
        """World coordinates `(B, d, …)` in RAS mm to world coordinates, channel first."""

    @abstractmethod
    def inverse(self) -> "Transform":
        """The map back, moving → fixed."""

    @abstractmethod
    def nth(self, n: int) -> "Transform":
        """The map of the n-th pair of the batch; of a batch of one itself, whatever n."""

    def stack(self, others: Sequence["Transform"]) -> "Transform":
        """One batch of this map and others of the same kind, on the same grids.

        Raises:
            ValueError: maps of this kind, or of different kinds, make no batch.
        """
        kinds = ", ".join(dict.fromkeys(type(one).__name__ for one in (self, *others)))
        raise ValueError(f"a batch is of transforms of one kind on one grid, got {kinds}")

    def followed(self, where: Tensor, margin: float = 0.0) -> tuple[Tensor, Tensor]:
        """Where it leads world coordinates `(B, d, N)`, and whether each stays on all grids on the way, `(B, N)` bool.

        Args:
            margin: voxels beyond a grid's outermost voxel centres that still count as on it.
        """
        there = self.at(where)
        return there, torch.ones(len(there), where.shape[2], dtype=torch.bool, device=where.device)

    def field_on(self, grid: Grid, displacement: bool = False) -> Tensor:
        """What regularity is asked of, `(B, d, *spatial)`: the field it is made of, else its displacement on `grid`.

        Args:
            displacement: of what is made of another field, as a velocity, the displacement that this amounts to.
        """
        return self.displacement(grid)

    def motion_on(self, grid: Grid) -> tuple[Tensor, Grid]:
        """The velocities of its course, `(T, B, d, *spatial)` in voxels per unit of time, and the grid they lie on.

        What is no flow goes at an even pace: its displacement on `grid`, or on its own.
        """
        return self.displacement(grid)[None], grid

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
        if self.as_affine is not None and inner.as_affine is not None:
            return Affine(self.as_affine.matrix.to(inner.as_affine.matrix) @ inner.as_affine.matrix)
        return Composite(self, inner)


class Linear(Transform):
    """A transform that is one `matrix` `(d+1, d+1)`, or `(B, d+1, d+1)`, homogeneous: RAS mm to RAS mm."""

    matrix: Tensor

    @property
    def ndim(self) -> int:
        return self.matrix.shape[-1] - 1

    @property
    def batch(self) -> int:
        return len(self.matrix) if self.matrix.ndim == 3 else 1

    @property
    def as_affine(self) -> "Affine":
        return Affine(self.matrix)

    @property
    def inverse_is_exact(self) -> bool:
        return True

    def nth(self, n: int) -> "Linear":
        return self if self.batch == 1 else Affine(self.matrix[n : n + 1])

    def stack(self, others: Sequence[Transform]) -> Transform:
        every = [one.as_affine for one in (self, *others)]
        known = [one.matrix.reshape(-1, *one.matrix.shape[-2:]).to(self.matrix) for one in every if one is not None]
        return Affine(torch.cat(known)) if len(known) == len(every) else super().stack(others)

    def at(self, where: Tensor) -> Tensor:
        return transform_channels(self.matrix, where)

    def inverse(self) -> "Affine":
        return Affine(torch.linalg.inv(self.matrix))


@dataclass(frozen=True, eq=False)
class Affine(Linear):
    """`matrix` `(d+1, d+1)`, or `(B, d+1, d+1)`, homogeneous: RAS mm to RAS mm."""

    matrix: Tensor

    __repr__ = brief

    @classmethod
    def identity(cls, ndim: int) -> "Affine":
        return cls(torch.eye(ndim + 1, dtype=torch.float64))

    @classmethod
    def about(cls, linear: Tensor, centre: Tensor, to: Tensor | None = None) -> "Affine":
        """x → linear · (x − centre) + to, `(d, d)` and `(d,)`; the centre stays where it is unless `to` is given."""
        matrix = torch.eye(len(centre) + 1, dtype=torch.float64)
        matrix[:-1, :-1] = linear
        matrix[:-1, -1] = (centre if to is None else to) - linear @ centre
        return cls(matrix)

    @property
    def params(self) -> tuple[Tensor, ...]:
        """The rows above the last, `(…, d, d+1)`: the last is 0 … 0 1 in every affine, and no solver may move it."""
        return (self.matrix[..., :-1, :],)

    def with_params(self, *params: Tensor) -> "Affine":
        (rows,) = params
        last = torch.zeros_like(rows[..., :1, :])
        last[..., -1] = 1
        return Affine(torch.cat([rows, last], -2))


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
        """The matrix `(m, n)` that carries `n` values of the field along an axis over to `where` `(m,)`."""
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

    def between(self, at: Tensor) -> Tensor:
        """The displacement at any voxel coordinates `(B, d, …)` of its grid."""
        return sample(self.own_displacement.to(at), at)

    @abstractmethod
    def inverse(self) -> "Dense":
        """The map back, as a field on a grid: `pullback.space.inverted` is exact between voxels too."""

    def along(self, where: Sequence[Tensor]) -> Tensor:
        """The displacement at all voxels whose coordinates along each axis are `where`: as `between`, axis by axis."""
        return _tensor_product(linear_weights, where, self.own_displacement)

    def displacement(self, grid: Grid) -> Tensor:
        if grid == self.grid:
            return self.own_displacement
        steps = _along_axes(grid, self.grid)
        if steps is None:
            return super().displacement(grid)
        where = [at for at, _ in steps]
        return _in_steps(self.along(where), steps)

    def on(self, grid: Grid) -> Self:
        """The same kind of transform, carried over to another grid with the same axes.

        Its field is interpolated, and goes on as at its border.

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
    """φ(x) = x + u(x): `field` is u."""

    field: Tensor
    grid: Grid

    __repr__ = brief

    def __post_init__(self) -> None:
        self._check()

    @classmethod
    def identity(cls, grid: Grid, like: Tensor) -> "Displacement":
        """No motion, for each of the batch of `like`, in its dtype and on its device."""
        return cls(like.new_zeros(len(like), grid.ndim, *grid.shape), grid)

    @property
    def own_displacement(self) -> Tensor:
        return self.field

    def with_params(self, *params: Tensor) -> "Displacement":
        return replace(self, field=params[0])

    def continued(self, margins: Sequence[int]) -> "Displacement":
        """On a grid of so many more voxels before and after each axis, where it is what it is at its border."""
        around = [margin for margin in reversed(margins) for _ in range(2)]
        return Displacement(F.pad(self.field, around, mode="replicate"), self.grid.padded(tuple(margins)))

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

    __repr__ = brief

    def __post_init__(self) -> None:
        self._check()

    @cached_property
    def own_displacement(self) -> Tensor:
        return exponential(self.field, self.squarings)

    def motion_on(self, grid: Grid) -> tuple[Tensor, Grid]:
        return self.field[None], self.grid

    def with_params(self, *params: Tensor) -> "Velocity":
        return replace(self, field=params[0])

    def inverse(self) -> "Velocity":
        """exp(−v)."""
        return replace(self, field=-self.field)


@dataclass(frozen=True, eq=False)
class BSpline(Dense):
    """φ(x) = x + Σ cₖ β³(x − k): `field` holds the coefficients c of cubic B-splines about the voxels of `grid`.

    Rueckert et al. 1999, free-form deformation. Coefficients are mirrored at the grid's ends.
    """

    field: Tensor
    grid: Grid

    __repr__ = brief

    def __post_init__(self) -> None:
        self._check()

    @cached_property
    def own_displacement(self) -> Tensor:
        at = [torch.arange(n, dtype=torch.float64) for n in self.grid.shape]
        return _tensor_product(spline_weights, at, self.field)

    def between(self, at: Tensor) -> Tensor:
        return sample(self.own_displacement.to(at), at, "cubic")

    def along(self, where: Sequence[Tensor]) -> Tensor:
        return _tensor_product(spline_weights, where, self.field)

    def on(self, grid: Grid) -> "BSpline":
        field = self.displacement(grid)
        for axis, n in enumerate(grid.shape):
            weights = spline_weights(torch.arange(n, dtype=torch.float64), n)
            field = apply_along(torch.linalg.inv(weights).to(field), field, axis)
        return BSpline(field, grid)

    def with_params(self, *params: Tensor) -> "BSpline":
        return replace(self, field=params[0])

    def inverse(self) -> "Displacement":
        """By fixed-point iteration on a grid four times as fine, for a spline bends between its control points."""
        fine = self.grid.at_spacing(tuple((self.grid.spacing / 4).tolist()))
        return Displacement(self.displacement(fine), fine).inverse()


@dataclass(frozen=True, eq=False)
class Composite(Transform):
    """`outer ∘ inner`.

    Raises:
        ValueError: maps of other dimensions, or of batches that differ.
    """

    outer: Transform
    inner: Transform

    __repr__ = brief

    def __post_init__(self) -> None:
        if self.outer.ndim != self.inner.ndim:
            raise ValueError(f"a {self.outer.ndim}-D transform cannot follow a {self.inner.ndim}-D one")
        one_batch({"the outer transform": self.outer.batch, "the inner transform": self.inner.batch})

    @property
    def ndim(self) -> int:
        return self.inner.ndim

    @property
    def batch(self) -> int:
        return max(self.outer.batch, self.inner.batch)

    @property
    def parts(self) -> tuple[Transform, ...]:
        outer, inner = self.outer.parts, self.inner.parts
        if outer[-1].as_affine is not None and inner[0].as_affine is not None:
            return (*outer[:-1], outer[-1] @ inner[0], *inner[1:])
        return outer + inner

    @property
    def grids(self) -> tuple[Grid, ...]:
        return self.outer.grids + self.inner.grids

    @property
    def as_affine(self) -> Affine | None:
        parts = self.parts
        return parts[0].as_affine if len(parts) == 1 else None

    @property
    def inverse_is_exact(self) -> bool:
        return self.outer.inverse_is_exact and self.inner.inverse_is_exact

    def nth(self, n: int) -> "Composite":
        return Composite(self.outer.nth(n), self.inner.nth(n))

    def stack(self, others: Sequence[Transform]) -> Transform:
        alike = [one for one in others if isinstance(one, Composite)]
        if len(alike) < len(others):
            return super().stack(others)
        outer, inner = self.outer.stack([one.outer for one in alike]), self.inner.stack([one.inner for one in alike])
        return Composite(outer, inner)

    def followed(self, where: Tensor, margin: float = 0.0) -> tuple[Tensor, Tensor]:
        between, inside = self.inner.followed(where, margin)
        there, still = self.outer.followed(between, margin)
        return there, inside & still

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


def split(transform: Transform) -> tuple[Affine, Transform | None]:
    """`φ = A ∘ ψ` as A and ψ: the identity where φ does not end in a linear map, None where it is one."""
    first, *rest = transform.parts
    if first.as_affine is None:
        return Affine.identity(transform.ndim), transform
    return first.as_affine, reduce(lambda outer, inner: outer @ inner, rest) if rest else None


def as_field(transform: Transform, grid: Grid) -> Dense:
    """The transform itself, where it is a field; else its displacement on `grid` as one."""
    return transform if isinstance(transform, Dense) else Displacement(transform.displacement(grid), grid)


def _tensor_product(weights: Callable[[Tensor, int], Tensor], where: Sequence[Tensor], values: Tensor) -> Tensor:
    for axis, (at, n) in enumerate(zip(where, values.shape[2:], strict=True)):
        values = apply_along(weights(at, n).to(values), values, axis)
    return values


def _along_axes(grid: Grid, other: Grid) -> list[tuple[Tensor, float]] | None:
    """For grids of the same axes, or opposite ones, by axis: the voxels of `grid` in voxels of `other`, and their step.

    The step is negative where the axes run opposite ways. None where the axes differ.
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


def _in_steps(field: Tensor, steps: list[tuple[Tensor, float]]) -> Tensor:
    """A field of the other grid's voxels in those of the grid that `_along_axes` was asked for."""
    scale = field.new_tensor([step for _, step in steps])
    return field / scale.view(-1, *[1] * len(steps))
