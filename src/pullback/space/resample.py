"""Resampling of images on other grids, smoothed first where voxels grow."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pullback.numerics.sample import sample
from pullback.numerics.separable import apply_along, cubic_weights, linear_weights
from pullback.numerics.smooth import antialiased
from pullback.space.box import Box
from pullback.space.grid import Grid, transform_channels
from pullback.space.image import Image, Labels
from pullback.space.pull import pull
from pullback.space.transform import Affine, Transform

STRAIGHT = 1e-3  # voxels by which axes may part over a grid and still be one
SLIGHT = 1e-6  # a voxel's weight that is rounding, not its neighbourhood


def smoothed(image: Image, spacing: Tensor) -> Image:
    """Return the image with Gaussian smoothing along the axes whose voxels grow to `spacing` `(d,)` mm.

    The Gaussian takes a voxel's own width at half height to the new one.
    """
    return replace(image, data=antialiased(image.data, (spacing / image.grid.spacing).tolist()))


def resample(image: Image, grid: Grid, transform: Transform | None = None) -> Image:
    """Pull the image onto a grid, through a transform or by the headers alone, smoothed first where voxels grow.

    Voxel axes are taken to be near to each other, in their order.
    """
    return pull(smoothed(image, grid.spacing), transform or Affine.identity(grid.ndim), onto=grid)


def resampled(image: Image, spacing: Sequence[float]) -> Image:
    """Resample the image on its own axes, with voxels of `spacing` mm.

    The last voxels may lie up to one beyond the image: they repeat its border. The mask comes along, by nearest voxels,
    and ends where the image ends.
    """
    grid = image.grid.at_spacing(tuple(spacing))
    if grid == image.grid:
        return image
    smooth = smoothed(image, torch.tensor(tuple(spacing), dtype=torch.float64)).data
    where = transform_channels(torch.linalg.solve(image.grid.affine, grid.affine), grid.voxels(smooth)[None])
    mask = None if image.mask is None else sample(image.mask, where, "nearest")
    return replace(image, data=sample(smooth, where, padding="border"), grid=grid, mask=mask)


def isotropic(image: Image, spacing: float) -> Image:
    """Resample the image within its box, on orthonormal axes with voxels of `spacing` mm.

    No voxel centre lies beyond the box. The answer has a mask, which says where the image was (they differ where axes
    are sheared) and where it may be looked at.
    """
    box, d = Box.of(image), image.grid.ndim
    mask = torch.ones_like(image.data[:, :1], dtype=torch.bool) if image.mask is None else image.mask
    grid = box.lattice(box.filled(spacing), torch.full((d,), spacing, dtype=torch.float64))
    return resample(replace(image, mask=mask), grid)


def fitted(
    image: Image, spacing: float | None = None, shape: Sequence[int] | None = None, stretch: bool = False
) -> Grid:
    """Return a grid about the image's field of view, on orthonormal axes near its own, centred to half a voxel.

    Args:
        image: whose mask plays no part.
        spacing: of the voxels, mm. With a shape they are larger where that takes it for all of the image to lie within.
        shape: of the grid. Without a spacing, one factor for all axes makes the image as large as fits.
        stretch: fill the shape along every axis, by voxels of as many lengths.

    Raises:
        ValueError: neither spacing nor shape.
    """
    box = Box.of(replace(image, mask=None))
    least = torch.full((image.grid.ndim,), spacing or 0.0, dtype=torch.float64)
    if shape is None:
        if spacing is None:
            raise ValueError("fitted: a spacing or a shape is expected")
        return box.lattice(box.filled(float(least[0])), least)
    filling = box.edges / (torch.tensor(shape) - 1)
    return box.lattice(tuple(shape), filling if stretch else filling.max().maximum(least))


def resliced(image: Image, grid: Grid, finest: float = 0.0) -> Image:
    """Resample the image on a grid whose axes are near its own, cubic between voxels, smoothed where they grow.

    Values stay within those of the image, which cubic splines overshoot, and where all voxels about a new one have the
    least value it has that too, so that an empty background stays empty; beyond the image the least value is repeated.
    The mask comes along by nearest voxels.

    Args:
        finest: voxels that are finer than this are smoothed as if they were so large, mm.
    """
    low, high = image.data.amin(), image.data.amax()
    ratios = (grid.spacing.clamp(min=finest) / image.grid.spacing).tolist()
    smooth = Image(antialiased(image.data - low, ratios), image.grid)
    data = _between(smooth, grid, "cubic").clamp(min=torch.zeros_like(low), max=high - low)
    lit = _between(Image((smooth.data > 0).to(data), image.grid), grid, "linear") > SLIGHT
    data = data * lit + low
    if image.mask is None:
        return Image(data, grid)
    mask = pull(Labels(image.mask.to(torch.uint8), image.grid), Affine.identity(grid.ndim), onto=grid)
    return Image(data, grid, mask.data > 0)


def _between(image: Image, grid: Grid, mode: str) -> Tensor:
    """Interpolate an image at the voxels of `grid`, as the headers say.

    Where both grids have the same axes it goes axis by axis, which is many times as fast.
    """
    frames = torch.linalg.solve(image.grid.affine, grid.affine)
    steps, first = frames[:-1, :-1].diagonal(), frames[:-1, -1]
    astray = (frames[:-1, :-1] - steps.diag()).abs() @ torch.tensor(grid.shape, dtype=torch.float64)
    if astray.max() > STRAIGHT:
        return pull(image, Affine.identity(grid.ndim), grid, mode).data
    weights = {"linear": linear_weights, "cubic": cubic_weights}[mode]
    out = image.data
    for axis, n in enumerate(grid.shape):
        where = first[axis] + steps[axis] * torch.arange(n, dtype=torch.float64)
        out = apply_along(weights(where, image.grid.shape[axis]).to(out), out, axis)
    return out
