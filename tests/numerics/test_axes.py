"""Matrices along one axis against scipy and against sampling at scattered points."""

import numpy as np
import pytest
import torch
from scipy.interpolate import make_interp_spline
from scipy.ndimage import map_coordinates

from pullback.numerics.random import make_generator
from pullback.numerics.sample import sample
from pullback.numerics.separable import apply_along, cubic_weights, linear_weights, spline_weights

LENGTHS = [1, 2, 3, 8]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=make_generator(seed))


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6)])
def test_a_matrix_along_each_axis_as_einsum(shape):
    values, letters = noise(2, 3, *shape), "xyz"[: len(shape)]
    for axis, letter in enumerate(letters):
        matrix = noise(7, shape[axis], seed=1)
        out = letters.replace(letter, "m")
        expected = torch.einsum(f"m{letter},bc{letters}->bc{out}", matrix, values)
        torch.testing.assert_close(apply_along(matrix, values, axis), expected)


@pytest.mark.parametrize("n", LENGTHS)
def test_linear_weights_as_numpy_within_and_faded_beyond(n):
    where, line = torch.linspace(-2, n + 1, 61, dtype=torch.float64), noise(n)
    beyond = (where - where.clamp(0, n - 1)).abs().numpy()
    expected = np.interp(where.numpy(), np.arange(n), line.numpy()) * np.clip(1 - beyond, 0, None)
    np.testing.assert_allclose((linear_weights(where, n) @ line).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("n", LENGTHS)
def test_spline_weights_add_up_to_one_inside_and_fade_beyond(n):
    where = torch.linspace(-2, n + 1, 61, dtype=torch.float64)
    weights = spline_weights(where, n)
    beyond = (where - where.clamp(0, n - 1)).abs()
    torch.testing.assert_close(weights.sum(1), (1 - beyond).clamp(min=0))
    assert float(weights.min()) >= 0


def test_spline_weights_are_the_cubic_spline():
    """On the voxels 1/6, 4/6, 1/6; half-way 1/48, 23/48, 23/48, 1/48."""
    weights = spline_weights(torch.tensor([3.0, 3.5], dtype=torch.float64), 8)
    expected = torch.zeros(2, 8, dtype=torch.float64)
    expected[0, 2:5] = torch.tensor([1.0, 4, 1]) / 6
    expected[1, 2:6] = torch.tensor([1.0, 23, 23, 1]).double() / 48
    torch.testing.assert_close(weights, expected)


@pytest.mark.parametrize("n", [2, 3, 8])
def test_spline_interpolation_as_scipy(n):
    """Values at the voxels are interpolated as by ndimage's cubic splines, mirrored."""
    line, where = noise(n), torch.linspace(0, n - 1, 41, dtype=torch.float64)
    found = cubic_weights(where, n) @ line
    expected = map_coordinates(line.numpy(), where.numpy()[None], order=3, mode="mirror")
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)
    if n > 3:  # mirrored ends are flat ends
        clamped = make_interp_spline(np.arange(n), line.numpy(), bc_type=([(1, 0.0)], [(1, 0.0)]))
        np.testing.assert_allclose(found.numpy(), clamped(where.numpy()), atol=1e-9)


@pytest.mark.parametrize("shape", [(6, 7), (5, 6, 4)])
def test_axis_by_axis_as_at_scattered_points(shape):
    """A tensor product of linear weights is `sample`, within and beyond the border."""
    values = noise(2, 3, *shape)
    where = [torch.linspace(-1.3, n + 0.4, n + 3, dtype=torch.float64) for n in shape]
    out = values
    for axis, (at, n) in enumerate(zip(where, shape, strict=True)):
        out = apply_along(linear_weights(at, n), out, axis)
    points = torch.stack(torch.meshgrid(*where, indexing="ij"))[None]
    torch.testing.assert_close(out, sample(values, points))
