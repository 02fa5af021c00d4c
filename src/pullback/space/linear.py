"""Linear maps near a known one, with parameters of one scale: a unit of each moves the image's edge by about 1 mm."""

import itertools
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from pullback.space.grid import Grid
from pullback.space.short_repr import short_repr
from pullback.space.transform import Affine, Linear


@dataclass(frozen=True, eq=False)
class Motion(Linear):
    """The linear map φ(x) = start(c + exp(Σ tₖ Gₖ)(x − c)).

    Rotations by the exponential map have no gimbal lock. Each generator moves points at the grid's radius by 1 mm per
    unit, so that one step size suits rotations and translations alike.

    Attributes:
        start: the known map.
        centre: `(d,)` mm, fixed by rotations and scalings.
        generators: `(K, d+1, d+1)` float64.
        coefficients: `(K,)`, or `(B, K)` for a batch of poses: what a solver changes; 0 gives `start`.
    """

    start: Affine
    centre: Tensor
    generators: Tensor
    coefficients: Tensor

    __repr__ = short_repr

    @classmethod
    def translation(cls, start: Affine, grid: Grid) -> "Motion":
        """Return translations; `grid` tells the dimensions."""
        return cls._of(start, grid, [])

    @classmethod
    def rigid(cls, start: Affine, grid: Grid) -> "Motion":
        """Return rotations about the middle of `grid`, and translations."""
        return cls._of(start, grid, _rotations(grid.ndim))

    @classmethod
    def similarity(cls, start: Affine, grid: Grid) -> "Motion":
        """Return rotations and one scaling about the middle of `grid`, and translations."""
        return cls._of(start, grid, [*_rotations(grid.ndim), torch.eye(grid.ndim, dtype=torch.float64)])

    @classmethod
    def affine(cls, start: Affine, grid: Grid) -> "Motion":
        """Return rotations, scalings and shears about the middle of `grid`, and translations."""
        return cls._of(start, grid, [*_rotations(grid.ndim), *_stretches(grid.ndim)])

    @classmethod
    def _of(cls, start: Affine, grid: Grid, linear: list[Tensor]) -> "Motion":
        d, batch = grid.ndim, start.matrix.shape[:-2]
        extent = (torch.tensor(grid.shape, dtype=torch.float64) - 1) * grid.spacing
        radius = extent.norm() / 2 / d**0.5
        generators = torch.zeros(len(linear) + d, d + 1, d + 1, dtype=torch.float64)
        for generator, step in zip(generators, linear, strict=False):
            generator[:d, :d] = step / radius
        generators[len(linear) :, :d, d] = torch.eye(d, dtype=torch.float64)
        return cls(start, grid.centre, generators, generators.new_zeros(*batch, len(generators)))

    @property
    def params(self) -> tuple[Tensor, ...]:
        return (self.coefficients,)

    def with_params(self, *params: Tensor) -> "Motion":
        return replace(self, coefficients=params[0])

    @cached_property
    def slopes(self) -> Tensor:
        """The derivatives of the matrix by the coefficients, `(…, K, d+1, d+1)`.

        exp [[X, G], [0, X]] has the derivative of exp at X along G above its diagonal (Van Loan 1978).
        """
        generators = self.generators.to(self.coefficients)
        exponent = torch.einsum("...k,kij->...ij", self.coefficients, generators)[..., None, :, :]
        exponent = exponent.expand(*exponent.shape[:-3], *generators.shape)
        upper = torch.cat([exponent, generators.expand_as(exponent)], -1)
        lower = torch.cat([torch.zeros_like(exponent), exponent], -1)
        size = generators.shape[-1]
        slopes = torch.linalg.matrix_exp(torch.cat([upper, lower], -2))[..., :size, size:]
        start, there = (matrix[..., None, :, :] for matrix in self._ends)
        return start @ torch.linalg.inv(there) @ slopes @ there

    @cached_property
    def matrix(self) -> Tensor:  # type: ignore[override]
        coefficients = self.coefficients
        exponent = torch.einsum("...k,kij->...ij", coefficients, self.generators.to(coefficients))
        start, there = self._ends
        return start @ torch.linalg.inv(there) @ torch.linalg.matrix_exp(exponent) @ there

    @property
    def _ends(self) -> tuple[Tensor, Tensor]:
        """The start, and the shift of the centre to the origin, as matrices."""
        there = torch.eye(len(self.centre) + 1, dtype=torch.float64)
        there[:-1, -1] = -self.centre
        return self.start.matrix.to(self.coefficients), there.to(self.coefficients)


def _rotations(ndim: int) -> list[Tensor]:
    turns = []
    for a, b in itertools.combinations(range(ndim), 2):
        turn = torch.zeros(ndim, ndim, dtype=torch.float64)
        turn[a, b], turn[b, a] = -1, 1
        turns.append(turn)
    return turns


def _stretches(ndim: int) -> list[Tensor]:
    """Return the symmetric matrices of a basis: with the rotations they span all linear maps."""
    stretches = []
    for a, b in itertools.combinations_with_replacement(range(ndim), 2):
        stretch = torch.zeros(ndim, ndim, dtype=torch.float64)
        stretch[a, b] = stretch[b, a] = 1
        stretches.append(stretch)
    return stretches
