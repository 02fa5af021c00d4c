"""The Förstner operator: how well a place in an image can be told from those around it.

Förstner & Gülch, "A fast operator for detection and precise location of distinct points, corners and centres of
circular features", ISPRS Intercommission Conference 1987: with the structure tensor T, the mean of ∇I ∇Iᵀ around a
place, T⁻¹ is the covariance of a match there, up to the noise, and 1 / trace T⁻¹ how distinct the place is.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pullback.numerics.smooth import gaussian

SINGULAR = 1e-9  # of e₂(T) against trace(T)²: below, T has one eigenvalue, and 1 / trace T⁻¹ would be 0 / 0


def distinctiveness(values: Tensor, sigma: float | Sequence[float], affine: Tensor | None = None) -> Tensor:
    """Return 1 / trace T⁻¹ at each voxel: 0 where the image is flat, on an edge, and in 3-D on a straight ridge.

    Derivatives are of five points, (1, -8, 0, 8, -1) / 12, and the image goes on beyond its border as there. Channels
    add up. Computed in float64: it is a quotient of two numbers that vanish together.

    Args:
        values: `(B, C, *spatial)`.
        sigma: of the Gaussian by which T is a mean, voxels, one for all axes or one each.
        affine: `(d, d)`, steps of voxels in the world: T is of derivatives there, by whatever axes the image is stored.

    Returns:
        `(B, 1, *spatial)` float64, in squared intensities per squared unit of the world.
    """
    d = values.ndim - 2
    matrix = torch.eye(d, dtype=torch.float64) if affine is None else affine.double().cpu()
    metric = matrix.mT @ matrix
    slopes = [_slope(values.double(), axis) for axis in range(d)]
    t = {}
    for a in range(d):
        for b in range(a, d):
            t[a, b] = t[b, a] = gaussian((slopes[a] * slopes[b]).sum(1, keepdim=True), sigma)
    pairs = [(a, b) for a in range(d) for b in range(d)]
    adjugate = _adjugate(t, d)
    zero, inverse = torch.zeros_like(t[0, 0]), torch.linalg.inv(metric)
    determinant = sum((t[0, b] * adjugate[b, 0] for b in range(d)), zero)  # of T in voxels, as the adjugate
    spread = sum((float(metric[pair]) * adjugate[pair] for pair in pairs), zero)  # determinant · trace T⁻¹ in the world
    trace = sum((float(inverse[pair]) * t[pair] for pair in pairs), zero)
    regular = spread > SINGULAR * float(torch.linalg.det(metric)) * trace ** (d - 1)
    return torch.where(regular, determinant.clamp(min=0) / torch.where(regular, spread, 1), 0)


def _slope(values: Tensor, axis: int) -> Tensor:
    d, n = values.ndim - 2, values.shape[2 + axis]
    around = F.pad(values, [0, 0] * (d - 1 - axis) + [2, 2] + [0, 0] * axis, mode="replicate")
    far, near = ([around.narrow(2 + axis, 2 + side * step, n) for side in (1, -1)] for step in (2, 1))
    return (8 * (near[0] - near[1]) - (far[0] - far[1])) / 12


def _adjugate(t: dict[tuple[int, int], Tensor], d: int) -> dict[tuple[int, int], Tensor]:
    """Return det T · T⁻¹ of symmetric 2 × 2 or 3 × 3 matrices, by entries."""
    if d == 2:
        return {(0, 0): t[1, 1], (1, 1): t[0, 0], (0, 1): -t[0, 1], (1, 0): -t[0, 1]}
    out = {}
    for a in range(3):
        for b in range(a, 3):
            (i, j), (k, m) = ([n for n in range(3) if n != left] for left in (a, b))
            out[a, b] = out[b, a] = (-1) ** (a + b) * (t[i, k] * t[j, m] - t[i, m] * t[j, k])
    return out
