"""Costs of displacements on a lattice: their order, their lower envelope, and means, as scipy has them."""

import numpy as np
import pytest
import torch
from scipy.ndimage import grey_erosion, uniform_filter

from pullback.numerics.cost_volume import (
    correlation,
    cost_volume,
    lattice_costs,
    lower_envelope,
    offsets,
    twice_averaged,
)

LIKE = torch.zeros((), dtype=torch.float64)
dimensions = pytest.mark.parametrize("ndim", [2, 3])


@dimensions
def test_the_order_of_the_lattice_is_that_of_its_axes(ndim):
    at = offsets(2, ndim, LIKE, nearest_first=False)
    assert torch.equal(at.reshape(*[5] * ndim, ndim)[..., 0].flatten(1)[:, 0], torch.arange(-2, 3.0, dtype=at.dtype))
    assert torch.equal(at[:5, -1], torch.arange(-2, 3.0, dtype=at.dtype))
    assert {*map(tuple, at.tolist())} == {*map(tuple, offsets(2, ndim, LIKE).tolist())}


@dimensions
def test_the_lower_envelope_is_an_erosion_and_two_means_of_the_lattice_padded_once(ndim):
    k = 2
    costs = torch.rand(2, (2 * k + 1) ** ndim, *(3, 4, 2)[:ndim], dtype=torch.float64)
    found = lower_envelope(costs, k)
    for place in np.ndindex(2, *costs.shape[2:]):
        lattice = costs[(place[0], slice(None), *place[1:])].reshape([2 * k + 1] * ndim).numpy()
        padded = np.pad(lattice, 3, mode="edge")
        expected = uniform_filter(uniform_filter(grey_erosion(padded, size=3), 3), 3)[(slice(3, -3),) * ndim]
        there = found[(place[0], slice(None), *place[1:])].reshape([2 * k + 1] * ndim).numpy()
        np.testing.assert_allclose(there, expected, atol=1e-12)


def test_the_lower_envelope_of_a_parabola_keeps_its_place():
    at = offsets(5, 2, LIKE, nearest_first=False)
    for place in ([0, 0], [-2, 1], [1, -1]):
        parabola = 0.3 * (at - torch.tensor(place, dtype=at.dtype)).square().sum(1)
        found = lower_envelope(parabola.view(1, -1, 1, 1), 5)[0, :, 0, 0]
        assert at[found.argmin()].tolist() == place


def test_one_cheap_displacement_makes_seven_by_seven_cheaper():
    costs = torch.ones(1, 121, 1, 1, dtype=torch.float64)
    costs[0, 60] = 0  # the middle
    cheaper = lower_envelope(costs, 5)[0, :, 0, 0].reshape(11, 11) < 1 - 1e-12
    assert int(cheaper.sum()) == 49
    assert bool(cheaper[2:9, 2:9].all())


@dimensions
def test_twice_averaged_is_two_means_of_values_padded_once_and_keeps_constants(ndim):
    values = torch.rand(1, 2, *(5, 6, 4)[:ndim], dtype=torch.float64)
    found = twice_averaged(values)
    for channel in range(2):
        padded = np.pad(values[0, channel].numpy(), 2, mode="edge")
        expected = uniform_filter(uniform_filter(padded, 3), 3)[(slice(2, -2),) * ndim]
        np.testing.assert_allclose(found[0, channel].numpy(), expected, atol=1e-12)
    constant = values[..., :1, :1].mean() * torch.ones_like(values)
    torch.testing.assert_close(twice_averaged(constant), constant, atol=1e-12, rtol=0)


@dimensions
def test_costs_of_a_lattice_are_those_of_its_displacements(ndim):
    one, two = torch.rand(2, 2, 3, *(4, 6, 3)[:ndim], dtype=torch.float64)
    at = offsets(2, ndim, LIKE, nearest_first=False)
    expected = cost_volume(one, two, at, padding="border")
    torch.testing.assert_close(lattice_costs(one, two, 2), expected, atol=1e-12, rtol=0)


def test_costs_beyond_the_border_and_products():
    """By a loop: x + d is brought back onto the grid, or 0 there."""
    one, two = torch.rand(2, 1, 3, 4, 5, dtype=torch.float64)
    at = offsets(1, 2, LIKE, nearest_first=False)
    border, products = cost_volume(one, two, at, padding="border"), correlation(one, two, at)
    for n, (di, dj) in enumerate(at.int().tolist()):
        for i in range(4):
            for j in range(5):
                a, b = i + di, j + dj
                near = two[0, :, min(max(a, 0), 3), min(max(b, 0), 4)]
                assert float(border[0, n, i, j]) == pytest.approx(float((one[0, :, i, j] - near).square().sum()))
                inside = 0 <= a < 4 and 0 <= b < 5
                expected = float((one[0, :, i, j] * near).mean()) if inside else 0.0
                assert float(products[0, n, i, j]) == pytest.approx(expected)
