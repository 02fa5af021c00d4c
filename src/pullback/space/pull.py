"""Warping: images are pulled, points are pushed."""

from dataclasses import replace
from typing import overload

import torch
from torch import Tensor

from pullback.numerics.sample import sample
from pullback.space.grid import Grid, transform_channels
from pullback.space.image import Image, Labels
from pullback.space.points import Points
from pullback.space.transform import Linear, Transform


@overload
def pull(
    image: Image, transform: Transform, onto: Grid | Image | Labels, mode: str = ..., outside: float | None = ...
) -> Image: ...
@overload
def pull(image: Labels, transform: Transform, onto: Grid | Image | Labels, mode: str = ...) -> Labels: ...
def pull(image, transform, onto, mode="linear", outside=None):
    """Return the image seen through `transform`: at each x of `onto`, the value of `image` at `transform(x)`.

    Beyond the image its value is `outside`. By default that is 0, also for labels; or, where the border of an image
    goes below 0, as the air about a CT does, the least value there.

    Args:
        image: an `Image` (interpolated by `mode`: `"linear"`, `"cubic"` or `"nearest"`; its mask travels with it, and
            voxels from beyond the image leave it) or `Labels` (always nearest, dtype kept).
        transform: takes points of `onto` to points of `image`.
        onto: the grid of the answer, or something that lies on it.
        outside: the value beyond an `Image`.

    Raises:
        ValueError: image and grid of different dimensions.
    """
    grid = onto if isinstance(onto, Grid) else onto.grid
    if grid.ndim != image.grid.ndim:
        raise ValueError(f"pull: a {image.grid.ndim}-D image cannot be pulled onto a {grid.ndim}-D grid")
    where = _where(image, transform, grid)
    if isinstance(image, Labels):
        return Labels(sample(image.data, where, "nearest"), grid)
    mask = None if image.mask is None else sample(image.mask, where, "nearest")
    beyond = _least_at_border(image) if outside is None else outside
    data = sample(image.data - beyond, where.to(image.data), mode) + beyond
    return replace(image, data=data, grid=grid, mask=mask)


def _least_at_border(image: Image) -> Tensor:
    """Return the least border value of each channel within the mask, `(B, C, 1, …)`; 0 where that is above 0."""
    axes = range(2, image.data.ndim)
    sides = []
    for axis in axes:
        for at in (0, image.data.shape[axis] - 1):
            side = image.data.detach().narrow(axis, at, 1)
            side = side if image.mask is None else side * image.mask.narrow(axis, at, 1)
            sides.append(side.flatten(2).amin(2))
    return torch.stack(sides).amin(0).clamp(max=0)[(...,) + (None,) * len(axes)]


def _where(image: Image | Labels, transform: Transform, grid: Grid) -> Tensor:
    """Return the voxel coordinates in `image` of each voxel of `grid`. On one shared grid all stays in voxels."""
    like = image.data
    if not like.is_floating_point():
        like = torch.empty(0, dtype=transform.params[0].dtype, device=like.device)
    to_image = torch.linalg.inv(image.grid.affine) @ grid.affine
    if isinstance(transform, Linear):  # one matrix in float64, instead of three roundings in float32
        frames = torch.linalg.inv(image.grid.affine) @ transform.matrix.to(grid.affine) @ grid.affine
        return transform_channels(frames, grid.voxels(like)[None])
    where = grid.voxels(like)[None] + transform.displacement(grid).to(like)
    return where if grid == image.grid else transform_channels(to_image, where)


def push(points: Points, transform: Transform) -> Points:
    """Move points of the fixed world to where they lie in the moving world; their columns stay as they are."""
    return replace(points, data=transform(points.data))
