"""Matrices that have no inverse, whatever the unit of their numbers."""

import torch
from torch import Tensor

FLAT = 1e-6  # least singular value, of the greatest: what float32, as in files, leaves of 0


def is_singular(matrix: Tensor) -> bool:
    """Return whether a square matrix `(d, d)` flattens what it is applied to, or has numbers that are not finite.

    Only ratios count: a matrix of 1e-6 in all directions has an inverse, one of 1 and 1e-6 in two has none. Of a grid,
    whose voxels may be long and thin, `spans` is to be asked.
    """
    if not torch.isfinite(matrix).all():
        return True
    values = torch.linalg.svdvals(matrix)
    return bool(values.min() <= FLAT * values.max())


def spans(axes: Tensor) -> bool:
    """Return whether the columns of a square matrix `(d, d)` span the space, however long each of them is."""
    lengths = axes.norm(dim=0)
    return bool((lengths > 0).all()) and not is_singular(axes / lengths)
