"""One image on another grid of the same world."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pullback.numerics.separable import apply_along, cubic_weights, linear_weights
from pullback.numerics.smooth import antialiased
from pullback.space.grid import Grid
from pullback.space.image import Image, Labels
from pullback.space.isotropic import Box
from pullback.space.pull import pull
from pullback.space.transform import Affine

STRAIGHT = 1e-3  # voxels by which axes may part over a grid and still be one
SLIGHT = 1e-6  # a voxel's weight that is rounding, not its neighbourhood


def fitted(
    image: Image, spacing: float | None = None, shape: Sequence[int] | None = None, stretch: bool = False
) -> Grid:
    """A grid about the image's field of view, middle on middle to half a voxel, on orthonormal axes near to its own.

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
    """The image on a grid whose axes are near to its own, cubic between voxels and smoothed first where they grow.

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
    """By headers: along one axis after the other where the axes of both are the same, which is many times as fast."""
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
