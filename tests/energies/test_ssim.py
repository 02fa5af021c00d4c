"""SSIM against the formula by scipy's filters, closed forms, and the laws it promises."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from scipy.ndimage import gaussian_filter, uniform_filter

from pullback.alignment import Alignment, Pair
from pullback.energies import SSIM
from pullback.errors import InputError
from pullback.space import Affine, Displacement, Grid, Image

SHAPES = [(13, 11), (9, 8, 10)]


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def seen(fixed, moving, mask=None, field=None):
    grid = Grid.centred(tuple(fixed.shape[2:]))
    transform = Affine.identity(grid.ndim) if field is None else Displacement(field, grid)
    return Alignment(Pair(Image(fixed, grid, mask), Image(moving, grid)), transform)


def by_scipy(i, j, window, keep, sigma=None):
    """Wang et al., eq. 13; means over the voxels of a window that exist and that `keep` admits."""

    def weighed(values):
        if sigma is None:
            return uniform_filter(values, window, mode="constant")
        return gaussian_filter(values, sigma, mode="constant", radius=window // 2)

    def mean(values):
        sums, n = (weighed(t * keep) for t in (values, np.ones(i.shape)))
        return sums / np.where(n > 1e-12, n, 1)

    extent = np.ptp(i[keep])
    mu, nu = mean(i), mean(j)
    c1, c2 = (0.01 * extent) ** 2, (0.03 * extent) ** 2
    variances, covariance = mean(i * i) - mu**2 + mean(j * j) - nu**2, mean(i * j) - mu * nu
    return ((2 * mu * nu + c1) * (2 * covariance + c2) / ((mu**2 + nu**2 + c1) * (variances + c2)))[keep]


@pytest.mark.parametrize(("shape", "window"), [(s, w) for s in SHAPES for w in (3, 7)] + [(SHAPES[0], 21)])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sigma", [None, 1.5])
def test_as_by_scipy(shape, window, masked, sigma):
    fixed, moving = 1 + noise(2, 2, *shape, seed=1), 1 + noise(2, 2, *shape, seed=2)
    moving = 0.5 * fixed + moving
    mask = noise(2, 1, *shape, seed=3) > 0 if masked else None
    each = []
    for b in range(2):
        keep = np.ones(shape, bool) if mask is None else mask[b, 0].numpy()
        each += [by_scipy(fixed[b, c].numpy(), moving[b, c].numpy(), window, keep, sigma) for c in range(2)]
    value = float(SSIM(window, sigma)(seen(fixed, moving, mask)))
    assert value == pytest.approx(1 - np.concatenate(each).mean(), rel=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(5, 4), (3, 4, 3)])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("batches", "sigma"), [((2, 2), None), ((1, 2), None), ((2, 1), None), ((2, 2), 0.8)])
def test_gradcheck(shape, masked, batches, sigma):
    fixed, moving = 1 + noise(batches[0], 2, *shape, seed=1), 1 + noise(1, 2, *shape, seed=2)
    mask = noise(1, 1, *shape, seed=3) > -0.5 if masked else None
    field = (0.3 * noise(batches[1], len(shape), *shape, seed=4)).requires_grad_()
    assert torch.autograd.gradcheck(lambda u: 3 * SSIM(3, sigma)(seen(fixed, moving, mask, u)), (field,))


@given(st.floats(-2, 2), st.floats(-2, 2))
def test_of_constants_only_the_level_counts(one, other):
    shape = (1, 1, 6, 7)
    fixed, moving = (torch.full(shape, float(t), dtype=torch.float64) for t in (one, other))
    expected = 1 - (2 * one * other + 1e-4) / (one**2 + other**2 + 1e-4)
    assert float(SSIM()(seen(fixed, moving))) == pytest.approx(expected, abs=1e-9)


@given(st.floats(0.01, 100) | st.floats(-100, -0.01), st.sampled_from(SHAPES), st.integers(0, 10**6))
def test_units_of_intensity_are_not_seen(unit, shape, seed):
    fixed, moving = 1 + noise(1, 1, *shape, seed=seed), 1 + noise(1, 1, *shape, seed=seed + 1)
    value = float(SSIM(5)(seen(fixed, moving)))
    assert float(SSIM(5)(seen(unit * fixed, unit * moving))) == pytest.approx(value, rel=1e-8)
    assert 0 < value < 2


@given(st.sampled_from(SHAPES), st.integers(0, 10**6))
def test_which_is_fixed_is_not_seen_where_ranges_agree(shape, seed):
    fixed, moving = (noise(1, 1, *shape, seed=seed + s).clamp(-1, 1) for s in (0, 1))
    assert float(SSIM(5)(seen(fixed, moving))) == pytest.approx(float(SSIM(5)(seen(moving, fixed))), rel=1e-9)


def test_float32_loses_little_where_the_offset_is_large():
    fixed, moving = 1000 + noise(1, 1, 20, 21, seed=1), 1000 + noise(1, 1, 20, 21, seed=2)
    exact = float(SSIM()(seen(fixed, moving)))
    assert float(SSIM()(seen(fixed.float(), moving.float()))) == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize("window", [1, 4])
def test_windows_are_odd(window):
    with pytest.raises(InputError, match="odd number of voxels from 3 on"):
        SSIM(window)
