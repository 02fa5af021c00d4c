"""Transforms: maps of world points, fixed → moving."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Self

import torch
from torch import Tensor

from pullback.space.batch import one_batch
from pullback.space.grid import Grid, transform_channels
from pullback.space.short_repr import short_repr


class Transform(ABC):
    """A map of world points from the fixed to the moving world, in mm."""

    @property
    @abstractmethod
    def ndim(self) -> int:
        """Number of dimensions."""

    @property
    @abstractmethod
    def batch(self) -> int:
        """Number of pairs it belongs to; one serves any number."""

    @property
    def parts(self) -> tuple["Transform", ...]:
        """Maps that it is composed of, the outermost first, adjacent linear ones as one; else itself alone."""
        return (self,)

    @property
    def grids(self) -> tuple[Grid, ...]:
        """Grids of its fields, the outermost first."""
        return ()

    @property
    def as_affine(self) -> "Affine | None":
        """The map as one matrix, where it is linear; None where it deforms."""
        return None

    @property
    def inverse_is_exact(self) -> bool:
        """Whether `inverse()` is the inverse at every point, but for rounding; else see `pullback.space.inverted`."""
        return False

    @property
    def is_flow(self) -> bool:
        """Whether it is made of velocities, and is their flow: those of `motion_on`."""
        return False

    @property
    @abstractmethod
    def params(self) -> tuple[Tensor, ...]:
        """The parameters that a solver may change."""

    @abstractmethod
    def with_params(self, *params: Tensor) -> Self:
        """Return the same kind of transform with other parameters."""

    def to(self, device: torch.device) -> Self:
        """Return the transform with all its tensors on `device`."""
        here = all(p.device == device for p in self.params)
        return self if here else self.with_params(*(p.to(device) for p in self.params))

    @abstractmethod
    def at(self, where: Tensor) -> Tensor:
        """Map world coordinates `(B, d, …)` in RAS mm, channel first."""

    @abstractmethod
    def inverse(self) -> "Transform":
        """Return the inverse, moving → fixed."""

    @abstractmethod
    def nth(self, n: int) -> "Transform":
        """Return the map of the n-th pair of the batch; a batch of one returns itself, whatever n."""

    def stack(self, others: Sequence["Transform"]) -> "Transform":
        """Return one batch of this map and others of the same kind, on the same grids.

        Raises:
            ValueError: maps of this kind, or of different kinds, make no batch.
        """
        kinds = ", ".join(dict.fromkeys(type(one).__name__ for one in (self, *others)))
        raise ValueError(f"a batch is of transforms of one kind on one grid, got {kinds}")

    def followed(self, where: Tensor, margin: float = 0.0) -> tuple[Tensor, Tensor]:
        """Map world coordinates `(B, d, N)`, and say whether each stays on all grids on the way, `(B, N)` bool.

        Args:
            margin: voxels beyond a grid's outermost voxel centres that still count as on it.
        """
        there = self.at(where)
        return there, torch.ones(len(there), where.shape[2], dtype=torch.bool, device=where.device)

    def field_on(self, grid: Grid, displacement: bool = False) -> Tensor:
        """Return the field whose regularity is measured, `(B, d, *spatial)`: its own, else its displacement on `grid`.

        Args:
            displacement: take the displacement, also of a transform whose field is a velocity or spline coefficients.
        """
        return self.displacement(grid)

    def motion_on(self, grid: Grid) -> tuple[Tensor, Grid]:
        """Return its velocities, `(T, B, d, *spatial)` in voxels per unit of time, and the grid they lie on.

        A transform that is no flow moves at an even pace: its velocity is its displacement, on `grid` or on its own.
        """
        return self.displacement(grid)[None], grid

    def __call__(self, points: Tensor) -> Tensor:
        """Map points `(B, N, d)` or `(N, d)` in RAS mm to the moving world."""
        batched = points if points.ndim == 3 else points[None]
        moved = self.at(batched.mT).mT
        return moved if points.ndim == 3 or moved.shape[0] > 1 else moved[0]

    def displacement(self, grid: Grid) -> Tensor:
        """Return the displacement u on `grid`, φ(x) = x + u(x): `(B, d, *grid.shape)` in voxels of `grid`."""
        return self.displacement_at(grid.voxels(self.params[0])[None], grid)

    def displacement_at(self, where: Tensor, grid: Grid) -> Tensor:
        """Return the displacement at voxel coordinates `where` `(B, d, …)` of `grid`, in its voxels.

        It is as exact far from the world's origin as near it, in single precision too.
        """
        at = where.double()
        return (grid.to_voxels(self.at(grid.to_world(at))) - at).to(where)

    def __matmul__(self, inner: "Transform") -> "Transform":
        """Return the composition `(φ @ ψ)(x) = φ(ψ(x))`, by which an image is resampled once."""
        if self.as_affine is not None and inner.as_affine is not None:
            return Affine(self.as_affine.matrix.to(inner.as_affine.matrix) @ inner.as_affine.matrix)
        return Composite(self, inner)


class Linear(Transform):
    """A transform by one homogeneous `matrix` `(d+1, d+1)` or `(B, d+1, d+1)`, RAS mm to RAS mm."""

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
        # (B, d+1, d+1) each
        known = [one.matrix.reshape(-1, *one.matrix.shape[-2:]).to(self.matrix) for one in every if one is not None]
        return Affine(torch.cat(known)) if len(known) == len(every) else super().stack(others)

    def at(self, where: Tensor) -> Tensor:
        return transform_channels(self.matrix, where)

    def displacement_at(self, where: Tensor, grid: Grid) -> Tensor:
        frames = self.in_voxels(grid, grid)
        return transform_channels(frames - torch.eye(grid.ndim + 1).to(frames), where)

    def in_voxels(self, grid: Grid, other: Grid) -> Tensor:
        """Return the map from voxels of `grid` to voxels of `other`, `(…, d+1, d+1)` float64: one matrix."""
        matrix = self.matrix.double()
        return torch.linalg.inv(other.affine).to(matrix) @ matrix @ grid.affine.to(matrix)

    def inverse(self) -> "Affine":
        return Affine(torch.linalg.inv(self.matrix))


@dataclass(frozen=True, eq=False)
class Affine(Linear):
    """A linear transform that is its `matrix`, homogeneous `(d+1, d+1)` or `(B, d+1, d+1)`, RAS mm to RAS mm."""

    matrix: Tensor

    __repr__ = short_repr

    @classmethod
    def identity(cls, ndim: int) -> "Affine":
        return cls(torch.eye(ndim + 1, dtype=torch.float64))

    @classmethod
    def about(cls, linear: Tensor, centre: Tensor, to: Tensor | None = None) -> "Affine":
        """Return x → linear · (x − centre) + to, `(d, d)` and `(d,)`; without `to` the centre stays where it is."""
        matrix = torch.eye(len(centre) + 1, dtype=torch.float64)
        matrix[:-1, :-1] = linear
        matrix[:-1, -1] = (centre if to is None else to) - linear @ centre
        return cls(matrix)

    @property
    def params(self) -> tuple[Tensor, ...]:
        """The rows above the last, `(…, d, d+1)`: the last is 0 … 0 1 in every affine, and no solver may change it."""
        return (self.matrix[..., :-1, :],)

    def with_params(self, *params: Tensor) -> "Affine":
        (rows,) = params
        last = torch.zeros_like(rows[..., :1, :])
        last[..., -1] = 1
        return Affine(torch.cat([rows, last], -2))


@dataclass(frozen=True, eq=False)
class Composite(Transform):
    """The composition `outer ∘ inner`.

    Raises:
        ValueError: maps of other dimensions, or of batches that differ.
    """

    outer: Transform
    inner: Transform

    __repr__ = short_repr

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
        return inner + self.outer.displacement_at(grid.voxels(inner)[None] + inner, grid)

    def displacement_at(self, where: Tensor, grid: Grid) -> Tensor:
        inner = self.inner.displacement_at(where, grid)
        return inner + self.outer.displacement_at(where + inner, grid)

    def inverse(self) -> "Composite":
        return Composite(self.inner.inverse(), self.outer.inverse())


def split(transform: Transform) -> tuple[Affine, Transform | None]:
    """Split `φ = A ∘ ψ`; A is the identity where φ does not end in a linear map, ψ None where φ is linear."""
    first, *rest = transform.parts
    if first.as_affine is None:
        return Affine.identity(transform.ndim), transform
    return first.as_affine, reduce(lambda outer, inner: outer @ inner, rest) if rest else None
