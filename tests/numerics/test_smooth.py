"""Window sums and Gaussians against scipy.ndimage."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, uniform_filter

from pullback.numerics.smooth import box_sum, gaussian, neighbour_correlation, smooth_noise, stationary_noise

SHAPES = [(12, 7), (9, 8, 11)]


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("window", [1, 3, 5, 7, 9, 11, 15, 25])
def test_box_sum_as_scipy(shape, window):
    values = noise(2, 3, *shape)
    size = (1, 1, *[window] * len(shape))
    expected = uniform_filter(values.numpy(), size, mode="constant", cval=0) * window ** len(shape)
    np.testing.assert_allclose(box_sum(values, window).numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("window", [3, 9])
def test_box_sum_is_its_own_adjoint(window):
    x, y = noise(1, 1, 6, 7, 8), noise(1, 1, 6, 7, 8, seed=1)
    torch.testing.assert_close((box_sum(x, window) * y).sum(), (x * box_sum(y, window)).sum())


def test_box_sum_counts_exactly_in_float32():
    """Whole numbers below 2²⁴ have exact sums: nothing is lost where a running sum would lose."""
    values = torch.zeros(1, 1, 64, 24, 24)
    values[:, :, :32] = 20000  # 9³ × 20000 < 2²⁴
    values[:, :, 32:] = 1
    expected = uniform_filter(values[0, 0].double().numpy(), 9, mode="constant") * 9**3
    np.testing.assert_array_equal(box_sum(values, 9)[0, 0].numpy(), np.rint(expected))


@pytest.mark.parametrize("window", [0, 2, 8, -3])
def test_box_sum_wants_an_odd_window(window):
    with pytest.raises(ValueError, match="odd"):
        box_sum(torch.zeros(1, 1, 5, 5), window)


@pytest.mark.parametrize("shape", [(23, 19), (17, 15, 18)])
@pytest.mark.parametrize("sigma", [0.6, 1.0, 1.7])
def test_gaussian_as_scipy_in_the_interior(shape, sigma):
    values = noise(1, 2, *shape)
    radius = math.ceil(4 * sigma)
    axes = tuple(range(2, values.ndim))
    expected = gaussian_filter(values.numpy(), sigma, axes=axes, radius=radius)
    inner = (slice(None), slice(None), *(slice(radius, n - radius) for n in shape))
    assert expected[inner].size > 0
    np.testing.assert_allclose(gaussian(values, sigma).numpy()[inner], expected[inner], atol=1e-12)


def test_gaussian_keeps_constants_up_to_the_border():
    values = torch.full((1, 1, 6, 7), 3.5, dtype=torch.float64)
    torch.testing.assert_close(gaussian(values, 2.0), values, rtol=0, atol=1e-12)


def test_gaussian_of_no_width_is_the_identity():
    values = noise(1, 1, 5, 6)
    assert torch.equal(gaussian(values, 0), values)


@pytest.mark.parametrize(("shape", "sigma"), [((23, 19), (1.3, 0.5)), ((17, 15, 18), (0.0, 1.4, 0.7))])
def test_gaussian_of_a_width_per_axis_as_scipy_in_the_interior(shape, sigma):
    values = noise(1, 2, *shape)
    radius = [math.ceil(4 * s) for s in sigma]
    expected = gaussian_filter(values.numpy(), sigma, axes=tuple(range(2, values.ndim)), radius=radius)
    inner = (slice(None), slice(None), *(slice(r, n - r) for r, n in zip(radius, shape, strict=True)))
    assert expected[inner].size > 0
    np.testing.assert_allclose(gaussian(values, sigma).numpy()[inner], expected[inner], atol=1e-12)


def test_gaussian_of_a_width_per_axis_is_one_axis_after_the_other():
    values = noise(1, 2, 9, 8, 7)
    both = gaussian(gaussian(values, (0.0, 1.1, 0.0)), (0.7, 0.0, 0.0))
    torch.testing.assert_close(gaussian(values, (0.7, 1.1, 0.0)), both)
    torch.testing.assert_close(gaussian(values, (0.9, 0.9, 0.9)), gaussian(values, 0.9))


def test_gaussian_wants_a_width_for_every_axis():
    with pytest.raises(ValueError, match="zip"):
        gaussian(noise(1, 1, 5, 6), (1.0,))


@pytest.mark.parametrize("shape", [(11,) * 2, (7, 6, 5)], ids=["2D", "3D"])
def test_smooth_noise_has_unit_variance_up_to_the_border(shape):
    """Within five standard errors at each voxel of 4,000 images; and as correlated as two Gaussians overlap."""
    generator = torch.Generator().manual_seed(0)
    fields = smooth_noise((4000, 1, *shape), 1.3, generator, torch.zeros((), dtype=torch.float64))
    assert float((fields.var(0) - 1).abs().max()) < 5 * math.sqrt(2 / 4000)
    middle = fields[:, 0, shape[0] // 2].flatten(1)[:, math.prod(shape[1:]) // 2]
    beside = fields[:, 0, shape[0] // 2 + 2].flatten(1)[:, math.prod(shape[1:]) // 2]
    if len(shape) == 2:  # far enough from the border
        assert float((middle * beside).mean()) == pytest.approx(math.exp(-(2**2) / (4 * 1.3**2)), abs=0.05)
    assert smooth_noise((1, 1, *shape), 0.0, generator, torch.zeros(())).dtype == torch.float32


@pytest.mark.parametrize("shape", [(11,) * 2, (6, 5, 4)], ids=["2D", "3D"])
def test_stationary_noise_is_the_same_up_to_the_border(shape):
    """Its variance is 1 and neighbours are as correlated as the kernel says: in the middle, on faces and in corners.

    Within five standard errors of 4,000 images at each voxel and each edge; no less than 0.9 apart from 1.
    """
    generator = torch.Generator().manual_seed(0)
    fields = stationary_noise((4000, 1, *shape), 1.5, 3, generator, torch.zeros((), dtype=torch.float64))
    assert fields.shape == (4000, 1, *shape)
    assert float((fields.square().mean(0) - 1).abs().max()) < 5 * math.sqrt(2 / 4000)
    expected = neighbour_correlation(1.5, 3)
    for axis in range(2, 2 + len(shape)):
        n = shape[axis - 2] - 1
        products = fields.narrow(axis, 0, n) * fields.narrow(axis, 1, n)
        assert float((products.mean(0) - expected).abs().max()) < 5 * math.sqrt((1 + expected**2) / 4000)


def test_neighbours_are_correlated_as_by_hand():
    """The kernel of the paper (61 taps of sigma 15), three weights by hand, and white noise."""
    assert neighbour_correlation(15.0, 30) == pytest.approx(0.998245, abs=5e-7)
    assert neighbour_correlation(15.0, 45) == pytest.approx(0.998885, abs=5e-7)
    side = math.exp(-0.5)
    assert neighbour_correlation(1.0, 1) == pytest.approx(2 * side / (1 + 2 * side**2))
    assert neighbour_correlation(0.0, 5) == 0.0
