"""Shared parts of formats that know the world only through the frames of two images."""

import torch
from torch import Tensor

from pullback.space import Affine, Displacement, Grid, Transform


def landed_points(transform: Transform, fixed: Grid) -> Tensor:
    """Return the place to which each voxel of `fixed` is moved, `(d, *shape)` RAS mm, float64; of a batch the first."""
    with torch.no_grad():
        displacement = transform.displacement(fixed)[:1].cpu().double()
        return fixed.to_world(fixed.voxels(displacement)[None] + displacement)[0]


def between(frames: Tensor, field: Tensor, fixed: Grid, moving: Grid) -> Transform:
    """Return `frames ∘ (id + field)`: a `field` `(d, *shape)` in voxels of `fixed`, then a change of frame."""
    inner = Displacement(field[None].float(), fixed)
    return inner if fixed == moving else Affine(frames) @ inner


def homogeneous(matrix: Tensor, where: Tensor) -> Tensor:
    """Apply a matrix `(d+1, d+1)` to coordinates `(d, …)`."""
    moved = torch.einsum("ab,b...->a...", matrix[:-1, :-1], where)
    return moved + matrix[:-1, -1].view(-1, *[1] * (where.ndim - 1))
