"""Warping: images are pulled, points are pushed."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import overload

import torch
from torch import Tensor

from pullback.numerics.sample import coverage, sample, spline_coefficients
from pullback.space.fields import Displacement
from pullback.space.grid import Grid, transform_channels
from pullback.space.image import Image, Labels
from pullback.space.points import Points
from pullback.space.transform import Linear, Transform

SLAB = 2**16  # voxels: what is computed for each of them, some 300 bytes, stays near the processor


@overload
def pull(
    image: Image, transform: Transform, onto: Grid | Image | Labels, mode: str = ..., outside: float | None = ...
) -> Image: ...
@overload
def pull(image: Labels, transform: Transform, onto: Grid | Image | Labels, mode: str = ...) -> Labels: ...
def pull(image, transform, onto, mode="linear", outside=None):
    """Return the image seen through `transform`: at each x of `onto`, the value of `image` at `transform(x)`.

    Beyond the image its value is `outside`. By default that is 0, also for labels; or, where the border of an image
    goes below 0, as the air about a CT does, the least value there. It enters by the share of a voxel that comes from
    beyond, so that a background far below the data costs no digit of them.

    Args:
        image: an `Image` (interpolated by `mode`: `"linear"`, `"cubic"` or `"nearest"`; its mask travels with it, and
            voxels from beyond the image leave it) or `Labels` (always nearest, dtype kept).
        transform: takes points of `onto` to points of `image`.
        onto: the grid of the answer, or something that lies on it.
        outside: the value beyond an `Image`.

    Raises:
        ValueError: image and grid of different dimensions.
    """
    grid = _grid(image, onto)
    if isinstance(image, Labels):
        like = torch.empty(0, dtype=transform.params[0].dtype, device=image.data.device)
        return Labels(sample(image.data, coordinates(image.grid, transform, grid, like), "nearest"), grid)
    where = coordinates(image.grid, transform, grid, image.data)
    mask = None if image.mask is None else sample(image.mask, where, "nearest")
    beyond = least_at_border(image.data, image.mask) if outside is None else _number(outside, image.data)
    return replace(image, data=_filled(image.data, where, mode, mode, beyond), grid=grid, mask=mask)


@overload
def pull_in_slabs(
    image: Image, transform: Transform, onto: Grid | Image | Labels, mode: str = ..., outside: float | None = ...
) -> Image: ...
@overload
def pull_in_slabs(
    image: Labels, transform: Transform, onto: Grid | Image | Labels, mode: str = ..., outside: float | None = ...
) -> Labels: ...
@torch.no_grad()
def pull_in_slabs(image, transform, onto, mode="linear", outside=None):
    """Return the image seen through `transform`, as `pull` does, exactly and in little memory, without gradient.

    Coordinates are doubles: through the identity every voxel keeps its number. The answer is made slab by slab along
    its first axis, so that besides it and the image only a slab is held at a time; and the spline of `"cubic"`.
    `Labels` may have an `outside`, too, which their type must hold. A mask of the image is left out.

    Raises:
        ValueError: image and grid of different dimensions.
    """
    grid = _grid(image, onto)
    mode = "nearest" if isinstance(image, Labels) else mode
    known = (spline_coefficients(image.data) if mode == "cubic" else image.data).contiguous()  # or each slab copies it
    if outside is None and isinstance(image, Image):
        beyond = least_at_border(image.data)
    else:
        beyond = _number(outside or 0, image.data)
    like = torch.empty(0, dtype=torch.float64, device=image.data.device)
    batch = max(len(image.data), transform.batch)
    data = torch.empty(batch, image.data.shape[1], *grid.shape, dtype=image.data.dtype, device=image.data.device)
    for first, slab in _slabs(grid):
        where = coordinates(image.grid, transform, slab, like)
        data[:, :, first : first + slab.shape[0]] = _filled(
            known, where, "spline" if mode == "cubic" else mode, mode, beyond
        )
    return Labels(data, grid) if isinstance(image, Labels) else Image(data, grid)


@torch.no_grad()
def pull_smooth_labels(labels: Labels, transform: Transform, onto: Grid | Image | Labels) -> Labels:
    """Return labels seen through `transform` with smooth borders: each linearly, and the greatest share wins.

    Where two have as much, it is the nearest voxel's, if that is one of them; beyond their image labels are 0. In
    memory are, besides the labels and the answer, the shares of one label and the greatest so far.

    Raises:
        ValueError: labels and grid of different dimensions.
    """
    grid = _grid(labels, onto)
    nearest = pull_in_slabs(labels, transform, grid)
    like = torch.empty(0, dtype=torch.float64, device=labels.data.device)
    data, most = torch.zeros_like(nearest.data), torch.zeros(nearest.data.shape, device=labels.data.device)
    for value in labels.data.unique().tolist():
        inside = (labels.data != 0 if value == 0 else labels.data == value).float()
        for first, slab in _slabs(grid):
            here = (slice(None), slice(None), slice(first, first + slab.shape[0]))
            share = sample(inside, coordinates(labels.grid, transform, slab, like), "linear")
            share = 1 - share if value == 0 else share
            wins = (share > most[here]) | ((share == most[here]) & (nearest.data[here] == value))
            data[here] = torch.where(wins, value, data[here])
            most[here] = torch.maximum(most[here], share)
    return Labels(data, grid)


def _slabs(grid: Grid) -> Iterator[tuple[int, Grid]]:
    """Yield slabs of a grid along its first axis, and the index at which each begins."""
    thick = max(1, SLAB // math.prod(grid.shape[1:]))
    for first in range(0, grid.shape[0], thick):
        affine = grid.affine.clone()
        affine[:-1, -1] += first * affine[:-1, 0]
        yield first, Grid((min(thick, grid.shape[0] - first), *grid.shape[1:]), affine)


def _grid(image: Image | Labels, onto: Grid | Image | Labels) -> Grid:
    grid = onto if isinstance(onto, Grid) else onto.grid
    if grid.ndim != image.grid.ndim:
        raise ValueError(f"pull: a {image.grid.ndim}-D image cannot be pulled onto a {grid.ndim}-D grid")
    return grid


def _filled(values: Tensor, where: Tensor, sampled: str, mode: str, beyond: Tensor) -> Tensor:
    """Sample values, by their coefficients or as they are, with `beyond` `(B, C, 1, …)` where they end."""
    data = sample(values, where, sampled)
    if beyond.device.type == "cpu" and not beyond.any():
        return data
    share = coverage(where, tuple(values.shape[2:]), mode)
    if mode == "nearest":
        return torch.where(share > 0, data, beyond)
    return torch.where(share < 1, data + beyond * (1 - share).to(data), data)


def _number(value: float, like: Tensor) -> Tensor:
    return torch.full((1, 1, *[1] * (like.ndim - 2)), value, dtype=like.dtype, device=like.device)


def displacement_in_slabs(transform: Transform, grid: Grid) -> Displacement:
    """Return the displacement of a transform on a grid, made slab by slab, so that little more than it is held."""
    with torch.no_grad():
        return Displacement(torch.cat([transform.displacement(slab) for _, slab in _slabs(grid)], 2), grid)


def least_at_border(data: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the least border value of each channel of data `(B, C, *spatial)` within a mask, `(B, C, 1, …)`.

    It is 0 where that is above 0.
    """
    axes = range(2, data.ndim)
    sides = []
    for axis in axes:
        for at in (0, data.shape[axis] - 1):
            side = data.detach().narrow(axis, at, 1)
            side = side if mask is None else side * mask.narrow(axis, at, 1)
            sides.append(side.flatten(2).amin(2))
    return torch.stack(sides).amin(0).clamp(max=0)[(...,) + (None,) * len(axes)]


def coordinates(own: Grid, transform: Transform, grid: Grid, like: Tensor) -> Tensor:
    """Return the voxel coordinates on `own` of each voxel of `grid`, moved by `transform`: `(B, d, *grid.shape)`.

    They have the dtype and device of `like`. On one shared grid all stays in voxels.
    """
    if isinstance(transform, Linear):  # one matrix in float64, instead of three roundings in float32
        return transform_channels(transform.in_voxels(grid, own), grid.voxels(like)[None])
    where = grid.voxels(like)[None] + transform.displacement(grid).to(like)
    return where if grid == own else transform_channels(torch.linalg.inv(own.affine) @ grid.affine, where)


def push(points: Points, transform: Transform) -> Points:
    """Move points of the fixed world to where they lie in the moving world; their columns stay as they are."""
    return replace(points, data=transform(points.data))
