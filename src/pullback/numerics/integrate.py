"""Composition, exponential and inversion of displacement fields, `(B, d, *spatial)` in voxels of one grid."""

import torch
from torch import Tensor

from pullback.numerics.sample import sample, voxels


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """The displacement of `(id + outer) ∘ (id + inner)`; `outer` is continued beyond its border by its border value."""
    where = voxels(tuple(inner.shape[2:]), inner) + inner
    return inner + sample(outer, where, padding="border")


def exponential(velocity: Tensor, squarings: int = 7) -> Tensor:
    """The displacement of the flow of a stationary velocity at time 1, by scaling and squaring.

    Arsigny et al. 2006; 7 squarings as VoxelMorph (Dalca et al. 2018).
    """
    displacement = velocity / 2**squarings
    for _ in range(squarings):
        displacement = compose(displacement, displacement)
    return displacement


def invert(displacement: Tensor, tolerance: float = 1e-3, iterations: int = 100) -> Tensor:
    """The displacement `w` with `(id + u) ∘ (id + w) = id`, by the fixed point `w ← −u(x + w)`.

    Chen et al. 2008. Converges where `u` is a contraction (steps are halved when the residual grows, which reaches
    somewhat further); voxels whose residual does not exceed `tolerance` voxels are done, and the others go on. Where
    `u` folds there is no inverse and the residual stays: measure it with `compose`.
    """
    grid = voxels(tuple(displacement.shape[2:]), displacement).flatten(1)[None]
    inverse = -displacement.flatten(2)
    relaxation, last = 1.0, float("inf")
    left = torch.arange(grid.shape[2], device=grid.device)
    for _ in range(iterations):
        found = inverse[..., left]
        residual = found + sample(displacement, grid[..., left] + found, padding="border")
        away = residual.abs().amax((0, 1))
        worst = float(away.max())
        if worst <= tolerance:
            break
        if worst > last:
            relaxation = max(relaxation / 2, 0.1)
        far = away > tolerance
        left, last = left[far], worst
        inverse[..., left] = found[..., far] - relaxation * residual[..., far]
    return inverse.reshape(displacement.shape)
