"""The upper end of a femur: a head, a neck, a trochanter and a shaft, as a distance; and radial slices through it."""

import math

import torch
from torch import Tensor

from pullback.space import Grid, Image, Labels

HEAD = 24.0  # mm, its radius; its middle is the world's origin
NECK = (34.0, 0.0, -30.0)  # its far end
RODS = (  # two ends and a radius
    ((0.0, 0.0, 0.0), NECK, 14.0),
    ((34.0, 4.0, -22.0), (38.0, -6.0, -34.0), 15.0),
    ((36.0, 0.0, -32.0), (28.0, 6.0, -110.0), 13.0),
)


def femur(points: Tensor) -> Tensor:
    """Return the distance in mm of points `(N, 3)` from the surface, below 0 within, `(N,)`."""
    parts = [points.norm(dim=1) - HEAD]
    for one, two, radius in RODS:
        start, way = torch.tensor(one).to(points), torch.tensor(two).to(points) - torch.tensor(one).to(points)
        share = ((points - start) @ way / way.square().sum()).clamp(0, 1)
        parts.append((points - start - share[:, None] * way).norm(dim=1) - radius)
    return torch.stack(parts).amin(0)


def femur_on(grid: Grid) -> Image:
    """Return that distance on a grid, `(1, 1, *shape)` float64."""
    points = grid.to_world(grid.voxels(torch.zeros(1).double())[None]).flatten(2)[0].T
    return Image(femur(points).view(1, 1, *grid.shape), grid)


def femur_in(grid: Grid) -> Labels:
    """Return the bone on a grid: 1 within it."""
    return Labels((femur_on(grid).data <= 0).to(torch.uint8), grid)


def neck_slices(count: int = 6, side: int = 56, edge: float = 2.0, thickness: float = 4.0) -> list[Grid]:
    """Return grids of slices through the axis of the neck, evenly about it, about a point 12 mm from the head's middle.

    The first axis of each lies across, the second along the neck.
    """
    axis = torch.tensor(NECK).double()
    axis, first = axis / axis.norm(), torch.tensor([0.0, 1, 0]).double()
    second, grids = torch.linalg.cross(axis, first), []
    for n in range(count):
        angle = math.pi * n / count
        across = math.cos(angle) * first + math.sin(angle) * second
        affine = torch.eye(4).double()
        affine[:3, :3] = torch.stack([across * edge, axis * edge, torch.linalg.cross(across, axis) * thickness], 1)
        affine[:3, 3] = 12 * axis - affine[:3, :2].sum(1) * (side - 1) / 2
        grids.append(Grid((side, side, 1), affine))
    return grids
