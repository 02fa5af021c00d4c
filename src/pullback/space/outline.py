"""Surfaces of structures as points."""

import torch
import torch.nn.functional as F

from pullback.numerics.random import generator
from pullback.space.image import Labels
from pullback.space.points import Points

SURFACE = (400, 4000)  # points of a fixed and of a moving surface: what the moving one needs to be without gaps


def outline(labels: Labels, most: int) -> Points:
    """Centres of voxels at the surface of all that is not 0: those with a neighbour beyond a face that is 0.

    Args:
        labels: of a batch the first.
        most: so many at most, drawn by chance, the same ones each time.

    Returns:
        `(1, N, d)` in RAS mm, float64; beyond the image all is 0.
    """
    inside = labels.data[0, 0] != 0
    around = F.pad(inside, [1] * (2 * inside.ndim))
    within = inside
    for axis, n in enumerate(inside.shape):
        for start in (0, 2):
            shifted = around.narrow(axis, start, n)
            for other, m in enumerate(inside.shape):
                shifted = shifted if other == axis else shifted.narrow(other, 1, m)
            within = within & shifted
    voxels = (inside & ~within).nonzero().double()
    chosen = voxels[torch.randperm(len(voxels), generator=generator(0)).to(voxels.device)[:most]]
    return Points(labels.grid.to_world(chosen.mT[None]).mT)
