"""Linear motions that are known, found on grids of any kind: errors in mm at the corners of the fixed image."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from scipy.spatial.transform import Rotation

from pullback.alignment import Alignment, Pair
from pullback.energies import LNCC, MI, MSE, NGF
from pullback.errors import InputError
from pullback.numerics.random import make_generator
from pullback.solvers import LinearStage, within_view
from pullback.space import Affine, Displacement, Grid, Image, Motion, pull

SHAPES = ((34, 30, 32), (30, 36, 31))


@pytest.fixture(scope="module")
def scene(waves, oblique):
    """Fixed and moving grids, and pictures of one pattern: a lobed body, carried by a motion, in a contrast."""

    def make(ndim: int):
        value = waves(ndim, 1, 11.0, count=6)
        grids = [oblique(shape[:ndim], seed, 1.0, 1.4) for shape, seed in zip(SHAPES, (1, 4), strict=True)]

        def picture(grid: Grid, placed: Affine, contrast=lambda x: x) -> Image:
            home = placed.inverse().at(grid.to_world(grid.voxels(placed.matrix)[None]))
            body = torch.sigmoid(1.5 * (13 - home.norm(dim=1, keepdim=True)))
            return Image((contrast((value(home) + 1) / 2) * body).float(), grid)

        return grids, picture

    return make


def corners(grid: Grid) -> torch.Tensor:
    ends = torch.tensor(list(itertools.product(*[(0.0, n - 1.0) for n in grid.shape])), dtype=torch.float64)
    return grid.to_world(ends.T[None])[0].T


def apart(one, other, grid: Grid) -> float:
    """The greatest distance at the corners, mm."""
    return float((one(corners(grid)) - other(corners(grid))).norm(dim=1).max())


def motion(kind, ndim: int, size: float, seed: int = 3) -> Affine:
    some = kind(Affine.identity(ndim), Grid.centred((30,) * ndim))
    drawn = torch.randn(len(some.coefficients), dtype=torch.float64, generator=make_generator(seed))
    return Affine(some.with_params(size * drawn).matrix)


def turn(ndim: int, degrees: float, shift: float = 0.0) -> Affine:
    matrix = torch.eye(ndim + 1, dtype=torch.float64)
    axis = torch.tensor([0.0, 0, 1] if ndim == 2 else [0.6, -0.64, 0.48], dtype=torch.float64)
    matrix[:ndim, :ndim] = torch.from_numpy(
        Rotation.from_rotvec(math.radians(degrees) * axis.numpy()).as_matrix()[:ndim, :ndim]
    )
    matrix[:ndim, ndim] = shift
    return Affine(matrix)


@pytest.mark.slow
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("energy", [MI(), NGF(), LNCC(7), MSE()], ids=lambda e: type(e).__name__)
def test_a_rigid_motion_is_found_by_every_energy(scene, ndim, energy):
    (one, two), picture = scene(ndim)
    truth = motion(Motion.rigid, ndim, 2.0)
    fixed, moving = picture(one, Affine.identity(ndim)), picture(two, truth)
    found = LinearStage(Motion.rigid, energy)(fixed, moving).transform
    assert apart(Affine.identity(ndim), truth, one) > 1.9
    assert apart(found, truth, one) < 0.8 * float(one.spacing.min())
    linear = found.matrix[:-1, :-1]
    torch.testing.assert_close(linear @ linear.T, torch.eye(ndim, dtype=torch.float64))


@pytest.mark.slow
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("energy", [MI(), NGF(), LNCC(7), MSE()], ids=lambda e: type(e).__name__)
def test_an_affine_motion_is_found_by_every_energy(scene, ndim, energy):
    (one, two), picture = scene(ndim)
    truth = motion(Motion.affine, ndim, 1.2)
    fixed, moving = picture(one, Affine.identity(ndim)), picture(two, truth)
    found = LinearStage(Motion.affine, energy)(fixed, moving).transform
    assert apart(Affine.identity(ndim), truth, one) > 6
    assert apart(found, truth, one) < 1.25 * float(one.spacing.max())


@pytest.mark.slow
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("energy", [MI(), NGF()], ids=lambda e: type(e).__name__)
def test_inverted_contrast_does_not_matter(scene, ndim, energy):
    (one, two), picture = scene(ndim)
    truth = motion(Motion.rigid, ndim, 2.0)
    fixed, moving = picture(one, Affine.identity(ndim)), picture(two, truth, lambda x: 1 - x)
    found = LinearStage(Motion.rigid, energy)(fixed, moving).transform
    assert apart(found, truth, one) < 0.8 * float(one.spacing.min())


@pytest.mark.slow
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("energy", [MI(), NGF(), LNCC(7)], ids=lambda e: type(e).__name__)
def test_a_third_of_the_moving_image_may_be_missing(scene, ndim, energy):
    (one, two), picture = scene(ndim)
    truth = motion(Motion.rigid, ndim, 2.0)
    shape = (two.shape[0] * 2 // 3, *two.shape[1:])
    fixed, moving = picture(one, Affine.identity(ndim)), picture(Grid(shape, two.affine), truth)
    found = LinearStage(Motion.rigid, energy)(fixed, moving).transform
    assert apart(found, truth, one) < 1.25 * float(one.spacing.max())


@pytest.mark.slow
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("side", ["fixed", "moving"])
def test_an_artefact_under_the_mask_has_no_say(scene, ndim, side):
    """Three times as bright as anything else, in one image alone; unmasked it drags the answer along."""
    (one, two), picture = scene(ndim)
    truth = motion(Motion.rigid, ndim, 2.0)
    images = {"fixed": picture(one, Affine.identity(ndim)), "moving": picture(two, truth)}
    struck = images[side]
    away = struck.grid.to_world(struck.grid.voxels(struck.data)[None]) - torch.tensor([6.0, 2, -2][:ndim]).view(
        1, -1, *[1] * ndim
    )
    lesion = away.norm(dim=1, keepdim=True) < 5
    data = torch.where(lesion, 3.0, struck.data)
    errors = []
    for mask in (None, ~(away.norm(dim=1, keepdim=True) < 6.5)):
        pair = images | {side: Image(data, struck.grid, mask)}
        errors.append(apart(LinearStage(Motion.rigid, MSE())(**pair).transform, truth, one))
    assert errors[1] < float(one.spacing.min()) < 1.5 * errors[1] + errors[0]
    assert errors[0] > 1.5 * errors[1]


@pytest.mark.slow
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("degrees", [90.0, 176.0, 180.0])
def test_large_rotations_are_no_harder_than_small_ones(scene, ndim, degrees):
    """From a start 6° short of a truth that is anywhere on the group."""
    (one, two), picture = scene(ndim)
    truth = turn(ndim, degrees, 1.0)
    fixed, moving = picture(one, Affine.identity(ndim)), picture(two, truth)
    start = turn(ndim, degrees - 6, 0.0)
    found = LinearStage(Motion.rigid, MI())(fixed, moving, start=start).transform
    assert apart(found, truth, one) < 0.5 * float(one.spacing.min()) < apart(start, truth, one)


@pytest.mark.slow
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("kind", [Motion.rigid, Motion.affine], ids=["rigid", "affine"])
def test_the_answer_is_no_worse_than_the_start(scene, ndim, kind):
    """On one level, whose energy is what is descended; from the truth and from elsewhere."""
    (one, two), picture = scene(ndim)
    truth = motion(kind, ndim, 1.5)
    fixed, moving = picture(one, Affine.identity(ndim)), within_view(picture(two, truth))
    for energy, start in itertools.product((MI(), LNCC(7)), (truth, Affine.identity(ndim))):
        objective = energy.on(Pair(fixed, moving))
        assert (
            float(objective(LinearStage(kind, energy)(fixed, moving, start).transform))
            <= float(objective(start)) + 1e-6
        )


@pytest.mark.slow
@pytest.mark.parametrize("ndim", [2, 3])
def test_levels_find_what_one_resolution_misses(oblique, waves, ndim):
    """Half a wavelength away and more; to within a voxel at the corners."""
    grid = Grid.centred((60, 56, 52)[:ndim], 0.7)
    value, truth = waves(ndim, 2, 6.0, count=6), turn(ndim, 5.0, 3.5)

    def picture(placed):
        home = placed.inverse().at(grid.to_world(grid.voxels(placed.matrix)[None]))
        return Image(((value(home) + 2) * torch.sigmoid(2 * (11 - home.norm(dim=1, keepdim=True)))).float(), grid)

    found = LinearStage(Motion.rigid, MI())(picture(Affine.identity(ndim)), picture(truth)).transform
    assert apart(found, truth, grid) < 0.7


def test_what_it_answers_and_what_it_leaves_alone(scene):
    (one, two), picture = scene(2)
    fixed, moving = picture(one, Affine.identity(2)), picture(two, motion(Motion.rigid, 2, 2.0))
    before = [image.data.clone() for image in (fixed, moving)]
    first, second = (LinearStage()(fixed, moving) for _ in range(2))
    assert isinstance(first, Alignment)
    assert first.pair.moving is moving, "the mask of its view is its own affair"
    assert isinstance(first.transform, Affine)
    assert not first.transform.matrix.requires_grad
    assert torch.equal(first.transform.matrix, second.transform.matrix)
    assert all(torch.equal(a, image.data) for a, image in zip(before, (fixed, moving), strict=True))


def test_a_view_ends_before_the_image_fades():
    """Shifted by 1.6 voxels: the last voxel that is seen lies between two voxels of the image."""
    grid = Grid.centred((8, 5))
    seen = within_view(Image(torch.ones(1, 1, 8, 5), grid))
    shift = torch.eye(3, dtype=torch.float64)
    for by in (0.0, 0.4, 1.6, -0.7):
        shift[0, 2] = by
        moved = pull(seen, Affine(shift), grid)
        assert bool(moved.mask.any())
        assert bool((moved.data[moved.mask] > 1 - 1e-5).all())
    own = replace(seen, mask=torch.zeros_like(seen.mask))
    assert within_view(own).mask is own.mask
    flat = Grid.centred((8, 5, 1))
    assert bool(within_view(Image(torch.ones(1, 1, 8, 5, 1), flat)).mask.any()), "a single slice is seen"


@pytest.mark.parametrize(("voxels", "kept"), [(1, 1), (2, 2), (5, 5), (11, 11), (12, 10), (30, 28)])
def test_thin_images_count_to_their_rim(voxels, kept, oblique):
    """Along a thin axis the outermost voxels are repeated instead of left out; nothing moves in the world."""
    grid = oblique((16, 20, voxels), 3)
    image = Image(torch.rand(1, 1, *grid.shape), grid)
    seen = within_view(image)
    assert int(seen.mask.sum()) == 14 * 18 * kept
    home = pull(seen, Affine.identity(3), grid)
    torch.testing.assert_close(home.data, image.data)
    rim = slice(None) if kept == voxels else slice(1, -1)
    assert bool(home.mask[..., 1:-1, 1:-1, rim].all())
    assert int(home.mask.sum()) == 14 * 18 * kept


def test_no_linear_motion_goes_on_from_a_field():
    image = Image(torch.rand(1, 1, 8, 9), Grid.centred((8, 9)))
    field = Displacement(torch.ones(1, 2, 8, 9), image.grid)
    with pytest.raises(InputError, match="go on from a Displacement, which deforms: put it before"):
        LinearStage()(image, image, start=field)
