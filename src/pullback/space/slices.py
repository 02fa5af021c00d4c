"""Slices in space: images one voxel thick, whose grid says where their plane lies and how thick it is."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pullback.numerics.sample import sample
from pullback.space.grid import Grid, transform_channels
from pullback.space.image import Image, Labels
from pullback.space.pull import pull
from pullback.space.transform import Linear, Transform

MOST_LAYERS = 5
SIGMA = 1 / (2 * math.sqrt(2 * math.log(2)))  # of a Gaussian, as a share of its width at half height


def through_axis(grid: Grid) -> int:
    """Return the axis along which a slice is one voxel thick.

    Raises:
        ValueError: the grid is no slice in space: three axes, one of them of one voxel.
    """
    if grid.ndim != 3 or grid.shape.count(1) != 1:
        raise ValueError(f"a slice in space has three axes, one of them one voxel thick; got {grid}")
    return grid.shape.index(1)


def slice_frame(grid: Grid) -> Tensor:
    """Return the frame of a slice, `(4, 4)`: columns its two axes, its normal, and the middle of the slice in RAS mm.

    The axes are orthonormal and right-handed; the first is that of the grid, the normal that of the plane.

    Raises:
        ValueError: the grid is no slice in space.
    """
    across = through_axis(grid)
    one, two = (grid.affine[:3, axis] for axis in range(3) if axis != across)
    right = one / one.norm()
    normal = torch.linalg.cross(right, two)
    normal = normal / normal.norm()
    frame = torch.eye(4, dtype=torch.float64)
    frame[:3, :3] = torch.stack([right, torch.linalg.cross(normal, right), normal], 1)
    frame[:3, 3] = grid.centre
    return frame


def layers_of(onto: Grid, volume: Grid) -> int:
    """Return into how many layers a slice is cut to be emulated: odd, no thicker than the volume's voxels, 5 at most.

    Raises:
        ValueError: the slice is none.
    """
    thickness = float(onto.spacing[through_axis(onto)])
    needed = math.ceil(thickness / float(volume.spacing.min()) - 1e-6)
    return min(needed + 1 - needed % 2, MOST_LAYERS)


def emulated(volume: Image, transform: Transform, onto: Image | Grid, layers: int | None = None) -> Image:
    """Return what a slice would show of a volume: the mean through its thickness, on its grid.

    The profile is a Gaussian whose width at half height is the thickness. Layers lie evenly over twice the thickness;
    of a volume that is linear across the slice, any number of them shows the same.

    Args:
        volume: `(B, C, X, Y, Z)`; its mask comes along, where all layers are within it.
        transform: points of the slice → points of the volume.
        onto: the slice, one voxel thick, or its grid.
        layers: odd; by default as of `layers_of`. One layer has no thickness.

    Raises:
        ValueError: the grid is no slice in space, or the number of layers is even.
    """
    grid = onto if isinstance(onto, Grid) else onto.grid
    across = through_axis(grid)
    count = layers_of(grid, volume.grid) if layers is None else layers
    if count % 2 == 0:
        raise ValueError(f"emulated: an odd number of layers expected, got {count}")
    if count == 1:
        return pull(volume, transform, onto=grid)
    at = (2 * torch.arange(count, dtype=torch.float64) + 1 - count) / count  # of the thickness, −1 … 1
    weights = torch.exp(-0.5 * (at / SIGMA) ** 2)
    affine = grid.affine.clone()
    affine[:3, 3] += at[0] * affine[:3, across]
    affine[:3, across] *= 2 / count
    shape = tuple(count if axis == across else n for axis, n in enumerate(grid.shape))
    seen = pull(volume, transform, onto=Grid(shape, affine))
    weights = (weights / weights.sum()).to(seen.data).view([-1 if axis == across else 1 for axis in range(3)])
    data = (seen.data * weights).sum(2 + across, keepdim=True)
    mask = None if seen.mask is None else seen.mask.all(2 + across, keepdim=True)
    return replace(seen, data=data, grid=grid, mask=mask)


def laid_in(slices: Sequence[Image], poses: Sequence[Linear], onto: Grid) -> tuple[Image, Labels]:
    """Return slices laid into the grid of a volume: their mean where there are any, else 0, and how many there are.

    A voxel has a slice where its middle lies within the slice's thickness, or within half a voxel where slices are
    thinner than that.

    Args:
        slices: `(1, 1, X, Y, 1)`, one voxel thick along any axis; only within their masks.
        poses: of each, points of the slice → points of the volume.
        onto: the grid of the volume.

    Raises:
        ValueError: one is no slice in space.
    """
    total, count = torch.zeros(onto.shape), torch.zeros(onto.shape, dtype=torch.uint8)
    edge = float(onto.spacing.min())
    for one, pose in zip(slices, poses, strict=True):
        across = through_axis(one.grid)
        keep = [axis for axis in range(3) if axis != across]
        reach = max(0.5, 0.5 * edge / float(one.grid.spacing[across]))
        into = torch.linalg.inv(one.grid.affine) @ torch.linalg.inv(pose.matrix.double()) @ onto.affine
        flat = one.data.float().reshape(1, 1, *(one.grid.shape[axis] for axis in keep))
        inside = torch.ones_like(flat, dtype=torch.bool) if one.mask is None else one.mask.reshape(flat.shape)
        ends = torch.tensor(flat.shape[2:]).double().view(2, 1) - 0.5
        for first in range(onto.shape[0]):  # a sheet at a time: coordinates of a whole volume are large
            sheet = Grid((1, *onto.shape[1:]), onto.affine)
            at = sheet.voxels(into)[None].flatten(2)
            at[:, 0] += first
            where = transform_channels(into, at)
            there = (where[0, across].abs() <= reach) & ((where[0, keep] >= -0.5) & (where[0, keep] <= ends)).all(0)
            if not there.any():
                continue
            flats = where[:, keep][:, :, there]
            seen = sample(inside, flats, "nearest")[0, 0]
            total[first].view(-1)[there] += torch.where(seen, sample(flat, flats, padding="border")[0, 0], 0)
            count[first].view(-1)[there] += seen.to(torch.uint8)
    return Image((total / count.clamp(min=1))[None, None], onto), Labels(count[None, None], onto)
