"""Log-demons: closed forms of the force, symmetry, ITK's demons beside ours, and the contract of a register."""

import math
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, strategies as st
from scipy.ndimage import gaussian_filter

from pullback.alignment import Alignment, Pair
from pullback.errors import InputError
from pullback.files import read_image
from pullback.methods.pair.log_demons import METHOD, LogDemons, demons_force, enough_squarings
from pullback.metrics import Folding
from pullback.numerics.integrate import compose, exponential, midpoint
from pullback.numerics.random import make_generator
from pullback.numerics.sample import voxels
from pullback.solvers import Levels, Stalled
from pullback.space import Affine, Displacement, Grid, Image, Velocity, pull
from pullback.testing import check_register, problems

NEVER = Stalled(1, -1.0)
FEW = LogDemons(iterations=40)
ONE_LEVEL = Levels(coarsest=1000)


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=make_generator(seed))


def mse(pair, transform):
    return float((Alignment(pair, transform).moved.data - pair.fixed.data).square().mean())


def smooth_pair():
    (problem,) = problems("smooth", ndim=2)
    return problem.double().pair


# the force


@pytest.mark.parametrize("shape", [(7, 8), (5, 6, 7)])
@pytest.mark.parametrize("ratio", [1.0, 2.5])
def test_force_of_a_ramp_beside_another(shape, ratio):
    """With δ the difference at each voxel and g the slope of the warped image alone: δ g / (|g|² + ratio² δ²)."""
    d = len(shape)
    slopes = torch.tensor([[0.9, 0.2, -0.6], [0.4, -1.1, 0.3]], dtype=torch.float64)[:, :d]
    still, warped = torch.einsum("na,a...->n...", slopes, voxels(shape, slopes))[:, None, None]
    difference, g = still - warped + 0.7, slopes[1].view(1, d, *[1] * d)
    expected = difference * g / (g.square().sum() + ratio**2 * difference**2)
    torch.testing.assert_close(demons_force(still + 3.7, warped + 3, ratio), expected, rtol=0, atol=1e-12)


@given(st.integers(0, 10**6), st.floats(0.3, 3), st.sampled_from([1e-6, 1.0, 1e6]), st.integers(1, 3))
def test_force_has_a_bound_and_no_unit_of_intensity(seed, ratio, scale, channels):
    still, warped = noise(2, 1, channels, 7, 6, seed=seed)
    force = demons_force(still, warped, ratio)
    assert force.norm(dim=1).max() <= 1 / (2 * ratio) + 1e-6
    torch.testing.assert_close(demons_force(scale * still, scale * warped, ratio), force, rtol=1e-6, atol=1e-9)
    each = [demons_force(a[:, None], b[:, None], ratio) for a, b in zip(still.unbind(1), warped.unbind(1), strict=True)]
    torch.testing.assert_close(force, torch.stack(each).mean(0))


def test_nothing_is_pushed_where_there_is_no_difference_or_no_slope():
    still = noise(1, 1, 8, 8)
    assert not demons_force(still, still).any()
    assert not demons_force(still, torch.full_like(still, 2.0)).any()


def test_force_points_downhill():
    """A short step along it brings the warped image nearer, wherever it is smooth."""
    pair = smooth_pair()
    still, warped = pair.fixed.data, pair.moving.data
    force = demons_force(still, warped)
    for size, better in ((0.1, True), (-0.1, False)):
        there = pull(pair.moving, Displacement(size * force, pair.fixed.grid), onto=pair.fixed).data
        assert (float((there - still).square().mean()) < float((warped - still).square().mean())) is better


# the velocity


def test_swapped_images_have_the_opposite_velocity():
    pair = smooth_pair()
    there, back = (replace(FEW, symmetric=symmetric) for symmetric in (True, False))
    for register, opposite in ((there, True), (back, False)):
        one = register(*pair.images).transform.field
        two = register(*reversed(pair.images)).transform.field
        assert one.abs().max() > 0.5
        assert bool((one + two).abs().max() < 1e-5) is opposite


