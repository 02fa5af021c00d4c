"""Composition, exponential and inverse: group laws, closed forms, and an integration by other means."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from scipy.linalg import expm
from scipy.ndimage import map_coordinates

from pullback.numerics.integrate import compose, exponential, invert
from pullback.numerics.sample import voxels

SHAPES = [(24, 20), (16, 14, 15)]
shapes, seeds = st.sampled_from(SHAPES), st.integers(0, 10**6)


def linear_field(matrix, shape):
    """x ↦ matrix (x − c) about the middle of the grid, `(1, d, *shape)`, and the offsets x − c."""
    matrix = torch.as_tensor(matrix)
    middle = (torch.tensor(shape, dtype=torch.float64) - 1) / 2
    offset = voxels(shape, middle) - middle.view(-1, *[1] * len(shape))
    return torch.einsum("ab,b...->a...", matrix, offset)[None], offset


def inner(values, margin):
    return values[(slice(None), slice(None), *[slice(margin, -margin)] * (values.ndim - 2))]


def curvature(field):
    """Σ over axes of the largest second difference: linear interpolation is wrong by at most ⅛ of it."""
    return sum(float(field.diff(n=2, dim=axis).abs().max()) for axis in range(2, field.ndim))


def generator_matrix(d, seed=0, scale=0.12):
    return scale * np.random.default_rng(seed).normal(size=(d, d))


@pytest.mark.parametrize("shape", SHAPES)
def test_compose_of_linear_maps_is_their_product(shape):
    d = len(shape)
    a, b = 0.5 * generator_matrix(d, 1), 0.5 * generator_matrix(d, 2)
    (outer, _), (within, _) = linear_field(a, shape), linear_field(b, shape)
    expected, _ = linear_field((np.eye(d) + a) @ (np.eye(d) + b) - np.eye(d), shape)
    torch.testing.assert_close(inner(compose(outer, within), 4), inner(expected, 4), rtol=0, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_exponential_of_a_linear_velocity_is_the_matrix_exponential(shape):
    d = len(shape)
    matrix = generator_matrix(d)
    velocity, _ = linear_field(matrix, shape)
    expected, _ = linear_field(expm(matrix) - np.eye(d), shape)
    worst = []
    for squarings in (7, 8):
        off = inner(exponential(velocity, squarings) - expected, 5)
        worst.append(float(off.abs().max()))
    # the first step is explicit Euler, so the error is of first order in 2^-squarings: it halves with each squaring
    assert worst[0] < 5e-3
    assert worst[1] == pytest.approx(worst[0] / 2, rel=0.05)


@pytest.mark.parametrize("shape", SHAPES)
def test_exponential_as_runge_kutta(shape, smooth_field):
    velocity = smooth_field(shape, seed=3, amplitude=1.5)

    def at(points):
        return np.stack([map_coordinates(v, points, order=1, mode="nearest") for v in velocity[0].numpy()])

    start = voxels(shape, velocity).flatten(1).numpy()
    x, steps = start.copy(), 64
    for _ in range(steps):
        k1 = at(x)
        k2 = at(x + k1 / (2 * steps))
        k3 = at(x + k2 / (2 * steps))
        x = x + (k1 + 2 * k2 + 2 * k3 + at(x + k3 / steps)) / (6 * steps)
    expected = (x - start).reshape(velocity[0].shape)
    ours = exponential(velocity)[0].numpy()
    assert np.abs(expected - velocity[0].numpy()).max() > 0.1  # the flow is not the velocity
    assert np.abs(ours - expected).max() < 0.03  # each squaring resamples the displacement linearly


@given(shapes, seeds)
def test_exponential_of_minus_v_undoes_it(smooth_field, shape, seed):
    velocity = smooth_field(shape, seed, amplitude=1.5)
    there, back = exponential(velocity), exponential(-velocity)
    assert there.abs().max() > 0.5
    # two flows, each of squarings that resample linearly; all but the last of them are much smaller
    assert compose(there, back).abs().max() < curvature(velocity) / 2
    assert compose(back, there).abs().max() < curvature(velocity) / 2


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_left_of_exp_v_exp_minus_v_falls_with_the_square_of_the_spacing(shape, smooth_field):
    left = []
    for finer in (1, 2):  # one field on two grids, and what is left of it in coarse voxels
        refined = tuple(finer * (n - 1) + 1 for n in shape)
        velocity = smooth_field(refined, seed=5, amplitude=1.5 * finer, shortest=14 * finer)
        left.append(compose(exponential(velocity, 9), exponential(-velocity, 9)).abs().max() / finer)
    assert left[1] < 0.4 * left[0]


def test_exponential_of_zero_and_of_a_constant():
    still = torch.zeros(1, 2, 6, 7, dtype=torch.float64)
    assert torch.equal(exponential(still), still)
    torch.testing.assert_close(exponential(still + 1.25), still + 1.25)


@given(shapes, seeds)
def test_inverse_undoes_a_smooth_field_from_both_sides(smooth_field, shape, seed):
    field = smooth_field(shape, seed, amplitude=1.5)
    inverse = invert(field, tolerance=1e-6)
    assert compose(field, inverse).abs().max() <= 1e-6  # the promise: (id + u) ∘ (id + w)
    # the other order resamples w, which is exact at the voxels; twice the bound, as w has kinks between them
    assert compose(inverse, field).abs().max() < curvature(inverse) / 4


@pytest.mark.parametrize("shape", SHAPES)
def test_inverse_of_a_linear_map_is_the_inverse_matrix(shape):
    d = len(shape)
    matrix = np.eye(d) + generator_matrix(d, 4)
    field, _ = linear_field(matrix - np.eye(d), shape)
    expected, _ = linear_field(np.linalg.inv(matrix) - np.eye(d), shape)
    torch.testing.assert_close(inner(invert(field, 1e-8), 5), inner(expected, 5), rtol=0, atol=1e-6)


def test_inverse_of_a_translation():
    field = torch.full((1, 3, 5, 6, 7), -1.75, dtype=torch.float64)
    torch.testing.assert_close(invert(field), -field)


def test_inverse_of_a_fold_stays_finite_and_its_residual_tells():
    field = torch.zeros(1, 2, 16, 16, dtype=torch.float64)
    field[:, 0, 8] = 6  # this row jumps over six others
    inverse = invert(field)
    assert inverse.isfinite().all()
    assert inverse.abs().max() < 50
    assert compose(field, inverse).abs().max() > 0.1
