"""Isotropic lattices: orthonormal, within the image, and nothing moves in the world."""

import pytest
import torch

from pullback.errors import InputError
from pullback.space import Box, Grid, Image, isotropic

SHAPES = [(17, 23), (12, 15, 10)]


def coordinates(grid: Grid) -> torch.Tensor:
    """Where each voxel is, mm: an image that linear interpolation keeps."""
    return grid.to_world(grid.voxels(torch.zeros((), dtype=torch.float64))[None])


def sheared(grid: Grid) -> Grid:
    affine = grid.affine.clone()
    affine[:-1, 1] += 0.4 * affine[:-1, 0]
    return Grid(grid.shape, affine)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shear", [False, True])
@pytest.mark.parametrize("spacing", [0.5, 0.7])
def test_voxels_are_where_the_image_says(shape, shear, spacing, oblique):
    """Seen through its mask, the image of the coordinates is the coordinates of the lattice."""
    grid = sheared(oblique(shape, 3)) if shear else oblique(shape, 3)
    out = isotropic(Image(coordinates(grid), grid), spacing)
    axes = out.grid.affine[:-1, :-1] / spacing
    torch.testing.assert_close(axes.T @ axes, torch.eye(len(shape), dtype=torch.float64))
    last = torch.tensor(grid.shape).view(1, -1, *[1] * len(shape)) - 1
    at = grid.to_voxels(coordinates(out.grid))
    inside = ((at >= 0) & (at <= last)).all(1, keepdim=True)
    assert bool(inside.all()) is not shear
    assert bool(out.mask[inside].all())
    where = inside.expand_as(out.data)
    torch.testing.assert_close(out.data[where], coordinates(out.grid)[where], atol=1e-9, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_box_of_a_mask(shape, oblique):
    """Its corners are those of the outermost voxels inside."""
    grid = oblique(shape, 5)
    mask = torch.zeros(1, 1, *shape, dtype=torch.bool)
    inner = [(2, n - 4) for n in shape]
    mask[(0, 0, *(slice(low, high + 1) for low, high in inner))] = True
    box = Box.of(Image(coordinates(grid)[:, :1], grid, mask))
    extents = torch.tensor([high - low for low, high in inner]) * grid.spacing
    torch.testing.assert_close(box.edges.sort().values, extents.sort().values)
    middle = torch.tensor([(low + high) / 2 for low, high in inner], dtype=torch.float64).view(1, -1, 1)
    torch.testing.assert_close(box.axes @ ((box.low + box.high) / 2), grid.to_world(middle)[0, :, 0])


def test_an_empty_mask_has_no_box():
    grid = Grid.centred((5, 5))
    data = torch.zeros(1, 1, 5, 5)
    with pytest.raises(InputError, match="mask is empty"):
        Box.of(Image(data, grid, torch.zeros_like(data, dtype=torch.bool)))
