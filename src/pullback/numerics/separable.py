"""Linear maps along one spatial axis of a volume, such as interpolation and smoothing, as matrices."""

import torch
from torch import Tensor


def apply_along(matrix: Tensor, values: Tensor, axis: int) -> Tensor:
    """Multiply values `(B, C, *spatial)` by `matrix` `(m, n)` along spatial axis `axis` of length `n`."""
    moved = values.movedim(2 + axis, -1) @ matrix.T
    return moved.movedim(-1, 2 + axis)


def linear_weights(where: Tensor, n: int) -> Tensor:
    """Return the matrix `(m, n)` of linear interpolation between `n` values at `where` `(m,)`.

    Beyond both ends values fade to 0 within one voxel.
    """
    return (1 - (where[:, None] - torch.arange(n, dtype=where.dtype)).abs()).clamp(min=0)


def spline_weights(where: Tensor, n: int) -> Tensor:
    """Return the matrix `(m, n)` of cubic B-splines with `n` coefficients, mirrored at the ends, at `where` `(m,)`.

    Beyond both ends the end value fades to 0 within one voxel, as in `sample` with `"cubic"`.
    """
    inside = where.clamp(0, n - 1)
    index = torch.arange(-2, n + 2)
    distance = (inside[:, None] - index).abs()
    near = 2 / 3 - distance**2 * (1 - distance / 2)
    weights = torch.where(distance < 1, near, (2 - distance).clamp(min=0) ** 3 / 6)
    period = max(2 * n - 2, 1)
    mirrored = torch.minimum(index % period, period - index % period).clamp(max=n - 1)
    folded = weights.new_zeros(len(where), n).index_add(1, mirrored, weights)
    return folded * (1 - (where - inside).abs()).clamp(min=0)[:, None]


def cubic_weights(where: Tensor, n: int) -> Tensor:
    """Return the matrix `(m, n)` of cubic interpolation between `n` values at `where` `(m,)`, as `sample` does."""
    own = spline_weights(torch.arange(n, dtype=where.dtype), n)
    return torch.linalg.solve(own, spline_weights(where, n), left=False)
