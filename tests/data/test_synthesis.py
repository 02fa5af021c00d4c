"""Synthetic pairs: what is made is what the truth says, within the limits, and the same whoever asks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.interpolate import RBFInterpolator
from scipy.spatial.transform import Rotation
from scipy.stats import kstest

from pullback.alignment import Alignment, Pair
from pullback.data import BrainPhantom, PairFolder, Synthesis, Synthetic, Test, Validation
from pullback.data.synthesis import ContrastChange, thin_plate
from pullback.errors import InputError
from pullback.files import write
from pullback.metrics import EndPointError, LandmarkError
from pullback.numerics.difference import determinant, jacobian
from pullback.numerics.random import make_generator
from pullback.space import Grid, Image, Labels, Points, pull

SHAPES = [(40, 33), (26, 22, 24)]
PLAIN = Synthesis(translation=10.0, gamma=1.0, brightness=0.0)
GENTLE = Synthesis(translation=10.0)


def voxels_of(grid):
    """Of all voxels the world coordinates, `(1, d, *shape)` float64."""
    return grid.to_world(grid.voxels(torch.zeros((), dtype=torch.float64))[None])


@pytest.fixture
def scene(oblique, waves):
    """A smooth picture in 0 … 1 with labels, a mask and points."""

    def make(shape, seed=0, shortest=40.0):
        grid = oblique(shape, seed, low=2.0, high=3.0)
        value = waves(len(shape), seed, shortest)(voxels_of(grid))
        data = ((value - value.min()) / (value.max() - value.min())).float()
        inside = torch.rand(12, len(shape), generator=make_generator(seed), dtype=torch.float64)
        at = inside * (torch.tensor(shape) - 1)
        points = Points(grid.to_world(at.mT[None]).mT)
        image = Image(data, grid, data > 0.1)
        return Pair(image, Image(1 - data, grid), Labels((4 * data).long(), grid), fixed_points=points, name="a ← b")

    return make


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_the_moving_image_is_the_fixed_one_seen_through_the_drawn_transform(scene, shape):
    """Bit for bit; intensities change after it."""
    pair = scene(shape)
    made, there = PLAIN(pair, make_generator(3)), PLAIN.transform(pair.fixed.grid, make_generator(3), pair.fixed.data)
    seen = pull(pair.fixed, there, onto=pair.fixed)
    assert torch.equal(made.moving.data, seen.data)
    assert torch.equal(made.fixed.data, pair.fixed.data)
    generator = make_generator(3)
    there, contrast = GENTLE.transform(pair.fixed.grid, generator, pair.fixed.data), GENTLE.contrast(generator)
    expected = contrast(pull(pair.fixed, there, onto=pair.fixed).data)
    assert torch.equal(GENTLE(pair, make_generator(3)).moving.data, expected)
    assert float((seen.data - pair.fixed.data).abs().max()) > 0.1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_truth_is_true_both_ways(scene, shape, seed):
    pair = scene(shape)
    made, grid = GENTLE(pair, make_generator(seed)), pair.fixed.grid
    there = GENTLE.transform(grid, make_generator(seed), pair.fixed.data)
    assert EndPointError()(Alignment(made, made.truth)) == {"epe mm": 0.0}
    fixed = voxels_of(grid)
    off = grid.to_voxels(there.at(made.truth.at(fixed))) - grid.to_voxels(fixed)
    assert float(off.norm(dim=1).max()) < 1.01e-3  # the search is content with 1e-3; the motion is float32
    seen = there.at(fixed)
    last = torch.tensor(shape).view(1, -1, *[1] * len(shape)) - 1
    inside = ((grid.to_voxels(seen) >= 0) & (grid.to_voxels(seen) <= last)).all(1)
    back = grid.to_voxels(made.truth.at(seen)) - grid.to_voxels(fixed)
    assert float(back.norm(dim=1)[inside].max()) < 1e-2  # as far apart as points within 1e-3 may be: 1 / (1 - 0.9)
    assert float(inside.double().mean()) > 0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_a_perfect_register_brings_the_image_back(scene, shape):
    """Wherever nothing from beyond the image was mixed in, but for what two interpolations cost."""
    pair = scene(shape, shortest=120.0)
    made, grid = PLAIN(pair, make_generator(5)), pair.fixed.grid
    there = PLAIN.transform(grid, make_generator(5), pair.fixed.data)
    whole = Image(torch.ones_like(pair.fixed.data), grid)
    seen = pull(pull(whole, there, onto=grid), made.truth, onto=grid).data > 0.9999
    off = (Alignment(made, made.truth).moved.data - made.fixed.data)[seen].abs()
    assert float(seen.double().mean()) > 0.4
    assert float((made.moving.data - made.fixed.data)[seen].abs().mean()) > 0.03
    assert float(off.mean()) < 2e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_labels_masks_and_points_follow(scene, shape):
    pair = scene(shape)
    made, grid = GENTLE(pair, make_generator(2)), pair.fixed.grid
    there = GENTLE.transform(grid, make_generator(2), pair.fixed.data)
    at = np.rint(grid.to_voxels(there.at(voxels_of(grid)))[0].numpy()).astype(int)
    inside = np.all((at >= 0) & (at < np.array(shape).reshape(-1, *[1] * len(shape))), 0)
    at = np.where(inside, at, 0)
    labels = np.where(inside, pair.fixed_labels.data[0, 0].numpy()[tuple(at)], 0)
    mask = np.where(inside, pair.fixed.mask[0, 0].numpy()[tuple(at)], False)
    assert np.mean(made.moving_labels.data[0, 0].numpy() != labels) < 1e-3  # ties of rounding
    assert np.mean(made.moving.mask[0, 0].numpy() != mask) < 1e-3
    back = there(made.moving_points.data)
    torch.testing.assert_close(back, pair.fixed_points.data, rtol=0, atol=5e-3)
    assert LandmarkError()(Alignment(made, made.truth)) == {"tre mm": 0.0}


def test_one_generator_one_pair_and_inputs_stay(scene):
    pair = scene(SHAPES[1])
    given = (pair.fixed.data, pair.moving.data, pair.fixed_labels.data, pair.fixed_points.data)
    before = [tensor.clone() for tensor in given]
    first, again, other = (GENTLE(pair, make_generator(seed)) for seed in (7, 7, 8))
    assert all(torch.equal(a, b) for a, b in zip(before, given, strict=True))
    assert torch.equal(first.moving.data, again.moving.data)
    assert torch.equal(first.truth.displacement(pair.fixed.grid), again.truth.displacement(pair.fixed.grid))
    assert not torch.equal(first.moving.data, other.moving.data)
    assert first.name == "a ← b"


@pytest.mark.parametrize(("ndim", "kernel"), [(2, "thin_plate_spline"), (3, "linear")])
def test_the_spline_is_scipys(ndim, kernel):
    """Where voxels are the points of the exact evaluation, every third is a control point: scipy finds the others."""
    grid = Grid.centred((13,) * ndim, 6.0)
    synthesis = Synthesis(displacement=2.0, controls=5, fineness=3, degrees=0.0, translation=0.0)
    bent = synthesis.transform(grid, make_generator(1), torch.zeros((), dtype=torch.float64)).outer
    field = bent.displacement(grid)[0]
    every = (slice(None), *[slice(None, None, 3)] * ndim)
    at = grid.voxels(field)
    truth = RBFInterpolator(at[every].flatten(1).T, field[every].flatten(1).T, kernel=kernel, degree=1)
    np.testing.assert_allclose(field.flatten(1).T, truth(at.flatten(1).T), atol=1e-5)
    assert float(field.abs().max()) > 0.1


@pytest.mark.parametrize(("ndim", "kernel"), [(2, "thin_plate_spline"), (3, "linear")])
def test_the_reduced_evaluation_comes_nearer_with_its_fineness(ndim, kernel):
    """At points that no lattice has in common with another."""
    grid = Grid.centred((32,) * ndim, 4.0)
    values = torch.randn(4**ndim, ndim, generator=make_generator(2), dtype=torch.float64)
    at = torch.cartesian_prod(*[torch.linspace(0, 31, 4, dtype=torch.float64)] * ndim)
    chosen = torch.randint(31, (ndim, 300), generator=make_generator(3))
    truth = RBFInterpolator(at, values, kernel=kernel, degree=1)(chosen.T)
    off = []
    for fineness in (2, 4, 8):
        field = 4.0 * thin_plate(values, 4, grid, fineness).displacement(grid)[0]
        off.append(np.linalg.norm(field[:, *chosen].T.numpy() - truth, axis=1).mean())
    assert off[1] < off[0] / 3
    assert off[2] < off[1] / 3
    assert off[2] < 0.01 * np.linalg.norm(truth, axis=1).mean()


grids = st.tuples(
    st.one_of(st.tuples(*[st.integers(5, 40)] * 2), st.tuples(*[st.integers(4, 16)] * 3)),
    st.floats(0.5, 8.0),
    st.integers(0, 10**6),
)


@given(grids, st.floats(0, 12), st.floats(0, 20), st.floats(0, 50))
@settings(max_examples=25)
def test_the_limits_are_kept(drawn, displacement, degrees, translation):
    shape, spacing, seed = drawn
    grid, d = Grid.centred(shape, spacing), len(shape)
    synthesis = Synthesis(displacement, 4, degrees, translation, fineness=2)
    there = synthesis.transform(grid, make_generator(seed), torch.zeros((), dtype=torch.float64))
    bent, motion = there.outer, there.inner.matrix
    assert float(bent.field.norm(dim=1).max()) * spacing <= displacement * (1 + 1e-6)
    assert float(determinant(jacobian(bent.field)).min()) > 0
    turn = motion[:d, :d].numpy()
    np.testing.assert_allclose(turn @ turn.T, np.eye(d), atol=1e-12)
    whole = np.eye(3)
    whole[:d, :d] = turn
    angles = np.abs(Rotation.from_matrix(whole).as_euler("xyz", degrees=True))
    assert angles.max() <= degrees + 1e-6
    centre = grid.centre
    assert float((motion[:d, :d] @ centre + motion[:d, d] - centre).norm()) <= translation * (1 + 1e-9)


def test_of_a_fixed_lattice_so_many_points_move():
    """With no rigid motion: at the points that rest nothing moves, others rest each time, and None moves all."""
    grid = Grid.centred((31, 31, 31), 4.0)
    quiet = Synthesis(controls=4, moving=10, degrees=0.0, translation=0.0)
    moved = []
    for seed in range(6):
        at = quiet.transform(grid, make_generator(seed), torch.zeros(())).displacement(grid)[..., ::10, ::10, ::10]
        moved.append(at.norm(dim=1)[0] > 0.05)
        assert moved[-1].sum() <= 10
    assert max(int(each.sum()) for each in moved) > 6
    assert sum(each.int() for each in moved).count_nonzero() > 20
    every = replace(quiet, moving=None).transform(grid, make_generator(0), torch.zeros(())).displacement(grid)
    assert (every[..., ::10, ::10, ::10].norm(dim=1) > 0.05).sum() > 50


@pytest.mark.slow
def test_steep_draws_are_flattened_until_nothing_folds():
    """On an image of few millimetres; no two voxels are displaced more differently than 0.9 of their distance."""
    grid = Grid.centred((24, 20, 22), 1.0)
    field = (
        Synthesis().transform(grid, make_generator(0), torch.zeros((), dtype=torch.float64)).outer.displacement(grid)[0]
    )
    chosen = torch.randint(field[0].numel(), (2, 4000), generator=make_generator(1))
    u, x = field.flatten(1)[:, chosen], grid.voxels(field).flatten(1)[:, chosen]
    apart = (x[:, 0] - x[:, 1]).norm(dim=0)
    ratio = (u[:, 0] - u[:, 1]).norm(dim=0)[apart > 0] / apart[apart > 0]
    assert float(ratio.max()) <= 0.9 + 1e-6
    steps = torch.stack([field.diff(dim=1 + axis).norm(dim=0).max() for axis in range(3)])
    assert 0.5 < float(steps.max()) <= 0.9 + 1e-6, "as steep as may be, not flattened for nothing"


@given(st.floats(0.5, 2), st.floats(-0.2, 0.2))
def test_contrast_rises_from_nothing_to_all(gamma, brightness):
    data = torch.linspace(0, 1, 200, dtype=torch.float64)
    seen = ContrastChange(gamma, brightness)(data)
    assert bool((seen.diff() >= 0).all())
    assert (float(seen[0]), float(seen[-1])) == (0.0, pytest.approx(1.0, abs=1e-12))
    assert float(seen.max()) <= 1
    lost = (seen[1:-1] <= 0) | (seen[1:-1] >= 1)
    powers = data[1:-1] ** gamma
    cut = (powers <= -brightness + 1e-9) | (powers >= 1 - brightness - 1e-9)
    assert bool((lost <= cut).all()), "only what the shift pushes beyond the range is lost"


def test_contrasts_are_drawn_as_it_says():
    generator, synthesis = make_generator(0), Synthesis()
    drawn = [synthesis.contrast(generator) for _ in range(600)]
    assert kstest([np.log(c.gamma) / np.log(2) for c in drawn], "uniform", args=(-1, 2)).pvalue > 0.01
    assert kstest([c.brightness for c in drawn], "uniform", args=(-0.2, 0.4)).pvalue > 0.01


def test_lengths_are_uniform_and_directions_without_preference():
    grid, generator, synthesis = Grid.centred((8, 8, 8), 30.0), make_generator(0), Synthesis(controls=2, fineness=1)
    shifts = []
    for _ in range(400):
        matrix = synthesis.transform(grid, generator, torch.zeros((), dtype=torch.float64)).inner.matrix
        shifts.append(matrix[:3, 3].numpy() + (matrix[:3, :3] @ grid.centre - grid.centre).numpy())
    lengths = np.linalg.norm(shifts, axis=1)
    assert kstest(lengths, "uniform", args=(0, 30)).pvalue > 0.01
    for axis in range(3):  # a coordinate of a random direction is uniform (Archimedes)
        assert kstest(np.array(shifts)[:, axis] / lengths, "uniform", args=(-1, 2)).pvalue > 0.01


def test_background_stays_background(scene):
    pair = scene(SHAPES[1])
    data = pair.fixed.data * (pair.fixed.data > 0.4)
    made = GENTLE(Pair(Image(data, pair.fixed.grid), pair.moving), make_generator(1))
    there = GENTLE.transform(pair.fixed.grid, make_generator(1), data)
    dark = pull(Image(data, pair.fixed.grid), there, onto=pair.fixed).data == 0
    assert float(dark.double().mean()) > 0.2
    assert float(made.moving.data[dark].abs().max()) == 0
    assert (float(made.moving.data.min()), float(made.fixed.data.max())) == (0.0, 1.0)


def test_intensities_of_any_range_come_to_0_and_1(scene):
    pair = scene(SHAPES[0])
    scaled = Pair(Image(pair.fixed.data * 2000 - 1000, pair.fixed.grid, pair.fixed.mask), pair.moving)
    torch.testing.assert_close(
        GENTLE(scaled, make_generator(0)).moving.data, GENTLE(pair, make_generator(0)).moving.data, rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("shape", [(30, 50), (20, 26, 18)])
def test_both_images_in_another_shape(scene, shape):
    pair = scene(SHAPES[len(shape) - 2])
    synthesis = Synthesis(translation=5.0, gamma=1.0, brightness=0.0, shape=shape)
    made = synthesis(pair, make_generator(0))
    grid = made.fixed.grid
    assert (grid.shape, made.moving.grid, made.fixed_labels.grid, made.moving_labels.grid) == (shape, grid, grid, grid)
    torch.testing.assert_close(grid.centre, pair.fixed.grid.centre)
    assert torch.equal(
        made.moving.data,
        pull(made.fixed, synthesis.transform(grid, make_generator(0), made.fixed.data), onto=grid).data,
    )
    with pytest.raises(InputError, match=r"a ← b.*cannot be made"):
        Synthesis(shape=(8,) * (5 - len(shape)))(pair, make_generator(0))


@pytest.mark.parametrize(
    "numbers", [{"gamma": 0.5}, {"brightness": 1.0}, {"displacement": -1.0}, {"degrees": float("nan")}]
)
def test_limits_that_cannot_be(numbers):
    with pytest.raises(InputError, match=next(iter(numbers))):
        Synthesis(**numbers)


@pytest.mark.parametrize("numbers", [{"controls": 1}, {"fineness": 0}, {"shape": (1, 9)}])
def test_lattices_that_cannot_be(numbers):
    with pytest.raises(InputError, match="two or more controls"):
        Synthesis(**numbers)


def test_nothing_can_be_made_of_a_constant_image(scene):
    pair = scene(SHAPES[0])
    flat = Pair(Image(torch.ones_like(pair.fixed.data), pair.fixed.grid), pair.moving, name="dull")
    with pytest.raises(InputError, match="dull: the fixed image is constant"):
        GENTLE(flat, make_generator(0))


SMALL = BrainPhantom(spacing=12.0, train_subjects=3, validation_subjects=2, test_subjects=3)
MADE = Synthetic(Synthesis(translation=10.0), per_subject=2)


def test_splits_that_are_made(scene):
    data = BrainPhantom(**{**vars(SMALL), "synthetic": MADE})
    assert data.train == BrainPhantom(**{**vars(SMALL), "synthetic": MADE}).train
    assert (type(data.validation), type(data.test)) == (Validation, Test)
    assert (len(data.validation), len(data.test)) == (4, 6)
    assert data.test.names == SMALL.test.names
    first, again = list(data.test), list(data.test)
    assert [pair.name for pair in first][:3] == [f"phantom-05 ← synthetic {n}" for n in (1, 2)] + [
        "phantom-06 ← synthetic 1"
    ]
    assert len({pair.name for pair in first}) == 6
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.moving.data, b.moving.data)
        assert torch.equal(a.moving_labels.data, b.moving_labels.data)
        assert EndPointError()(Alignment(a, a.truth)) == {"epe mm": 0.0}
    assert not torch.equal(first[0].moving.data, first[1].moving.data)
    assert torch.equal(first[0].fixed.data, first[1].fixed.data)
    other = Synthetic(MADE.synthesis, 2, seed=1).listed(Test, [data.test.pairs[0][0]])
    assert not torch.equal(next(iter(other)).moving.data, first[0].moving.data)


def test_a_pair_that_is_made_depends_on_its_subject_alone():
    data = BrainPhantom(**{**vars(SMALL), "synthetic": MADE})
    alone = MADE.listed(Test, [data.test.pairs[-1][0]])
    for a, b in zip(alone, list(data.test)[-2:], strict=True):
        assert (a.name, bool(torch.equal(a.moving.data, b.moving.data))) == (b.name, True)


@pytest.mark.parametrize("made", [None, MADE])
@pytest.mark.parametrize("count", [1, 4, 100])
def test_some_of_a_split_are_the_same_pairs(made, count):
    whole = BrainPhantom(**{**vars(SMALL), "synthetic": made}).test
    known = {pair.name: pair for pair in whole}
    few = whole.some(count)
    assert type(few) is Test
    assert len({pair.name for pair in few}) == len(few) == min(count, len(whole))
    for pair in few:
        assert torch.equal(pair.moving.data, known[pair.name].moving.data)


def test_of_a_folder(tmp_path):
    generator = make_generator(0)
    for n in range(8):
        grid = Grid.centred((10, 9, 8), 4.0)
        write(Image(torch.rand(1, 1, *grid.shape, generator=generator), grid), tmp_path / f"s{n}.nii.gz")
    splits = {"validation_split": ("s1", "s2"), "test_split": ("s3", "s4", "s5"), "images": "*.nii.gz"}
    plain, made = (PairFolder(str(tmp_path), **splits, synthetic=each) for each in (None, MADE))
    assert (plain.train, plain.test.names) == (made.train, made.test.names)
    assert (len(plain.test), len(made.test), len(made.validation)) == (6, 6, 4)
    assert {pair.truth is None for pair in plain.test} == {True}
    assert {pair.truth is None for pair in made.test} == {False}
    with pytest.raises(InputError, match="one pair or more"):
        Synthetic(per_subject=0)
