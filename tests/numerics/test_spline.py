"""The spline against scipy, and what it must meet exactly."""

import pytest
import torch
from scipy.interpolate import RBFInterpolator

from pullback.numerics.random import make_generator
from pullback.numerics.spline import spline

KERNELS = {2: "thin_plate_spline", 3: "linear"}


def drawn(n, seed, ndim=3):
    return 100 * torch.rand(n, ndim, generator=make_generator(seed), dtype=torch.float64)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("smoothing", [0.0, 10.0, 1e3])
def test_affine_values_are_met_everywhere(smoothing, ndim):
    points, elsewhere = drawn(80, 0, ndim), 3 * drawn(50, 1, ndim) - 100
    matrix = torch.randn(ndim, 3, generator=make_generator(2), dtype=torch.float64)
    fitted = spline(points, points @ matrix + 5, smoothing)
    torch.testing.assert_close(fitted(elsewhere), elsewhere @ matrix + 5)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("smoothing", [0.0, 30.0])
def test_it_is_scipys(smoothing, ndim):
    points, elsewhere = drawn(80, 0, ndim), drawn(50, 1, ndim)
    values = torch.randn(80, 3, generator=make_generator(3), dtype=torch.float64)
    truth = RBFInterpolator(points.numpy(), values.numpy(), kernel=KERNELS[ndim], degree=1, smoothing=smoothing)
    torch.testing.assert_close(spline(points, values, smoothing)(elsewhere), torch.from_numpy(truth(elsewhere.numpy())))


@pytest.mark.parametrize("ndim", [2, 3])
def test_without_smoothing_it_goes_through_its_values(ndim):
    points = drawn(60, 4, ndim)
    values = torch.randn(60, 2, generator=make_generator(5), dtype=torch.float64)
    torch.testing.assert_close(spline(points, values)(points), values)


@pytest.mark.parametrize("points", [drawn(3, 6), torch.cat([drawn(9, 7)[:, :2], torch.ones(9, 1)], 1)])
def test_points_of_a_plane_are_refused(points):
    with pytest.raises(ValueError, match="at least four points that do not lie in one plane"):
        spline(points.double(), points.double())


@pytest.mark.parametrize("points", [drawn(2, 6, 2), torch.cat([drawn(9, 7)[:, :1], torch.ones(9, 1)], 1)])
def test_points_of_a_line_are_refused(points):
    with pytest.raises(ValueError, match="at least three points that do not lie in one line"):
        spline(points, points)
