"""Homographies: maps by one homogeneous matrix that keep lines straight, and not always parallel."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.space.short_repr import short_repr
from pullback.space.transform import Transform


@dataclass(frozen=True, eq=False)
class Homography(Transform):
    """A homography: x → (A x + t) / (w · x + c).

    Points where w · x + c is 0 lead to infinity; beyond them the map means nothing.

    Attributes:
        matrix: `(d+1, d+1)` or `(B, d+1, d+1)`, its last row w and c; RAS mm to RAS mm. Its scale means nothing.
    """

    matrix: Tensor

    __repr__ = short_repr

    @property
    def ndim(self) -> int:
        return self.matrix.shape[-1] - 1

    @property
    def batch(self) -> int:
        return len(self.matrix) if self.matrix.ndim == 3 else 1

    @property
    def inverse_is_exact(self) -> bool:
        return True

    @property
    def params(self) -> tuple[Tensor, ...]:
        return (self.matrix,)

    def with_params(self, *params: Tensor) -> "Homography":
        return Homography(params[0])

    def nth(self, n: int) -> "Homography":
        return self if self.batch == 1 else Homography(self.matrix[n : n + 1])

    def stack(self, others: Sequence[Transform]) -> Transform:
        alike = [one for one in others if isinstance(one, Homography)]
        if len(alike) < len(others):
            return super().stack(others)
        side = self.matrix.shape[-1]
        return Homography(torch.cat([one.matrix.reshape(-1, side, side).to(self.matrix) for one in (self, *alike)]))

    def at(self, where: Tensor) -> Tensor:
        matrix, flat = self.matrix.to(where), where.flatten(2)  # (B, d, N)
        moved = matrix[..., :-1, :-1] @ flat + matrix[..., :-1, -1:]
        return (moved / (matrix[..., -1:, :-1] @ flat + matrix[..., -1:, -1:])).unflatten(2, where.shape[2:])

    def inverse(self) -> "Homography":
        return Homography(torch.linalg.inv(self.matrix))

    def __matmul__(self, inner: Transform) -> Transform:
        """Return the composition: one homography with a homography or a linear map."""
        if isinstance(inner, Homography):
            return Homography(self.matrix @ inner.matrix.to(self.matrix))
        linear = inner.as_affine
        return super().__matmul__(inner) if linear is None else Homography(self.matrix @ linear.matrix.to(self.matrix))
