"""Thin-plate splines: smooth functions through scattered values."""

from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 16384  # points at once


@dataclass(frozen=True, eq=False)
class Spline:
    """The smoothest function near given values: the thin-plate spline, with the kernel r² log r in 2-D and r in 3-D.

    It minimises ∫ |∇²f|² (Duchon 1977) and goes through the values where `smoothing` is 0; affine functions are
    reproduced exactly, whatever the smoothing.

    Attributes:
        points: `(N, d)`, all different where `smoothing` is 0.
        weights: `(N + 1 + d, C)`: of the kernels, then of 1 and the coordinates.
    """

    points: Tensor
    weights: Tensor

    def __call__(self, where: Tensor) -> Tensor:
        """Return the values `(M, C)` at points `(M, d)`."""
        kernels, rest = self.weights.split([len(self.points), 1 + self.points.shape[1]])
        parts = [_kernel(part, self.points) @ kernels + _affine(part) @ rest for part in where.split(CHUNK)]
        return torch.cat(parts)


class Knots:
    """Points that many splines share; what depends on the points alone is computed once.

    Args:
        points: `(N, d)`, d = 2 or 3; float64 where many are near each other.

    Raises:
        ValueError: fewer than four points, or all in one plane; 2-D: fewer than three, or all in one line.
    """

    def __init__(self, points: Tensor) -> None:
        n, d = points.shape
        affine = _affine(points)
        if n <= d or int(torch.linalg.matrix_rank(affine - affine.mean(0) * (affine != 1))) <= d:
            least = "three points that do not lie in one line" if d == 2 else "four points that do not lie in one plane"
            raise ValueError(f"spline: at least {least} expected, got {n}")
        self.points = points
        self._matrix = points.new_zeros(n + 1 + d, n + 1 + d)
        self._matrix[:n, :n] = _kernel(points, points)
        self._matrix[:n, n:], self._matrix[n:, :n] = affine, affine.mT

    def spline(self, values: Tensor, smoothing: float | Tensor = 0.0) -> Spline:
        """Return the spline through or near values `(N, C)`.

        Args:
            smoothing: in units of the points' coordinates (2-D: squared); the larger, the nearer to an affine function;
                of all points, or `(N,)`, of each.
        """
        n, d = self.points.shape
        matrix = self._matrix.clone()
        matrix.diagonal()[:n] += torch.as_tensor(smoothing).to(matrix)
        right = torch.cat([values, values.new_zeros(1 + d, values.shape[1])])
        return Spline(self.points, torch.linalg.solve(matrix, right))

    def at(self, spline: Spline) -> Tensor:
        """Return the values `(N, C)` of one of the splines at the points themselves."""
        return self._matrix[: len(self.points)] @ spline.weights


def spline(points: Tensor, values: Tensor, smoothing: float | Tensor = 0.0) -> Spline:
    """Return the spline of `values` `(N, C)` at points of its own; `Knots` says which are refused."""
    return Knots(points).spline(values, smoothing)


def _kernel(where: Tensor, points: Tensor) -> Tensor:
    """Return the kernel `(M, N)` of distances between `(M, d)` and `(N, d)`, with the sign that smoothing adds to."""
    r = torch.cdist(where, points, compute_mode="donot_use_mm_for_euclid_dist")
    return r * torch.xlogy(r, r) if points.shape[1] == 2 else -r


def _affine(points: Tensor) -> Tensor:
    return torch.cat([torch.ones_like(points[:, :1]), points], 1)
