"""MI and NMI against histograms by scipy's splines, closed forms, and the laws they promise."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from scipy.interpolate import BSpline
from scipy.ndimage import gaussian_filter
from scipy.stats import entropy

from pullback.alignment import Alignment, Pair
from pullback.energies import MI, NMI
from pullback.energies.information import joint_histogram
from pullback.errors import InputError
from pullback.space import Affine, Displacement, Grid, Image

SHAPES = [(9, 8), (6, 5, 7)]
WINDOW = entropy([1 / 6, 4 / 6, 1 / 6])  # of a value in the middle of a bin
both = pytest.mark.parametrize("kind", [MI, NMI])


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def seen(fixed, moving, fixed_mask=None, moving_mask=None, field=None):
    grid = Grid.centred(tuple(fixed.shape[2:]))
    still = Affine.identity(grid.ndim)
    pair = Pair(Image(fixed, grid, fixed_mask), Image(moving, grid, moving_mask))
    return Alignment(pair, still if field is None else Displacement(field, grid))


def by_splines(fixed, moving, bins, keep):
    """Rows by numpy's histogram of the fixed image, columns by cubic B-splines about the moving one's bins."""
    spline = BSpline.basis_element(np.arange(-2, 3), extrapolate=False)
    fixed, moving = fixed[keep], moving[keep]
    edges = np.linspace(fixed.min(), fixed.max(), bins + 1)
    rows = np.clip(np.searchsorted(edges, fixed, side="right") - 1, 0, bins - 1)
    at = (moving - moving.min()) / np.ptp(moving) * (bins - 1)
    columns = np.nan_to_num(spline(at[:, None] - np.arange(-1, bins + 1)))
    counts = np.zeros((bins, bins + 2))
    np.add.at(counts, rows, columns)
    return counts


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("bins", [4, 32])
def test_histogram_and_entropies_as_by_scipy(shape, masked, bins):
    fixed, moving = noise(2, 3, *shape, seed=1), noise(2, 3, *shape, seed=2)
    mask = noise(2, 1, *shape, seed=3) > 0 if masked else None
    alignment = seen(fixed, moving, mask, mask)
    counts = joint_histogram(alignment, bins).numpy()
    shared, share = [], []
    for b in range(2):
        for c in range(3):
            keep = np.ones(shape, bool) if mask is None else mask[b, 0].numpy()
            expected = by_splines(fixed[b, c].numpy(), moving[b, c].numpy(), bins, keep)
            np.testing.assert_allclose(counts[b, c], expected, atol=1e-9)
            f, m, joint = entropy(expected.sum(1)), entropy(expected.sum(0)), entropy(expected.ravel())
            shared.append(f + m - joint)
            share.append((f + m) / joint)
    assert float(MI(bins)(alignment)) == pytest.approx(-np.mean(shared), rel=1e-9)
    assert float(NMI(bins)(alignment)) == pytest.approx(2 - np.mean(share), rel=1e-9)


@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 10**6))
def test_of_few_levels_that_no_window_mixes(fixed_levels, moving_levels, seed):
    """Levels four bins apart are a discrete variable: sklearn's information, and the window's entropy on top of H."""
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    f = rng.integers(fixed_levels, size=(20, 10))
    m = np.where(rng.random(f.shape) < 0.5, f % moving_levels, rng.integers(moving_levels, size=f.shape))
    f.ravel()[:2], m.ravel()[:2] = (0, fixed_levels - 1), (0, moving_levels - 1)
    bins = 4 * (moving_levels - 1) * (fixed_levels - 1) + 1
    alignment = seen(*(torch.from_numpy(t / 1.0)[None, None] for t in (f, m)))
    shared = metrics.mutual_info_score(f.ravel(), m.ravel())
    joint = entropy(np.unique(np.stack([f.ravel(), m.ravel()]), axis=1, return_counts=True)[1])
    assert float(MI(bins)(alignment)) == pytest.approx(-shared, abs=1e-9)
    assert float(NMI(bins)(alignment)) == pytest.approx(1 - shared / (joint + WINDOW), abs=1e-9)


@pytest.mark.slow
@both
@pytest.mark.parametrize("shape", [(5, 4), (3, 4, 3)])
@pytest.mark.parametrize("masked", [False, True])
def test_gradcheck(kind, shape, masked):
    fixed, moving = noise(2, 2, *shape, seed=1), noise(1, 2, *shape, seed=2)
    mask = noise(1, 1, *shape, seed=3) > -0.5 if masked else None
    field = (0.3 * noise(2, len(shape), *shape, seed=4)).requires_grad_()
    assert torch.autograd.gradcheck(lambda u: kind(8)(seen(fixed, moving, mask, None, u)), (field,), eps=1e-7)


@both
@given(st.floats(0.1, 50) | st.floats(-50, -0.1), st.floats(-100, 100), st.sampled_from(SHAPES), st.integers(0, 10**6))
def test_affine_changes_of_intensity_are_not_seen(kind, scale, offset, shape, seed):
    """Nor do they change the slope. Between voxels, as the slope breaks off at the least and greatest intensity, and
    far from the border, where an image with an offset fades to another 0."""
    fixed, moving = noise(1, 1, *shape, seed=seed), noise(1, 1, *shape, seed=seed + 1)
    inner = torch.zeros(1, 1, *shape, dtype=torch.bool)
    inner[:, :, *[slice(1, -1)] * len(shape)] = True
    answers = []
    for f, m in ((fixed, moving), (scale * fixed + offset, moving), (fixed, scale * moving + offset)):
        field = torch.full((1, len(shape), *shape), 0.25, dtype=torch.float64, requires_grad=True)
        value = kind()(seen(f, m, inner, field=field))
        answers.append((value.detach(), *torch.autograd.grad(value, field)))
    for value, gradient in answers[1:]:
        torch.testing.assert_close(value, answers[0][0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(gradient, answers[0][1], rtol=1e-6, atol=1e-9)


@both
@given(st.sampled_from(SHAPES), st.sampled_from([4, 16, 32]), st.floats(0, 1), st.integers(0, 10**6))
def test_bounds(kind, shape, bins, mixed, seed):
    fixed, other = noise(1, 1, *shape, seed=seed), noise(1, 1, *shape, seed=seed + 1)
    value = float(kind(bins)(seen(fixed, mixed * fixed + (1 - mixed) * other)))
    low, high = (-math.log(bins), 0) if kind is MI else (0, 1)
    assert low < value < high


@both
@pytest.mark.parametrize("shape", [(40, 36), (18, 16, 17)])
def test_no_image_tells_more_of_another_than_it_tells_itself(kind, shape):
    """Of intensities that crowd the same with more contrast would tell more, by windows that blur less of them."""
    spread = torch.from_numpy(gaussian_filter(np.random.default_rng(0).normal(size=shape), 1))[None, None]
    fixed, spread = spread**5, spread.requires_grad_()
    alignment = seen(fixed, spread)
    joint = joint_histogram(alignment, 32)[0, 0].detach().clamp(min=0).numpy()
    f, m, total = (entropy(p) for p in (joint.sum(1), joint.sum(0), joint.ravel()))
    plain = -(f + m - total) if kind is MI else 2 - (f + m) / total
    value, least = kind()(alignment), float(kind()(seen(fixed, fixed)))
    assert plain < least - 0.01 or kind is NMI  # of which the entropy of what is spread takes its share
    assert value.item() == pytest.approx(max(plain, least), abs=1e-9)
    assert torch.autograd.grad(value, spread)[0].any() == (plain > least)


@both
def test_each_pair_of_a_batch_has_its_own_bound(kind):
    """The first is itself, which nothing pulls at; the others pull as ever."""
    fixed = noise(3, 1, 9, 8, seed=1)
    moving = torch.cat([fixed[:1], noise(2, 1, 9, 8, seed=2)])
    field = torch.zeros(3, 2, 9, 8, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(kind(8)(seen(fixed, moving, field=field)), field)
    assert [bool(one.any()) for one in slope] == [False, True, True]


def test_independent_images_share_next_to_nothing():
    """What is left is the bias of a count, at most (rows − 1) (columns − 1) / 2N."""
    fixed, moving = noise(1, 1, 500, 400, seed=1), noise(1, 1, 500, 400, seed=2)
    assert -7 * 9 / 400_000 < float(MI(8)(seen(fixed, moving))) <= 0
    assert float(NMI(8)(seen(fixed, moving))) > 0.9999


@both
@pytest.mark.parametrize("contrast", [lambda x: -x, np.exp, np.abs], ids=["inverted", "bent", "folded"])
@pytest.mark.parametrize("shape", [(40, 36), (18, 16, 17)])
def test_least_where_the_same_anatomy_of_another_contrast_lies_upon_itself(kind, contrast, shape):
    d, world = len(shape), gaussian_filter(np.random.default_rng(0).normal(size=[n + 8 for n in shape]), 2)
    world /= world.std()
    fixed = world[tuple(slice(4, -4) for _ in shape)]
    values = {}
    for shift in range(-3, 4):
        window = (slice(4 + shift, 4 + shift + shape[0]), *[slice(4, -4)] * (d - 1))
        moved = contrast(world)[window]
        values[shift] = float(kind()(seen(*(torch.from_numpy(t.copy())[None, None] for t in (fixed, moved)))))
    steps = np.diff([values[s] for s in range(-3, 4)])
    assert (steps[:3] < 0).all()
    assert (steps[3:] > 0).all()


@pytest.mark.parametrize("level", [0.0, 1.7, 1000.1])
def test_constants_tell_nothing_and_pull_at_nothing(level):
    constant, texture = torch.full((1, 1, 7, 8), level), noise(1, 1, 7, 8).float()
    for f, m in ((constant, texture), (texture, constant), (constant, constant)):
        for kind, nothing in ((MI, 0), (NMI, 1)):
            field = torch.zeros(1, 2, 7, 8, requires_grad=True)
            value = kind()(seen(f, m, field=field))
            assert value.item() == pytest.approx(nothing, abs=1e-6)
            (gradient,) = torch.autograd.grad(value, field)
            assert gradient.abs().max() < 1e-6


@both
def test_an_empty_mask_tells_nothing(kind):
    fixed, moving = noise(1, 1, 7, 8, seed=1), noise(1, 1, 7, 8, seed=2)
    field = torch.zeros(1, 2, 7, 8, dtype=torch.float64, requires_grad=True)
    empty = torch.zeros(1, 1, 7, 8, dtype=torch.bool)
    for masks in ((empty, None), (None, empty)):
        value = kind()(seen(fixed, moving, *masks, field=field))
        assert value.item() == (0 if kind is MI else 1)
        assert not torch.autograd.grad(value, field)[0].any()


def test_every_voxel_counts_once_also_beyond_the_range():
    """Moved 30 voxels away the image is 0, far below its least: the first bin, where nothing pulls."""
    fixed, moving = noise(1, 1, 9, 8, seed=1), 100 + noise(1, 1, 9, 8, seed=2)
    field = torch.full((1, 2, 9, 8), 30.0, dtype=torch.float64, requires_grad=True)
    counts = joint_histogram(seen(fixed, moving, field=field), 16)
    assert counts.sum().item() == pytest.approx(72)
    assert counts[..., :3].sum().item() == pytest.approx(72)
    assert not torch.autograd.grad(counts.square().sum(), field)[0].any()


@both
@pytest.mark.parametrize("counts", [(2, 1), (1, 2)])
def test_one_image_against_two_is_the_mean_of_both(kind, counts):
    fixed, moving = (noise(n, 2, 6, 5, 7, seed=n) for n in counts)
    mask = noise(counts[0], 1, 6, 5, 7, seed=3) > -1

    def told(f, m, inside):
        field = torch.full((1, 3, 6, 5, 7), 0.25, dtype=torch.float64, requires_grad=True)
        value = kind(8)(seen(f, m, inside, field=field))
        return torch.cat([value[None], torch.autograd.grad(value, field)[0].flatten()])

    each = [told(fixed[n % counts[0]][None], moving[n % counts[1]][None], mask[n % counts[0]][None]) for n in range(2)]
    torch.testing.assert_close(told(fixed, moving, mask), (each[0] + each[1]) / 2)


@both
def test_too_few_bins_are_refused(kind):
    with pytest.raises(InputError, match="4 bins at least, got 3"):
        kind(3)


@pytest.mark.parametrize("kind", [MI, NMI])
def test_in_view_identical_images_are_least_whatever_the_moving_mask(kind):
    """A body on a flat ground, seen in part, through motions that hide and show the ground."""
    x, y = torch.meshgrid(torch.linspace(-1, 1, 24), torch.linspace(-1, 1, 22), indexing="ij")
    image = torch.sigmoid(20 * (0.6 - x.hypot(y)))[None, None] * (1 + 0.3 * torch.sin(9 * x + 4 * y))
    mask = (x.abs() < 0.8)[None, None]
    fields = [s * torch.stack([x, y])[None] for s in (-3.0, -1.0, 0.5, 2.0)]
    fields += [torch.tensor(shift).view(1, 2, 1, 1).expand(1, 2, 24, 22) for shift in ((3.0, 0.0), (0.0, -2.0))]
    still = kind(in_view=True)(seen(image, image, None, mask, torch.zeros(1, 2, 24, 22)))
    others = [kind(in_view=True)(seen(image, image, None, mask, field)) for field in fields]
    assert float(still) <= min(map(float, others))
