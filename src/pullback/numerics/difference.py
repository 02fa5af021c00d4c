"""Finite differences of fields."""

import torch
from torch import Tensor


def jacobian(displacement: Tensor) -> Tensor:
    """Return the derivatives of x + u(x), `(B, d, d, *spatial)`.

    Entry `[:, a, b]` is ∂φ_a/∂x_b, by central differences, one-sided at the border.

    `displacement` is `(B, d, *spatial)` in voxels.
    """
    ndim = displacement.shape[1]
    columns = torch.gradient(displacement, dim=tuple(range(2, 2 + ndim)))
    identity = torch.eye(ndim, dtype=displacement.dtype, device=displacement.device)
    return torch.stack(columns, 2) + identity.view(1, ndim, ndim, *[1] * ndim)


def determinant(matrices: Tensor) -> Tensor:
    """Return the determinants `(B, 1, *spatial)` of `(B, d, d, *spatial)`, in closed form for d = 2 and 3.

    Raises:
        ValueError: matrices neither 2 × 2 nor 3 × 3.
    """
    m = matrices
    if m.shape[1] == 2:
        return (m[:, 0, 0] * m[:, 1, 1] - m[:, 0, 1] * m[:, 1, 0])[:, None]
    if m.shape[1] == 3:
        minors = (
            m[:, 0, 0] * (m[:, 1, 1] * m[:, 2, 2] - m[:, 1, 2] * m[:, 2, 1])
            - m[:, 0, 1] * (m[:, 1, 0] * m[:, 2, 2] - m[:, 1, 2] * m[:, 2, 0])
            + m[:, 0, 2] * (m[:, 1, 0] * m[:, 2, 1] - m[:, 1, 1] * m[:, 2, 0])
        )
        return minors[:, None]
    raise ValueError(f"determinant: expected (B, 2, 2, …) or (B, 3, 3, …), got {tuple(m.shape)}")


def cofactors(matrices: Tensor) -> Tensor:
    """Return the cofactors det(A) A⁻ᵀ of `(B, d, d, *spatial)`, in closed form for d = 2 and 3.

    Raises:
        ValueError: matrices neither 2 × 2 nor 3 × 3.
    """
    m = matrices
    if m.shape[1] == 2:
        return torch.stack([torch.stack([m[:, 1, 1], -m[:, 1, 0]], 1), torch.stack([-m[:, 0, 1], m[:, 0, 0]], 1)], 1)
    if m.shape[1] == 3:

        def minor(a: int, b: int) -> Tensor:
            i, j, p, q = (a + 1) % 3, (a + 2) % 3, (b + 1) % 3, (b + 2) % 3
            return m[:, i, p] * m[:, j, q] - m[:, i, q] * m[:, j, p]

        return torch.stack([torch.stack([minor(a, b) for b in range(3)], 1) for a in range(3)], 1)
    raise ValueError(f"cofactors: expected (B, 2, 2, …) or (B, 3, 3, …), got {tuple(m.shape)}")
