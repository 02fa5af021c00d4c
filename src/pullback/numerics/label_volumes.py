"""Volumes of many labels at once, moved and interpolated."""

import functools
import itertools

import torch
from torch import Tensor

from pullback.numerics.recompute import checkpointed


def moved_volumes(fixed: Tensor, moving: Tensor, where: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the volumes of moved labels, and their parts within the fixed ones, `(B, count)` float64 in voxels.

    With p_k the indicator image of label k in `fixed`, and q_k that in `moving`, interpolated linearly at `where` as by
    `sample`, these are Σ q_k and Σ p_k q_k. Around a place lie 2ᵈ voxels of one label each, so that their weights are
    added up by label: memory does not grow with the number of labels. Gradients reach `where`.

    Args:
        fixed: `(B, 1, *out)` whole numbers, 1 … count for labels and 0 for none.
        moving: `(B, 1, *spatial)`, likewise.
        where: `(B, d, *out)`, voxel coordinates in `moving`.
        count: number of labels.
    """
    sizes, batch = moving.shape[2:], max(len(fixed), len(moving), len(where))
    known, labels = (each.expand(batch, -1, *each.shape[2:]).flatten(1) for each in (fixed, moving))
    at = where.expand(batch, *where.shape[1:]).flatten(2)  # (B, d, N)
    first = (count + 1) * torch.arange(batch, device=at.device)[:, None]  # (B, 1), of each pair's bins

    def corner(sides: tuple[int, ...], at: Tensor) -> Tensor:
        base = at.detach().floor()
        index, inside = torch.zeros_like(known), torch.ones_like(known, dtype=torch.bool)
        shares = []
        for axis, (side, n) in enumerate(zip(sides, sizes, strict=True)):
            beside = base[:, axis].long() + side
            inside &= (beside >= 0) & (beside < n)
            index = index * n + beside.clamp(0, n - 1)
            part = at[:, axis] - base[:, axis]
            shares.append(part if side else 1 - part)
        label = labels.gather(1, index) * inside
        share = functools.reduce(torch.mul, shares).double()
        bins = (first + label).flatten()
        volumes = share.new_zeros(2, batch * (count + 1))
        both = share * (label == known)
        return torch.stack([volumes[n].index_add(0, bins, each.flatten()) for n, each in enumerate((share, both))])

    sums = [
        checkpointed(functools.partial(corner, sides), at) for sides in itertools.product((0, 1), repeat=len(sizes))
    ]
    moved, both = functools.reduce(torch.add, sums).unflatten(1, (batch, count + 1))[..., 1:]  # two of (B, count)
    return moved, both
