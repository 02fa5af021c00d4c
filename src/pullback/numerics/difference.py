"""Finite differences of fields."""

import functools
import itertools

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


def least_determinant(displacement: Tensor) -> Tensor:
    """Return the least determinant of x + u(x) by one-sided differences, `(B, 1, *spatial)`.

    At each voxel it is the least of 2ᵈ, each of differences to the next or the last voxel along every axis, where there
    is one. Central differences skip the voxel itself, and so miss what folds between neighbours; where all of these are
    above 0, no corner of a cell of the grid is turned inside out (Liu et al. 2024, on digital diffeomorphisms).

    `displacement` is `(B, d, *spatial)` in voxels.
    """
    ndim = displacement.shape[1]
    identity = torch.eye(ndim, dtype=displacement.dtype, device=displacement.device)
    sides = []
    for axis in range(ndim):
        steps = displacement.diff(dim=2 + axis) + identity[axis].view(1, ndim, *[1] * ndim)  # columns ∂φ/∂x_axis
        if not steps.shape[2 + axis]:  # one voxel: nothing changes along it
            steps = torch.zeros_like(displacement) + identity[axis].view(1, ndim, *[1] * ndim)
            sides.append((steps, steps))
            continue
        first, last = steps.narrow(2 + axis, 0, 1), steps.narrow(2 + axis, steps.shape[2 + axis] - 1, 1)
        sides.append((torch.cat([steps, last], 2 + axis), torch.cat([first, steps], 2 + axis)))
    corners = (determinant(torch.stack(columns, 2)) for columns in itertools.product(*sides))
    return functools.reduce(torch.minimum, corners)


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
