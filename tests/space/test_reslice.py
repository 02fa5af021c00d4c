"""Other grids of the same world: nothing moves, nothing is made up, and ITK agrees."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from pullback.errors import InputError
from pullback.numerics.random import make_generator
from pullback.space import Affine, Box, Grid, Image, Labels, around, cropped, fitted, pull, resliced

SHAPES = [(26, 31), (19, 24, 21)]


def corners(grid: Grid) -> torch.Tensor:
    """Of the outermost voxel centres, mm, `(2**d, d)`."""
    ends = torch.cartesian_prod(*[torch.tensor([0.0, n - 1], dtype=torch.float64) for n in grid.shape])
    return grid.to_world(ends.T[None])[0].T


def within(inner: Grid, outer: Grid, slack: float = 1e-6) -> bool:
    at = outer.to_voxels(corners(inner).T[None])[0]
    return bool(((at > -slack) & (at < torch.tensor(outer.shape).view(-1, 1) - 1 + slack)).all())


def sheared(grid: Grid) -> Grid:
    affine = grid.affine.clone()
    affine[:-1, 1] += 0.3 * affine[:-1, 0]
    return Grid(grid.shape, affine)


def noise(grid: Grid, seed: int = 0) -> Image:
    return Image(torch.rand(1, 1, *grid.shape, dtype=torch.float64, generator=make_generator(seed)), grid)


def wave(grid: Grid, waves) -> Image:
    where = grid.to_world(grid.voxels(torch.zeros((), dtype=torch.float64))[None])
    return Image(3 + waves(grid.ndim, 1, 18.0)(where), grid)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spacing", [0.8, 1.3])
def test_a_spacing_is_met_and_no_voxel_lies_beyond(oblique, shape, spacing):
    grid = oblique(shape, 1)
    out = fitted(noise(grid), spacing)
    torch.testing.assert_close(out.spacing, torch.full((len(shape),), spacing, dtype=torch.float64))
    torch.testing.assert_close(out.centre, grid.centre)
    assert within(out, grid)
    reach = (torch.tensor(out.shape) - 1) * spacing
    assert bool(((torch.tensor(grid.shape) - 1) * grid.spacing - reach < spacing).all())


@pytest.mark.parametrize("shape", SHAPES)
def test_the_whole_image_lies_within_a_shape_and_touches_its_border(oblique, shape):
    grid, d = oblique(shape, 2), len(shape)
    out = fitted(noise(grid), shape=(16,) * d)
    assert out.shape == (16,) * d
    assert within(grid, out)
    assert float(out.spacing.max() - out.spacing.min()) < 1e-9
    assert not within(grid, Grid(out.shape, out.about_origin(out.shape).affine * 0.99)), "a hair smaller, it would not"
    assert float(torch.tensor(out.shape).min() - 1) * float(out.spacing[0]) == pytest.approx(
        float(((torch.tensor(grid.shape) - 1) * grid.spacing).max())
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_stretched_both_grids_have_the_same_corners(oblique, shape):
    grid, d = oblique(shape, 3), len(shape)
    out = fitted(noise(grid), shape=(16, 21, 18)[:d], stretch=True)
    torch.testing.assert_close(corners(out), corners(grid))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spacing", [None, 1.9, 2.1, 3.3])
@pytest.mark.parametrize("edge", [40, 41])
def test_middles_are_half_a_voxel_apart_at_most(oblique, shape, spacing, edge):
    grid, d = oblique(shape, 12), len(shape)
    out = fitted(noise(grid), spacing, (edge,) * d)
    assert within(grid, out, 1e-5)
    apart = out.to_voxels(grid.centre.view(1, -1, 1))[0, :, 0] - (edge - 1) / 2
    assert float(apart.abs().max()) <= 0.5 + 1e-5


@pytest.mark.parametrize("shape", SHAPES)
def test_with_a_shape_a_spacing_is_the_least(oblique, shape):
    grid, d = oblique(shape, 4), len(shape)
    needed = float(fitted(noise(grid), shape=(16,) * d).spacing[0])
    for spacing, found in ((0.5 * needed, needed), (1.5 * needed, 1.5 * needed)):
        out = fitted(noise(grid), spacing, (16,) * d)
        torch.testing.assert_close(out.spacing, torch.full((d,), found, dtype=torch.float64))
        assert within(grid, out)


def test_neither_spacing_nor_shape():
    with pytest.raises(ValueError, match="a spacing or a shape"):
        fitted(noise(Grid.centred((5, 5))))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("turned", [False, True])
def test_fine_voxels_as_itk_interpolates(to_sitk, oblique, shape, turned):
    """Finer voxels are not smoothed: the B-spline of ITK, along the axes as across them, but for what overshoots."""
    grid = sheared(oblique(shape, 5)) if turned else oblique(shape, 5)
    image = noise(grid)
    out = resliced(image, fitted(image, 0.45))
    if turned:  # ITK keeps no shear: voxel by voxel instead
        found, expected = out.data, pull(image, Affine.identity(len(shape)), out.grid, "cubic").data
        inside = ((at := grid.to_voxels(out.grid.to_world(out.grid.voxels(image.data)[None]))) >= 0) & (
            at <= torch.tensor(shape).view(1, -1, *[1] * len(shape)) - 1
        )
        inside = inside.all(1, keepdim=True)
        torch.testing.assert_close(found[inside], expected.clamp(image.data.min(), image.data.max())[inside])
        return
    theirs = to_sitk(image.data[0, 0].numpy(), grid.affine.numpy())
    onto = to_sitk(np.zeros(out.grid.shape), out.grid.affine.numpy())
    expected = sitk.GetArrayFromImage(sitk.Resample(theirs, onto, sitk.Transform(), sitk.sitkBSpline3)).T
    expected = expected.clip(float(image.data.min()), float(image.data.max()))
    core = tuple(slice(2, -2) for _ in shape)
    np.testing.assert_allclose(out.data[0, 0].numpy()[core], expected[core], atol=2e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_voxels_of_the_size_that_is_asked_for_are_only_padded(shape):
    """Whether what is added is even or odd: no voxel lies between two."""
    grid = Grid.centred(shape, 1.5)
    image = noise(grid)
    for more in (4, 5):
        out = resliced(image, fitted(image, 1.5, tuple(n + more for n in shape)))
        back = cropped(out, tuple(slice(2, 2 + n) for n in shape))
        assert back.grid == grid
        torch.testing.assert_close(back.data, image.data, rtol=0, atol=1e-9)
        assert float(out.data.sum() - back.data.sum()) == pytest.approx(
            float(image.data.min()) * (out.data.numel() - back.data.numel())
        )
    assert torch.equal(resliced(image, fitted(image, 1.5)).grid.affine, grid.affine)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("how", [{"spacing": 0.9}, {"shape": (48, 48, 48)}, {"shape": (40, 48, 44), "stretch": True}])
def test_there_and_back_by_headers_alone(oblique, waves, shape, how):
    """A smooth image comes back where it was: the affine of the answer is true."""
    grid, d = oblique(shape, 6), len(shape)
    image = wave(grid, waves)
    how = how | ({"shape": how["shape"][:d]} if "shape" in how else {})
    there = resliced(image, fitted(image, **how))
    back = pull(there, Affine.identity(d), onto=grid, mode="cubic")
    core = (slice(None), slice(None), *[slice(2, -2)] * d)
    torch.testing.assert_close(back.data[core], image.data[core], rtol=0, atol=0.01)


@pytest.mark.parametrize("shape", SHAPES)
def test_values_stay_within_and_the_least_lies_beyond(oblique, shape):
    grid, d = oblique(shape, 7), len(shape)
    image = Image(-1000 + 3000 * (noise(grid).data > 0.5).float(), grid)
    out = resliced(image, fitted(image, 0.6, (64,) * d))
    assert float(out.data.min()) == -1000
    assert float(out.data.max()) <= 2000
    outside = torch.tensor([0] * d)
    assert not within(Grid((2,) * d, out.grid.affine), grid), "the first voxels are padding"
    assert float(out.data[(0, 0, *outside)]) == -1000


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spacing", [0.6, 1.7])
@pytest.mark.parametrize("turned", [False, True])
def test_an_empty_background_stays_empty(oblique, shape, spacing, turned):
    """Farther than the smoothing reaches, 4 sigma, and a voxel; splines ring on for ever."""
    grid = sheared(oblique(shape, 7, 0.9, 1.1)) if turned else oblique(shape, 7, 0.9, 1.1)
    data = torch.full((1, 1, *shape), -1000.0)
    data[(0, 0, *[slice(8, 11)] * len(shape))] = 500.0
    out = resliced(Image(data, grid), fitted(Image(data, grid), spacing))
    at = grid.to_voxels(out.grid.to_world(out.grid.voxels(grid.affine)[None]))
    away = torch.maximum(8 - at, at - 10).amax(1, keepdim=True)  # voxels from the block along the farthest axis
    sigma = max((spacing / float(grid.spacing.min())) ** 2 - 1, 0) ** 0.5 / 2.355
    empty = away > 2 + 4 * sigma
    assert float(empty.float().mean()) > 0.15
    assert bool((out.data[empty] == -1000).all())
    assert float(out.data.max()) > 0


@pytest.mark.parametrize("shape", SHAPES)
def test_coarse_voxels_are_smoothed_and_fine_ones_that_are_to_look_coarse(oblique, shape):
    """White noise: its variance falls as voxels grow, and by as much where only the look is coarse."""
    grid = oblique(shape, 8, 0.9, 1.1)
    image = noise(grid)
    plain, coarse, looks = (
        resliced(image, fitted(image, s), f).data.var() for s, f in ((1.0, 0.0), (3.0, 0.0), (1.0, 3.0))
    )
    assert coarse < 0.35 * plain
    assert looks < 0.35 * plain
    constant = Image(torch.full_like(image.data, 7.0), grid)
    torch.testing.assert_close(
        resliced(constant, fitted(image, 2.5)).data.unique(), torch.tensor([7.0], dtype=torch.float64)
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_masks_come_along_as_labels_do(oblique, shape):
    grid, d = oblique(shape, 9), len(shape)
    mask = noise(grid, 1).data > 0.4
    image = Image(noise(grid).data, grid, mask)
    out = resliced(image, fitted(image, shape=(40,) * d))
    same = pull(Labels(mask.to(torch.uint8), grid), Affine.identity(d), onto=out.grid)
    assert torch.equal(out.mask, same.data.bool())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("margin", [0.0, 2.5, 1000.0])
def test_a_crop_holds_what_it_is_about_and_its_margin(oblique, shape, margin):
    grid, d = oblique(shape, 10), len(shape)
    where = torch.zeros(1, 1, *shape, dtype=torch.bool)
    inner = tuple(slice(6, n - 9) for n in shape)
    where[(0, 0, *inner)] = True
    image = noise(grid)
    out = cropped(image, around(where, grid, margin))
    assert within(out.grid, grid)
    back = pull(out, Affine.identity(d), onto=grid, mode="nearest")
    assert torch.equal(cropped(image, inner).data, cropped(back, inner).data), "the same voxels at the same places"
    first = out.grid.to_voxels(grid.to_world(torch.full((1, d, 1), 6.0, dtype=torch.float64)))[0, :, 0]
    for voxels, edge in zip(first.tolist(), grid.spacing.tolist(), strict=True):
        assert voxels == pytest.approx(min(np.ceil(margin / edge), 6), abs=1e-9)


def test_nothing_to_crop_around():
    grid = Grid.centred((5, 6))
    with pytest.raises(InputError, match="empty"):
        around(torch.zeros(1, 1, 5, 6, dtype=torch.bool), grid)


def test_a_box_has_its_lattice_in_its_middle(oblique):
    grid = oblique((9, 12, 10), 11)
    box = Box.of(noise(grid))
    out = box.lattice((4, 5, 6), torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64))
    torch.testing.assert_close(out.spacing, torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64))
    torch.testing.assert_close(out.centre, grid.centre)