@pytest.mark.parametrize("symmetric", [True, False])
def test_first_step_is_the_smoothed_force(symmetric):
    """From v = 0: the smoothing of both Gaussians, of the force or of half the difference of both."""
    pair = smooth_pair()
    still, moving = (image.data for image in pair.images)
    force = demons_force(still, moving)
    if symmetric:
        force = (force - demons_force(moving, still)) / 2
    register = LogDemons(fluid=1.5, diffusion=1.0, symmetric=symmetric, levels=ONE_LEVEL, iterations=2, until=NEVER)
    found = register(*pair.images)
    wide = np.hypot(1.5, 1.0)  # two Gaussians after one another, far from the border
    expected = np.stack([gaussian_filter(part.numpy(), wide, mode="nearest", truncate=6) for part in force[0]])
    inner = (slice(None), slice(12, -12), slice(12, -12))
    assert found.stats.energies[1] < found.stats.energies[0]
    np.testing.assert_allclose(found.transform.field[0].numpy()[inner], expected[inner], atol=2e-3)


def test_best_velocity_that_was_seen_is_kept():
    """Steps of up to ten voxels overshoot, and the answer is no worse than the least value."""
    pair = smooth_pair()
    wild = LogDemons(fluid=0.0, ratio=0.05, symmetric=False, levels=ONE_LEVEL, iterations=12, until=NEVER)
    found = wild(*pair.images)
    energies = found.stats.energies
    assert len(energies) == found.stats.steps == 12
    assert found.stats.stopped == "steps"
    assert energies[-1] > 1.1 * energies.min()
    # by border values where the moving image ends, and by an exponential with more squarings
    assert mse(pair, found.transform) == pytest.approx(float(energies.min()), rel=0.05)


def test_levels_go_on_from_each_other():
    """The finer level begins with the velocity that the coarser one ended with, by its own voxels."""
    pair = smooth_pair()
    both, coarse = (
        replace(FEW, symmetric=False, levels=Levels(finest, coarsest=12), until=NEVER)(*pair.images)
        for finest in (1, 2)
    )
    assert [len(found.stats.energies) for found in (both, coarse)] == [80, 40]
    assert float(both.stats.energies[40]) == pytest.approx(mse(pair, coarse.transform), rel=0.1)
    assert mse(pair, coarse.transform) < 0.3 * mse(pair, Affine.identity(2))


def test_stops_where_it_stalls():
    assert not Stalled(2, 0.1)([1.0, 0.5])
    assert not Stalled(2, 0.1)([1.0, 0.5, 0.3])
    assert Stalled(2, 0.1)([1.0, 0.5, 0.45, 0.41])
    assert Stalled(2, 0.1)([1.0, 0.5, 0.45, 0.59])
    assert not Stalled(1, 0.0)([2.0, 1.0])
    found = LogDemons(levels=ONE_LEVEL)(*smooth_pair().images)
    values = found.stats.energies.tolist()
    assert found.stats.stopped == "converged"
    assert len(values) < 250
    assert [Stalled()(values[:n]) for n in range(1, len(values) + 1)] == [False] * (len(values) - 1) + [True]


@pytest.mark.parametrize("longest", [0.0, 0.3, 0.49, 0.51, 3.9, 4.1])
def test_squarings_leave_steps_of_half_a_voxel(longest):
    velocity = torch.zeros(1, 2, 5, 5)
    velocity[0, :, 2, 2] = longest * torch.tensor([0.6, -0.8])
    squarings = enough_squarings(velocity)
    assert longest / 2**squarings <= 0.5 + 1e-6
    assert squarings == 0 or longest / 2 ** (squarings - 1) > 0.5


def test_exponential_of_the_descent_is_that_of_the_answer(smooth_field):
    """Few squarings from a midpoint step, against the seven of `Velocity`."""
    field = smooth_field((40, 36), 2, amplitude=2.0)
    ours = exponential(field, enough_squarings(field), midpoint)
    assert (ours - Velocity(field, Grid.centred((40, 36))).own_displacement).abs().max() < 0.05
    assert compose(ours, exponential(-field, enough_squarings(field), midpoint)).abs().max() < 0.1


def test_two_slices_as_itk(shared):
    """One level, 50 iterations, a sigma of 1: mean squared differences within a tenth of those of ITK's demons."""
    folder = shared / "data" / "oasis_trt20_2d" / "images"
    files = sorted(folder.glob("*.nii.gz"))[:2]
    images = [read_image(file) for file in files]
    fixed, moving = (replace(one, data=one.data.float() / one.data.max(), grid=images[0].grid) for one in images)
    pair = Pair(fixed, moving)
    filter_ = sitk.DiffeomorphicDemonsRegistrationFilter()
    filter_.SetNumberOfIterations(50)
    filter_.SetStandardDeviations(1.0)
    filter_.SetUseGradientType(filter_.WarpedMoving)
    field = filter_.Execute(*(sitk.GetImageFromArray(image.data[0, 0].numpy()) for image in pair.images))
    # (i, j, d) with d = (j, i) to (1, d, i, j)
    theirs = torch.from_numpy(sitk.GetArrayFromImage(field)).flip(-1).movedim(-1, 0)[None].float()
    register = LogDemons(fluid=0.0, symmetric=False, levels=ONE_LEVEL, iterations=50, until=NEVER)
    ours = register(*pair.images)
    ends = mse(pair, ours.transform), mse(pair, Displacement(theirs, fixed.grid))
    assert ends[0] == pytest.approx(ends[1], rel=0.1)
    assert ends[0] < 0.4 * mse(pair, Affine.identity(2))
    assert Folding()(Alignment(pair, ours.transform))["folding % (all)"] == 0


