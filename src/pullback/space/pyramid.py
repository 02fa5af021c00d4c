"""Coarser looks at one image."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from pullback.numerics.sample import sample
from pullback.numerics.smooth import antialiased
from pullback.space.grid import transform_channels
from pullback.space.image import Image


def resampled(image: Image, spacing: Sequence[float]) -> Image:
    """The image on its own axes with voxels of `spacing` mm, smoothed first along axes whose voxels grow.

    The Gaussian takes a voxel's own width at half height to the new one. The last voxels may lie up to one beyond the
    image: they repeat its border. The mask comes along, by nearest voxels, and ends where the image ends.
    """
    grid = image.grid.at_spacing(tuple(spacing))
    if grid == image.grid:
        return image
    ratios = [new / old for new, old in zip(spacing, image.grid.spacing.tolist(), strict=True)]
    smooth = antialiased(image.data, ratios)
    where = transform_channels(torch.linalg.solve(image.grid.affine, grid.affine), grid.voxels(smooth)[None])
    mask = None if image.mask is None else sample(image.mask, where, "nearest")
    return replace(image, data=sample(smooth, where, padding="border"), grid=grid, mask=mask)
