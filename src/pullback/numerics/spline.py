"""From scattered values to values anywhere."""

from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 16384  # points at once


@dataclass(frozen=True, eq=False)
class Spline:
    """The smoothest function near the given values: the thin-plate spline of three dimensions, kernel r.

    It has the least ∫ |∇²f|² (Duchon 1977) and goes through the values where `smoothing` is 0; affine values are met
    exactly whatever the smoothing.

    Attributes:
        points: `(N, 3)`, no two the same where `smoothing` is 0.
        weights: `(N + 4, C)`: of the kernels, then of 1, x, y, z.
    """

    points: Tensor
    weights: Tensor

    def __call__(self, where: Tensor) -> Tensor:
        """At `(M, 3)`: `(M, C)`."""
        parts = []
        for part in where.split(CHUNK):
            kernel = -torch.cdist(part, self.points, compute_mode="donot_use_mm_for_euclid_dist")
            parts.append(kernel @ self.weights[:-4] + _affine(part) @ self.weights[-4:])
        return torch.cat(parts)


def spline(points: Tensor, values: Tensor, smoothing: float | Tensor = 0.0) -> Spline:
    """The spline of values `(N, C)` at points `(N, 3)`.

    Args:
        points, values: of one dtype; float64 where many points are near each other.
        smoothing: in units of the points' coordinates; the larger, the nearer to an affine function; of all points, or
            `(N,)`, of each.

    Raises:
        ValueError: fewer than four points, or all in one plane.
    """
    n = len(points)
    affine = _affine(points)
    if n < 4 or int(torch.linalg.matrix_rank(affine - affine.mean(0) * (affine != 1))) < 4:
        raise ValueError(f"spline: at least four points that do not lie in one plane expected, got {n}")
    kernel = -torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    matrix = torch.zeros(n + 4, n + 4, dtype=points.dtype, device=points.device)
    matrix[:n, :n] = kernel + torch.diag(torch.as_tensor(smoothing).to(points).expand(n))
    matrix[:n, n:], matrix[n:, :n] = affine, affine.mT
    right = torch.cat([values, values.new_zeros(4, values.shape[1])])
    return Spline(points, torch.linalg.solve(matrix, right))


def _affine(points: Tensor) -> Tensor:
    return torch.cat([torch.ones_like(points[:, :1]), points], 1)
