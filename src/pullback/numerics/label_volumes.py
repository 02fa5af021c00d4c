"""Volumes of many labels at once, moved and interpolated."""

import functools
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def moved_volumes(fixed: Tensor, moving: Tensor, where: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the volumes of moved labels, and their parts within the fixed ones, `(B, count)` float64 in voxels.

    With p_k the indicator image of label k in `fixed`, and q_k that in `moving`, interpolated linearly at `where` as by
    `sample`, these are Σ q_k and Σ p_k q_k. Around a place lie 2ᵈ voxels of one label each, so that their weights are
    added up by label: memory does not grow with the number of labels. Gradients, which cannot be differentiated again,
    reach `where`.

    Args:
        fixed: `(B, 1, *out)` whole numbers, 1 … count for labels and 0 for none.
        moving: `(B, 1, *spatial)`, likewise.
        where: `(B, d, *out)`, voxel coordinates in `moving`.
        count: number of labels.
    """
    batch = max(len(fixed), len(moving), len(where))
    known, labels = (each.expand(batch, -1, *each.shape[2:]).flatten(1).long() for each in (fixed, moving))
    at = where.expand(batch, *where.shape[1:]).flatten(2)  # (B, d, N)
    volumes = _MovedVolumes.apply(known, labels, at, tuple(moving.shape[2:]), count)
    return volumes[0, :, 1:], volumes[1, :, 1:]


class _MovedVolumes(torch.autograd.Function):
    """Both volumes of labels 0 … count, `(2, B, count + 1)`; only the inputs are kept.

    1. A place x has a corner c with the label l(c) and the share w_c(x) = Π_a (t_a or 1 − t_a), t = x − ⌊x⌋.
    2. The volumes are V_k = Σ_x Σ_c [l(c) = k] w_c and U_k, the same over places whose fixed label is k.
    3. For gradients g by V and h by U, that by w_c is g at l(c), plus h there where l(c) is the fixed label.
    4. ∂w_c/∂x_a is the product over the other axes, with the sign of t_a in it.
    """

    @staticmethod
    def forward(ctx, known, labels, at, sizes, count):
        ctx.save_for_backward(known, labels, at)
        ctx.sizes = sizes
        first = (count + 1) * torch.arange(len(known), device=known.device)[:, None]  # of each pair's bins
        volumes = at.new_zeros(2, len(known) * (count + 1), dtype=torch.float64)
        for _, label, parts in _corners(labels, at, sizes):
            share, bins = functools.reduce(torch.mul, parts).double(), (first + label).flatten()
            for row, each in zip(volumes, (share, share * (label == known)), strict=True):
                row.index_add_(0, bins, each.flatten())
        return volumes.unflatten(1, (len(known), count + 1))

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        known, labels, at = ctx.saved_tensors
        slopes = torch.zeros_like(at)
        for sides, label, parts in _corners(labels, at, ctx.sizes):
            by_share = upstream[0].gather(1, label) + upstream[1].gather(1, label) * (label == known)
            for axis, side in enumerate(sides):
                others = [part for n, part in enumerate(parts) if n != axis]
                slopes[:, axis] += (1 if side else -1) * by_share.to(at) * functools.reduce(torch.mul, others)
        return None, None, slopes, None, None


def _corners(
    labels: Tensor, at: Tensor, sizes: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], Tensor, list[Tensor]]]:
    """Yield each corner around places `(B, d, N)`: its sides, its label `(B, N)`, and its share's factors by axis."""
    base = at.floor()
    for sides in itertools.product((0, 1), repeat=len(sizes)):
        index, parts = torch.zeros_like(at[:, 0], dtype=torch.long), []
        inside = torch.ones_like(index, dtype=torch.bool)
        for axis, (side, n) in enumerate(zip(sides, sizes, strict=True)):
            beside = base[:, axis].long() + side
            inside = inside & (beside >= 0) & (beside < n)
            index = index * n + beside.clamp(0, n - 1)
            part = at[:, axis] - base[:, axis]
            parts.append(part if side else 1 - part)
        yield sides, labels.gather(1, index) * inside, parts
