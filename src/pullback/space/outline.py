"""Surfaces of labelled structures as points."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pullback.numerics.random import make_generator
from pullback.space.image import Labels
from pullback.space.points import PointColumn, Points

SURFACE = (400, 4000)  # points of a fixed and of a moving surface: what the moving one needs to be without gaps


def outline(labels: Labels, most: int, each: bool = False, cut: bool = True) -> Points:
    """Return centres of voxels at the surface of all labels but 0: those with a face neighbour that is 0.

    Args:
        labels: a batch, of which the first is taken.
        most: the greatest number of points, with `each` of every label, drawn at random, always the same ones.
        each: take the surface of each label by itself: voxels with a neighbour of another label.
        cut: take voxels on the border of the image too, where a structure may be cut off and have no surface.

    Returns:
        `(1, N, d)` in RAS mm, float64; beyond the image all is 0. With `each`, the column `label` says whose surface it
            is.
    """
    values = labels.data[0, 0] if each else labels.data[0, 0] != 0
    around = F.pad(values, [1] * (2 * values.ndim))
    within = torch.ones_like(values, dtype=torch.bool)
    for axis, n in enumerate(values.shape):
        for start in (0, 2):
            shifted = around.narrow(axis, start, n)
            for other, m in enumerate(values.shape):
                shifted = shifted if other == axis else shifted.narrow(other, 1, m)
            within = within & (shifted == values)
    voxels = ((values != 0) & ~within).nonzero()
    if not cut:
        last = voxels.new_tensor(values.shape) - 1
        voxels = voxels[((voxels > 0) & (voxels < last)).all(1)]
    voxels = voxels[torch.randperm(len(voxels), generator=make_generator(0)).to(voxels.device)]
    if not each:
        return Points(labels.grid.to_world(voxels[:most].double().mT[None]).mT)
    owner = values[tuple(voxels.mT)].long()
    chosen = voxels[_rank_within(owner) < most]
    known: dict[str, PointColumn] = {"label": values[tuple(chosen.mT)].long()[None]}
    return Points(labels.grid.to_world(chosen.double().mT[None]).mT, known)


def _rank_within(owner: Tensor) -> Tensor:
    """Return how many earlier entries of a vector `(N,)` equal each."""
    order = owner.argsort(stable=True)
    counts = owner.unique(return_counts=True)[1]
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    rank = torch.empty_like(owner)
    rank[order] = torch.arange(len(owner), device=owner.device) - first
    return rank
