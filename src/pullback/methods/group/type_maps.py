"""Maps of a type: the mean of what is known at each voxel or vertex, and how much people differ there (figure 1)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pullback.errors import InputError


def mean_map(maps: Sequence[Tensor], types: Tensor, k: int) -> Tensor:
    """Return the mean of scalars such as depth over the people of type `k`, of the shape of one map, float64.

    Raises:
        InputError: other people than types, several shapes, or nobody of that type.
    """
    _check(maps, types, k)
    return torch.stack([each.double() for each, own in zip(maps, types, strict=True) if own == k]).mean(0)


def variability(labels: Sequence[Tensor], types: Tensor, k: int, named: bool = True) -> Tensor:
    """Return how much the people of type `k` differ at each voxel or vertex, of the shape of one map, float64.

    Args:
        labels: whole numbers, voxels of which lie on each other.
        types: of each person, `(n,)`.
        k: the type.
        named: whether a label means the same in everybody. Then it is the entropy of the labels, in bits. Else it is
            the share of pairs of people one of whom alone has a border there: along an axis the next one, on a grid,
            has another label. Vertices of a surface have no axes, and must be named.

    Raises:
        InputError: as of `mean_map`, or vertices without names.
    """
    _check(labels, types, k)
    own = torch.stack([each for each, own in zip(labels, types, strict=True) if own == k])
    if named:
        share = torch.stack([(own == value).double().mean(0) for value in own.unique()])
        return -torch.special.xlogy(share, share).sum(0) / torch.log(torch.tensor(2.0, dtype=torch.float64))
    if own.ndim < 3:
        raise InputError("variability: labels of vertices without names in common; only of a grid are borders known")
    share, n = _borders(own).double().mean(0), len(own)
    return 2 * share * (1 - share) * n / max(n - 1, 1)


def _borders(labels: Tensor) -> Tensor:
    """Return where the next voxel along an axis has another label, of maps `(n, *spatial)`."""
    out = torch.zeros_like(labels, dtype=torch.bool)
    for axis in range(1, labels.ndim):
        size = labels.shape[axis] - 1
        out.narrow(axis, 0, size).logical_or_(labels.narrow(axis, 1, size) != labels.narrow(axis, 0, size))
    return out


def _check(maps: Sequence[Tensor], types: Tensor, k: int) -> None:
    if len(maps) != len(types) or len({tuple(each.shape) for each in maps}) != 1:
        raise InputError(f"types: maps of one shape for each of {len(types)} people expected, got {len(maps)}")
    if not (types == k).any():
        raise InputError(f"types: nobody is of type {k}")