@pytest.mark.parametrize("flips", [(), (0,), (1,), (0, 1)])
def test_headers_do_not_matter(oblique, flips):
    """Turned, of unlike voxels and stored backwards: the same map in mm, to a twentieth of a voxel."""
    pair, plain = smooth_pair(), Grid.centred((46, 42), (1.5, 1.1))
    turn = oblique((46, 42), 3, 1.0, 1.0).affine[:2, :2]
    affine = torch.eye(3, dtype=torch.float64)
    affine[:2, :2] = turn
    data = [image.data.flip([2 + axis for axis in flips]) if flips else image.data for image in pair.images]
    stored = plain.affine.clone()
    for axis in flips:
        stored[:2, 2] += stored[:2, axis] * (plain.shape[axis] - 1)
        stored[:2, axis] *= -1
    straight = FEW(*(Image(image.data, plain) for image in pair.images)).transform
    other = FEW(*(Image(one, Grid(plain.shape, affine @ stored)) for one in data)).transform
    points = plain.to_world(plain.voxels(pair.fixed.data)[None]).flatten(2).mT
    there = (other(Affine(affine)(points)) - Affine(affine)(points)) @ turn
    off = (there - (straight(points) - points)).norm(dim=-1)
    assert off.max() < 0.05 * 1.1


def test_goes_on_from_a_start():
    (problem,) = problems("shift", ndim=2)
    start = problem.pair.truth
    found = FEW(*problem.pair.images, start=start)
    assert found.transform.parts[0].as_affine is not None
    assert problem.distance(found.transform) < 0.3 < problem.distance(Affine.identity(2))
    assert found.stats.start is start
    far = Affine.about(torch.eye(2, dtype=torch.float64), torch.zeros(2).double(), torch.tensor([500.0, 0.0]))
    with pytest.raises(InputError, match="do not overlap"):
        FEW(*problem.pair.images, start=far)


def test_what_a_mask_hides_does_not_push():
    """Only carried in by the smoothing: far within the hidden half nothing moves."""
    pair = smooth_pair()
    mask = torch.zeros(1, 1, *pair.fixed.grid.shape, dtype=torch.bool)
    mask[:, :, :15] = True
    found = replace(FEW, iterations=3, levels=ONE_LEVEL)(replace(pair.fixed, mask=mask), pair.moving).transform
    assert found.field[:, :, :15].abs().max() > 0.1
    assert found.field[:, :, 40:].abs().max() == 0


# the contract, and bad input


@pytest.mark.filterwarnings("ignore:the images' intensities")
@pytest.mark.parametrize("problem", [*problems(ndim=2), *problems("smooth", ndim=3)], ids=str)
def test_contract(problem):
    rounding = None if problem.name in METHOD.solves else problem.within
    check_register(LogDemons(iterations=80), problem, solves=problem.name in METHOD.solves, rounding=rounding)


@pytest.mark.parametrize(
    "wrong",
    [{"fluid": -1.0}, {"diffusion": 0.4}, {"ratio": 0.0}, {"iterations": 0}, {"diffusion": math.nan}],
    ids=str,
)
def test_settings_that_cannot_be_right_are_refused(wrong):
    with pytest.raises(InputError, match="LogDemons"):
        LogDemons(**wrong)


def test_blank_images_and_other_contrasts_are_told():
    pair = smooth_pair()
    blank = replace(pair.moving, data=torch.full_like(pair.moving.data, 3.0))
    with pytest.raises(InputError, match="the moving image is constant"):
        FEW(pair.fixed, blank)
    with pytest.raises(InputError, match="the fixed image is constant"):
        FEW(blank, pair.moving)
    with pytest.warns(UserWarning, match="correlation of -"):
        replace(FEW, iterations=1)(pair.fixed, replace(pair.moving, data=-pair.moving.data))
