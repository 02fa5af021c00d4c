"""Coarser looks at one image."""

from collections.abc import Sequence

from pullback.numerics.smooth import gaussian
from pullback.space.image import Image
from pullback.space.pull import pull
from pullback.space.transform import Affine


def resampled(image: Image, spacing: Sequence[float]) -> Image:
    """The image on its own axes with voxels of `spacing` mm, smoothed first along axes whose voxels grow.

    The Gaussian takes a voxel's own width at half height to the new one. The mask comes along, by nearest voxels.
    """
    grid = image.grid.at_spacing(tuple(spacing))
    if grid == image.grid:
        return image
    ratios = [new / old for new, old in zip(spacing, image.grid.spacing.tolist(), strict=True)]
    sigmas = [max(r * r - 1, 0.0) ** 0.5 / 2.355 for r in ratios]
    smooth = Image(gaussian(image.data, sigmas), image.grid, image.mask)
    return pull(smooth, Affine.identity(grid.ndim), onto=grid)
