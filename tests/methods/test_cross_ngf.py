"""CrossNGF: the map against a loop over all shifts, the search against motions that are known."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from pullback.errors import InputError
from pullback.methods.pose.cross_ngf import (
    EPS,
    SMALL,
    CrossNGF,
    Level,
    coarser,
    cross_similarity,
    lattices,
    separable_parts,
)
from pullback.numerics.random import make_generator
from pullback.numerics.rotation import uniform
from pullback.space import Affine, Grid, Image

QUICK = replace(  # the pictures below are small: little blur, fewer rotations; with 500 at first, chance decides
    SMALL,
    blur=(2.5, 2.5, 2.0, 1.5, 1.5, 1.0),
    downsampling=(3, 3, 2, 2, 2, 1),
    rotations=(1000, 300, 100, 60, 40, 0),
    kept=(20, 10, 3, 2, 1),
    voxels=80_000,
)


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=make_generator(seed))


def directions(image: np.ndarray) -> np.ndarray:
    """Equation 1, `(d, *spatial)`."""
    gradient = np.stack([correlate1d(image, [-0.5, 0, 0.5], axis, mode="nearest") for axis in range(image.ndim)])
    return gradient / np.sqrt((gradient**2).sum(0) + EPS**2)


def mean_at(shift, fixed, moving, fixed_mask, moving_mask) -> tuple[float, int]:
    """Equation 5 at one shift, as it is written, and how many voxels both masks share."""
    here, there = [], []
    for s, n, m in zip(shift, fixed_mask.shape, moving_mask.shape, strict=True):
        here.append(slice(max(0, -s), min(n, m - s)))
        there.append(slice(max(0, s), min(m, n + s)))
    both = fixed_mask[tuple(here)] & moving_mask[tuple(there)]
    cosine = (fixed[(slice(None), *here)] * moving[(slice(None), *there)]).sum(0)
    return float((cosine**2)[both].mean()) if both.any() else 0.0, int(both.sum())


@pytest.mark.parametrize(("a", "b"), [((13, 10), (9, 12)), ((7, 9, 6), (8, 6, 7))])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_the_map_as_a_loop_over_all_shifts(a, b, masked, overlap):
    fixed, moving = noise(*a, seed=1), noise(*b, seed=2)
    masks = [(noise(*n, seed=s) < 0.8) | torch.tensor(not masked) for n, s in ((a, 3), (b, 4))]
    values, first = cross_similarity(fixed, moving, *masks, overlap)
    one, two = directions(fixed.numpy()), directions(moving.numpy())
    least = max(overlap * min(int(m.sum()) for m in masks), 1)
    visited = 0
    for shift in itertools.product(*(range(1 - n, m) for n, m in zip(a, b, strict=True))):
        expected, count = mean_at(shift, one, two, *(m.numpy() for m in masks))
        index = tuple(s - f for s, f in zip(shift, first, strict=True))
        held = all(0 <= i < n for i, n in zip(index, values.shape, strict=True))
        if count >= least:
            assert held
            assert float(values[index]) == pytest.approx(expected, abs=1e-9)
            visited += 1
        else:
            assert not held or values[index] == -float("inf")
    assert visited == int(values.isfinite().sum()) > 0


@pytest.mark.parametrize("shape", [(6, 7), (5, 6, 4)])
def test_the_parts_multiply_to_the_squared_cosine(shape):
    """Equation 6, in 3-D with 6 parts and in 2-D with 3."""
    seen = torch.ones(1, 1, *shape, dtype=torch.bool)
    images = [noise(*shape, seed=s) for s in (5, 6)]
    one, two = (separable_parts(image[None, None], seen)[0, :-1] for image in images)
    assert len(one) == {2: 3, 3: 6}[len(shape)]
    expected = (directions(images[0].numpy()) * directions(images[1].numpy())).sum(0) ** 2
    np.testing.assert_allclose((one * two).sum(0).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("shape", [(6, 7), (5, 6, 4)])
def test_unsquared_the_map_is_the_mean_cosine_and_falls_where_contrast_is_inverted(shape):
    """Equation 3, at no shift; the squared one is the same for an image and its negative."""
    seen = torch.ones(shape, dtype=torch.bool)
    fixed, moving = (noise(*shape, seed=s) for s in (5, 6))
    values, first = cross_similarity(fixed, moving, seen, seen, squared=False)
    still = tuple(-f for f in first)
    expected = (directions(fixed.numpy()) * directions(moving.numpy())).sum(0).mean()
    assert float(values[still]) == pytest.approx(float(expected), abs=1e-9)
    inverted, _ = cross_similarity(fixed, 1 - moving, seen, seen, squared=False)
    torch.testing.assert_close(inverted, torch.where(values.isfinite(), -values, values))
    assert float(cross_similarity(fixed, fixed, seen, seen, squared=False)[0].max()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("change", [lambda x: 1 - x, lambda x: 0.2 + 0.5 * x])
def test_contrast_does_not_matter(change):
    fixed, moving = noise(12, 11, 10, seed=7), noise(12, 11, 10, seed=8)
    seen = torch.ones(12, 11, 10, dtype=torch.bool)
    before, after = (cross_similarity(fixed, m, seen, seen)[0] for m in (moving, change(moving)))
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)


CONTRASTS = {"same": lambda x: x, "inverted": lambda x: -x, "another": lambda x: (x - 0.1).square()}


def picture(value, grid: Grid, placed: Affine, contrast: str = "same") -> Image:
    """A pattern of the world, carried by `placed`, seen in a contrast."""
    home = placed.inverse().at(grid.to_world(grid.voxels(torch.zeros((), dtype=torch.float64))[None]))
    return Image(CONTRASTS[contrast](value(home)).float(), grid)


def motion(ndim: int, seed: int) -> Affine:
    matrix = torch.eye(ndim + 1, dtype=torch.float64)
    matrix[:ndim, :ndim] = uniform(ndim, 1, make_generator(seed))[0]
    matrix[:ndim, ndim] = torch.tensor([3.0, -2.5, 2.0][:ndim])
    return Affine(matrix)


@pytest.mark.slow
@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("ndim", [2, 3])
def test_any_rigid_motion_is_found_between_grids_of_any_kind(ndim, contrast, waves, oblique):
    """Oblique, flipped, anisotropic grids of different shapes, whole rotation group: to within a voxel everywhere."""
    value, truth = waves(ndim, 3, 13.0, count=6), motion(ndim, seed=11 + ndim)
    one, two = (oblique(shape[:ndim], s, 1.0, 1.5) for shape, s in (((34, 30, 32), 1), ((30, 36, 31), 4)))
    found = QUICK(picture(value, one, Affine.identity(ndim)), picture(value, two, truth, contrast))
    ball = torch.randn(1, 100, ndim, dtype=torch.float64, generator=make_generator(1))
    points = 10 * ball / ball.norm(dim=2, keepdim=True)
    error = (found.transform(points) - truth(points)).norm(dim=2)
    assert float(error.max()) < float(one.spacing.max())
    linear = found.transform.matrix[:ndim, :ndim]
    torch.testing.assert_close(linear @ linear.T, torch.eye(ndim, dtype=torch.float64))
    assert float(torch.linalg.det(linear)) == pytest.approx(1)
    assert found.stats.numbers["rival"] < found.stats.numbers["similarity"] <= 1


@pytest.mark.parametrize("contrast", ["same", "inverted"])
def test_the_search_by_the_unsquared_cosine_is_for_one_contrast(contrast, waves, oblique):
    value, truth = waves(2, 3, 13.0, count=6), motion(2, seed=13)
    one, two = oblique((34, 30), 1, 1.0, 1.5), oblique((30, 36), 4, 1.0, 1.5)
    pair = picture(value, one, Affine.identity(2)), picture(value, two, truth, contrast)
    points = torch.randn(1, 100, 2, dtype=torch.float64, generator=make_generator(1)) * 5
    for squared in (True, False):
        found = replace(QUICK, squared=squared)(*pair).transform
        right = float((found(points) - truth(points)).norm(dim=2).max()) < float(one.spacing.max())
        assert right == (squared or contrast == "same")


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_level_says_where_voxels_go(ndim, waves, oblique):
    """The transform of a rotation and a shift carries fixed voxel x onto lattice voxel x + χ."""
    images = [picture(waves(ndim, 3, 13.0), oblique((18, 15, 16)[:ndim], s), Affine.identity(ndim)) for s in (1, 4)]
    one, two = lattices(*images, voxels=20_000)
    level = Level.of(coarser(one, 1.0, 2), coarser(two, 1.0, 2), 0.5)
    rotation, shift = uniform(ndim, 1, make_generator(2))[0], torch.tensor([3.0, -2.0, 1.0][:ndim], dtype=torch.float64)
    voxel = torch.tensor([2.0, 5.0, 4.0][:ndim], dtype=torch.float64).view(1, ndim, 1)
    there = level.lattice.to_world(voxel + shift.view(1, ndim, 1))[0, :, 0]  # about the origin, not yet turned
    expected = level.moving.grid.centre + rotation @ there
    found = level.transform(rotation, shift).at(level.fixed.to_world(voxel))[0, :, 0]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_every_so_many_voxels_stay_where_they_were(factor):
    """Downsampled coordinates of the world, unblurred, are the coordinates of the coarser grid."""
    grid = Grid.centred((13, 14, 11), 1.7)
    for axis in range(3):
        where = grid.to_world(grid.voxels(torch.zeros((), dtype=torch.float64))[None])[:, axis : axis + 1]
        out = coarser(Image(where, grid, torch.ones_like(where, dtype=torch.bool)), 0.0, factor)
        torch.testing.assert_close(out.data[0, 0], out.grid.to_world(out.grid.voxels(where)[None])[0, axis])
        offset = (out.grid.centre - grid.centre).abs() / 1.7
        assert float(offset.max()) <= (factor - 1) / 2


def test_lattices_keep_within_the_voxels_allowed(waves, oblique):
    grids = [oblique((40, 20, 30), 1), oblique((25, 45, 20), 2)]
    images = [picture(waves(3, 3, 13.0), grid, Affine.identity(3)) for grid in grids]
    for voxels in (5_000, 50_000, 10**9):
        one, two = lattices(*images, voxels)
        assert torch.allclose(one.grid.spacing, two.grid.spacing)
        assert one.data.numel() <= 1.2 * voxels
        assert max(two.grid.shape) ** 3 <= 1.2 * voxels
        for image in (one, two):
            affine = image.grid.affine[:3, :3] / image.grid.spacing
            torch.testing.assert_close(affine.T @ affine, torch.eye(3, dtype=torch.float64))
            assert bool(image.mask.all()), "nothing of an unmasked, unsheared image's lattice lies beyond it"


def test_lattices_cover_the_mask_alone():
    data = noise(1, 1, 40, 40, seed=1)
    mask = torch.zeros(1, 1, 40, 40, dtype=torch.bool)
    mask[..., 10:20, 5:25] = True
    image = Image(data, Grid.centred((40, 40), 2.0), mask)
    one, _ = lattices(image, image, 10**6)
    ends = one.grid.to_world(torch.tensor([[[0.0, one.grid.shape[0] - 1], [0.0, one.grid.shape[1] - 1]]]).double())[0]
    expected = torch.tensor([[-19.0, -1.0], [-29.0, 9.0]], dtype=torch.float64)
    torch.testing.assert_close(ends, expected, atol=float(one.grid.spacing.max()), rtol=0)


def test_the_same_seed_gives_the_same_answer(waves, oblique):
    few = replace(QUICK, rotations=(20, 10, 5, 5, 2, 0))
    pair = [picture(waves(2, 3, 13.0), oblique((30, 26), s), Affine.identity(2)) for s in (1, 4)]
    before = [image.data.clone() for image in pair]
    one, two, other = few(*pair), few(*pair), replace(few, seed=1)(*pair)
    assert torch.equal(one.transform.matrix, two.transform.matrix)
    assert one.stats.numbers == two.stats.numbers
    assert not torch.equal(one.transform.matrix, other.transform.matrix)
    assert all(torch.equal(a, image.data) for a, image in zip(before, pair, strict=True))


def test_refusals():
    grid = Grid.centred((12, 12), 1.0)
    good = Image(noise(1, 1, 12, 12, seed=1), grid)
    empty = Image(good.data, grid, torch.zeros_like(good.data, dtype=torch.bool))
    with pytest.raises(InputError, match="mask is empty"):
        QUICK(good, empty)
    with pytest.raises(ValueError, match="2-D"):
        QUICK(good, Image(noise(1, 1, 6, 6, 6, seed=2), Grid.centred((6, 6, 6))))
    with pytest.raises(InputError, match="per level"):
        CrossNGF(blur=(5.0, 3.0))
    with pytest.raises(InputError, match="overlap"):
        replace(QUICK, rotations=(1, 0, 0, 0, 0, 0), overlap=2.0)(good, good)
