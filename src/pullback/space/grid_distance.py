"""Distances between two maps over a grid, mm: how far apart they lead its points, a transform's error as one number.

Of linear maps the mean square is a closed form, of which rotations and shifts are two terms: with Δ = φ − ψ, c the
middle of the grid and Σ the covariance of its points, it is |Δ(c)|² + tr(L Σ Lᵀ), L the linear part of Δ.
"""

import torch
from torch import Tensor

from pullback.space.grid import Grid
from pullback.space.transform import Affine, Transform

BLOCKS = 8
"""Along each axis: their middles stand for all voxels. Rotations are then off by 1 %."""


def mean_square_distance(one: Affine, other: Affine, grid: Grid, voxels: bool = False) -> Tensor:
    """Return the mean of |φ(x) − ψ(x)|² over all voxels x of a grid, `(B,)` mm², in closed form.

    Args:
        one, other: the maps; a batch of one serves any number.
        grid: of any affine, also oblique, anisotropic and sheared.
        voxels: measure in voxels of the grid, not in mm.
    """
    matrices = [each.matrix.reshape(-1, grid.ndim + 1, grid.ndim + 1) for each in (one, other)]
    off = matrices[0].double() - matrices[1].to(matrices[0].device).double()
    counts = torch.tensor(grid.shape, dtype=torch.float64)
    axes, centre = grid.affine[:-1, :-1].to(off), grid.centre.to(off)
    if voxels:
        off = torch.linalg.inv(grid.affine).to(off) @ off
    linear, shift = off[:, :-1, :-1], off[:, :-1, -1]
    spread = linear @ axes * ((counts.square() - 1) / 12).sqrt().to(off)  # L E √(variance along each axis)
    return (linear @ centre + shift).square().sum(1) + spread.square().sum((1, 2))


def mean_distance(one: Transform, other: Transform, points: Tensor) -> Tensor:
    """Return the mean of |φ(x) − ψ(x)| over points, `(B,)` mm.

    Args:
        one, other: maps of any kind.
        points: `(1, N, d)` mm; of a grid, `block_middles`.
    """
    first = one.at(points.mT)
    return (first - other.at(points.mT).to(first)).norm(dim=1).mean(1)


def block_middles(grid: Grid, count: int = BLOCKS) -> Tensor:
    """Return the middles of blocks into which a grid is cut, `count` along each axis, `(1, countᵈ, d)` mm float64.

    They have the middle of the grid's voxels, and nearly their spread; points from corner to corner have more.
    """
    at = ((torch.arange(count, dtype=torch.float64) + 0.5) / count * n - 0.5 for n in grid.shape)
    return grid.to_world(torch.cartesian_prod(*at).mT[None]).mT
