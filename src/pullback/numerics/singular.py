"""Matrices that have no inverse, whatever the unit of their numbers."""

import torch
from torch import Tensor

FLAT = 1e-6  # sine, about, of the angle between an axis and the others: what float32, as in files, leaves of 0


def is_singular(matrix: Tensor) -> bool:
    """Return whether a square matrix `(d, d)` flattens what it is applied to, its columns taken as of one length.

    A grid may have voxels of 100 nm or of 1 km, and be long and thin: what counts is whether its axes span the space.
    A matrix with a column of zeros, or of numbers that are not finite, is singular.
    """
    lengths = matrix.norm(dim=0)
    if not torch.isfinite(matrix).all() or not (lengths > 0).all():
        return True
    return bool(torch.linalg.svdvals(matrix / lengths).min() < FLAT)
