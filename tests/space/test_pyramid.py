"""What coarser looks keep: constants, places, masks; and what they let go."""

import math

import pytest
import torch

from pullback.numerics.random import make_generator
from pullback.space import Affine, Grid, Image, pull, resampled

SHAPES = [(26, 31), (19, 24, 21)]


def coarser(grid: Grid, factors: list[float]) -> list[float]:
    return [edge * factor for edge, factor in zip(grid.spacing.tolist(), factors, strict=False)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("factors", [[2.0, 2.0, 2.0], [4.0, 1.0, 3.0], [1.7, 2.9, 1.0], [0.5, 1.0, 0.7]])
def test_a_constant_stays_up_to_the_last_voxel(oblique, shape, factors):
    grid = oblique(shape, 1)
    image = resampled(Image(torch.full((1, 2, *shape), 3.5, dtype=torch.float64), grid), coarser(grid, factors))
    torch.testing.assert_close(image.data, torch.full_like(image.data, 3.5))
    wanted = torch.tensor(coarser(grid, factors), dtype=torch.float64)
    torch.testing.assert_close(image.grid.spacing, wanted)
    cosines = grid.affine[:-1, :-1] / grid.spacing
    torch.testing.assert_close(image.grid.affine[:-1, :-1] / image.grid.spacing, cosines)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("factors", [[2.0, 2.0, 2.0], [2.5, 1.0, 2.0], [1.5, 2.2, 1.0]])
def test_a_blob_stays_where_it_is(oblique, shape, factors):
    """Its centre of mass in the world, to a hundredth of a voxel; its mass per volume."""
    grid, d = oblique(shape, 2, 0.9, 1.1), len(shape)
    middle = grid.centre + 0.8
    where = grid.to_world(grid.voxels(middle)[None])
    away = (where - middle.view(1, d, *[1] * d)).square().sum(1, keepdim=True)
    blob = Image((-away / (2 * 2.0**2)).exp(), grid)
    found = resampled(blob, coarser(grid, factors))
    weight, there = found.data.flatten(), found.grid.to_world(found.grid.voxels(middle)[None])[0].flatten(1)
    torch.testing.assert_close(there @ weight / weight.sum(), middle, rtol=0, atol=0.02)
    volumes = [float(torch.linalg.det(image.grid.affine).abs() * image.data.sum()) for image in (blob, found)]
    assert volumes[1] == pytest.approx(volumes[0], rel=0.02)


@pytest.mark.parametrize(("factor", "wavelength"), [(2, 2.0), (4, 4.0), (4, 2.5), (8, 8.0), (8, 3.0)])
def test_waves_shorter_than_two_coarse_voxels_fade(factor, wavelength):
    """A sampled Gaussian leaves Σ exp(−2π²σ²(1/λ + m)²): of what would turn up as a constant, at λ = one coarse voxel,
    14 % at a factor of 2, 4 % at 4, 3 % at 8."""
    sigma = math.sqrt(factor**2 - 1) / math.sqrt(8 * math.log(2))
    left = sum(math.exp(-2 * (math.pi * sigma * (1 / wavelength + m)) ** 2) for m in (-1, 0, 1))
    grid = Grid.centred((96, 20))
    wave = (2 * math.pi / wavelength * torch.arange(96, dtype=torch.float64)).cos()[:, None].expand(1, 1, 96, 20)
    found = resampled(Image(wave, grid), (float(factor), 1.0)).data[..., 5:-5, :]
    assert float(found.abs().max()) <= left + 1e-3  # cut off at 4 σ
    assert left < 0.14


@pytest.mark.parametrize("shape", SHAPES)
def test_axes_that_stay_are_left_alone(oblique, shape):
    grid = oblique(shape, 3)
    image = Image(torch.rand(1, 1, *shape, dtype=torch.float64, generator=make_generator(1)), grid)
    own = grid.spacing.tolist()
    assert resampled(image, own) is image
    found = resampled(image, [2 * own[0], *own[1:]])
    assert found.grid.shape[1:] == shape[1:]
    only = image.data.clone()
    only[:, :, :, 3:] = 0  # the first three lines along the first axis, by themselves
    alone = resampled(Image(only, grid), [2 * own[0], *own[1:]])
    torch.testing.assert_close(alone.data[:, :, :, :3], found.data[:, :, :, :3])
    assert alone.data[:, :, :, 3:].abs().max() < 1e-12


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("factor", [1.6, 2.0, 3.0])
def test_masks_come_along_by_nearest_voxels_and_end_with_the_image(oblique, shape, factor):
    grid, d = oblique(shape, 4), len(shape)
    mask = torch.rand(1, 1, *shape, generator=make_generator(2)) < 0.6
    image = Image(torch.rand(1, 1, *shape, dtype=torch.float64, generator=make_generator(1)), grid, mask)
    found = resampled(image, coarser(grid, [factor] * d))
    assert found.mask.dtype == torch.bool
    at = (grid.to_voxels(found.grid.to_world(found.grid.voxels(image.data)[None]))[0] + 0.5).floor().long().flatten(1)
    inside = ((at >= 0) & (at < torch.tensor(shape)[:, None])).all(0)
    nearest = mask[0, 0][tuple(a.clamp(0, n - 1) for a, n in zip(at, shape, strict=True))] & inside
    assert torch.equal(found.mask.flatten(), nearest)


@pytest.mark.parametrize("shape", SHAPES)
def test_smooth_images_look_alike_at_all_levels(oblique, waves, shape):
    """A long wave, pulled onto the coarse grid or seen coarsely: one and the same but for the blur."""
    grid, d = oblique(shape, 5), len(shape)
    value = waves(d, 1, 25.0)
    image = Image(value(grid.to_world(grid.voxels(grid.affine)[None])), grid)
    found = resampled(image, coarser(grid, [2.0] * d))
    plain = pull(image, Affine.identity(d), onto=found.grid)
    core = (slice(None), slice(None), *[slice(2, -2)] * d)
    torch.testing.assert_close(found.data[core], plain.data[core], rtol=0, atol=0.06)
