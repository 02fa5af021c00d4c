"""Flows by their right-hand side, momenta, geodesics: orders of convergence, the PDE, conservation."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from pullback.numerics.difference import cofactors, determinant, jacobian
from pullback.numerics.epdiff import carried, shoot, transported
from pullback.numerics.integrate import euler, exponential, flow, midpoint
from pullback.numerics.kernel import Sobolev
from pullback.numerics.random import make_generator
from pullback.numerics.recompute import checkpointed
from pullback.numerics.sample import sample, scatter, voxels

SHAPES = [(24, 20), (16, 14, 15)]
every_shape = pytest.mark.parametrize("shape", SHAPES)
SCHEMES = pytest.mark.parametrize(("scheme", "order"), [(euler, 1), (midpoint, 2)], ids=["euler", "midpoint"])


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=make_generator(seed))


def smooth(kernel, shape, largest, seed=0, batch=1):
    """A velocity that the kernel makes of noise, at most `largest` voxels."""
    velocity = kernel.smooth(noise(batch, len(shape), *shape, seed=seed), [1.0] * len(shape))
    return velocity * largest / velocity.abs().max()


def shot(velocity, kernel, spacing, steps, *how, **options):
    """The velocities of the steps, and that at time 1."""
    velocities, displacement = shoot(velocity, kernel, spacing, steps, *how, **options)
    return velocities, transported(velocity, displacement, kernel, spacing)


def linear(matrix, shape):
    """x ↦ matrix (x − c) about the middle of the grid."""
    middle = (torch.tensor(shape, dtype=torch.float64) - 1) / 2
    offset = voxels(shape, middle) - middle.view(-1, *[1] * len(shape))
    return torch.einsum("ab,b...->a...", torch.as_tensor(matrix), offset)[None]


def turned(shape, steps, scheme, seed=0):
    """The error of the flow of x' = A(t) x, and of one whose A depends on Dφ itself, in the middle of the grid."""
    d, rng = len(shape), np.random.default_rng(seed)
    a, b = 0.2 * rng.normal(size=(2, d, d))

    def given(t, m):
        return (a + t * b) @ m

    def own(t, m):
        return a @ m @ b @ m

    def slopes(u):
        return jacobian(u)[(0, slice(None), slice(None), *[n // 2 for n in shape])].numpy()

    errors = []
    for rate, velocity in (
        (given, lambda t, u: linear(a + t * b, shape)),
        (own, lambda t, u: linear(a @ slopes(u) @ b, shape)),
    ):
        truth = solve_ivp(lambda t, m, r=rate: r(t, m.reshape(d, d)).ravel(), (0, 1), np.eye(d).ravel(), rtol=1e-11)
        expected = linear(truth.y[:, -1].reshape(d, d) - np.eye(d), shape)
        u, _ = flow(velocity, torch.zeros_like(expected), steps, scheme)
        near = (..., *[slice(n // 2 - 2, n // 2 + 3) for n in shape])
        errors.append(float((u - expected)[near].abs().max()))
    return np.array(errors)


@every_shape
@SCHEMES
def test_the_order_of_a_scheme(shape, scheme, order):
    """Fields linear in x are interpolated without error: what is left is that of the steps in time."""
    errors = [turned(shape, steps, scheme) for steps in (8, 16)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


@every_shape
def test_a_constant_velocity_is_its_exponential(shape, smooth_field):
    velocity = smooth_field(shape, seed=1, amplitude=1.5)
    expected = exponential(velocity, 9)
    assert (
        flow(lambda t, u: velocity, torch.zeros_like(velocity), 32)[0] - expected
    ).abs().max() < 0.05  # squarings resample
    near = [float((exponential(velocity, s, midpoint) - expected).abs().max()) for s in (0, 2)]
    far = [float((exponential(velocity, s) - expected).abs().max()) for s in (0, 2)]
    assert near[0] < 0.3 * far[0]
    assert near[1] < 0.3 * far[1]
    assert torch.equal(exponential(velocity, 4, euler), exponential(velocity, 4))


@every_shape
def test_scatter_is_the_adjoint_of_sample(shape):
    d = len(shape)
    where = voxels(shape, noise(1)) + 3 * noise(2, d, *shape)  # some beyond the border
    p, v = noise(2, 3, *shape, seed=1), noise(2, 3, *shape, seed=2)
    laid = scatter(p, where, shape)
    assert float((laid * v).sum()) == pytest.approx(float((p * sample(v, where, padding="border")).sum()), rel=1e-12)
    torch.testing.assert_close(laid.sum(), p.sum())
    other = tuple(n + 2 for n in shape)
    assert scatter(p[..., :3], where[..., :3], other).shape == (2, 3, *other)
    torch.testing.assert_close(scatter(p[:1], where, shape)[1:], scatter(p[:1], where[1:], shape))


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 3), (1, 4)])
def test_scatters_gradient(shape):
    where = (voxels(shape, noise(1)) + 0.3 + 0.2 * torch.rand(1, generator=make_generator(1)).double())[
        None
    ].requires_grad_()
    p = noise(1, 2, *shape).requires_grad_()
    upstream = noise(1, 2, *shape, seed=4)
    assert torch.autograd.gradcheck(lambda p, w: scatter(p, w, shape) * upstream, (p, where))


@pytest.mark.parametrize("d", [2, 3])
def test_cofactors_are_the_transposed_inverse_times_the_determinant(d):
    matrices = noise(2, d, d, 3, 4)
    full = matrices.movedim((1, 2), (-2, -1))
    expected = torch.linalg.inv(full).mT * torch.linalg.det(full)[..., None, None]
    torch.testing.assert_close(cofactors(matrices).movedim((1, 2), (-2, -1)), expected)
    with pytest.raises(ValueError, match="cofactors"):
        cofactors(noise(1, 4, 4, 2))


@every_shape
def test_a_carried_momentum_does_to_carried_velocities_what_it_did(shape, smooth_field):
    """⟨Ad*φ m, w⟩ = ⟨m, Dφ⁻¹ w∘φ⟩, against the form with the inverse that textbooks have."""
    kernel = Sobolev(4, 3)
    u, back = (exponential(sign * smooth_field(shape, seed=2, amplitude=1.0)) for sign in (1, -1))
    m, w = (smooth(kernel, shape, 1.0, seed) for seed in (3, 4))
    slopes = jacobian(back)
    inside = sample(m, voxels(shape, m) + back)
    expected = determinant(slopes) * torch.einsum("nab...,na...->nb...", slopes, inside)
    assert float((carried(m, u) * w).sum()) == pytest.approx(float((expected * w).sum()), rel=0.03)
    assert abs(float((m * w).sum()) / float((expected * w).sum()) - 1) > 0.06  # that it was carried matters
    torch.testing.assert_close(carried(m, torch.zeros_like(m)), m)


def spectral(values, axis):
    """∂ along an axis of what vanishes on the border: its odd continuation is periodic, its derivative even."""
    n = values.shape[axis]
    odd = np.concatenate([values, -np.flip(values, axis).take(range(1, n - 1), axis)], axis)
    k = 2j * np.pi * np.fft.fftfreq(odd.shape[axis])
    k[odd.shape[axis] // 2] = 0
    shape = [1] * values.ndim
    shape[axis] = -1
    slope = np.fft.ifft(np.fft.fft(odd, axis=axis) * k.reshape(shape), axis=axis).real
    return slope.take(range(n), axis)


def epdiff(velocity, kernel, steps):
    """EPDiff as a PDE, ∂m/∂t = −(Dv)ᵀ m − Dm v − m ∇·v, by Runge and Kutta: the velocity at time 1."""
    d = velocity.shape[1]
    m = kernel.sharpen(velocity, [1.0] * d)[0].numpy()

    def rate(m):
        v = kernel.smooth(torch.from_numpy(m)[None], [1.0] * d)[0].numpy()
        dv = np.array([[spectral(v[a], b) for b in range(d)] for a in range(d)])
        dm = np.array([[spectral(m[a], b) for b in range(d)] for a in range(d)])
        along = np.einsum("ab...,a...->b...", dv, m) + np.einsum("ab...,b...->a...", dm, v)
        return -along - m * np.einsum("aa...->...", dv)

    h = 1 / steps
    for _ in range(steps):
        k1 = rate(m)
        k2 = rate(m + h / 2 * k1)
        k3 = rate(m + h / 2 * k2)
        m = m + h / 6 * (k1 + 2 * k2 + 2 * k3 + rate(m + h * k3))
    return kernel.smooth(torch.from_numpy(m)[None], [1.0] * d)


@pytest.mark.parametrize("shape", [(40, 36), (22, 24, 20)])
def test_a_shot_solves_epdiff(shape):
    """By the PDE with spectral derivatives: no flow, no momentum carried, other integration in time."""
    kernel = Sobolev(10, 4)
    start = smooth(kernel, shape, 2.0)
    _, ours = shot(start, kernel, [1.0] * len(shape), 10)
    expected = epdiff(start, kernel, 20)
    assert (ours - expected).abs().max() < 0.06
    assert (start - expected).abs().max() > 0.2  # which is not the velocity it began with


@every_shape
def test_the_length_of_the_way_stays(shape):
    """½⟨v, K⁻¹v⟩ at the end as at the start, on voxels of unlike edges too.

    What is lost is linear interpolation's: a wave of k radians per voxel keeps 1 − f(1 − f)k² of its square a share f
    off the voxels, here up to a twelfth in 3-D, and four times less on a grid twice as fine.
    """
    drift = []
    for finer in (1, 2):
        n = tuple(finer * (k - 1) + 1 for k in shape)
        spacing = [edge / finer for edge in (1.0, 1.6, 1.3)[: len(shape)]]
        kernel = Sobolev(9.0, 3, unit="mm")
        x = [torch.linspace(0, torch.pi, k, dtype=torch.float64) for k in n]
        bump = torch.ones(n, dtype=torch.float64)
        for axis, at in enumerate(x):
            bump = bump * at.sin().view(-1, *[1] * (len(n) - 1 - axis)) ** 2
        bump = bump * (1 + 0.5 * torch.sin(2 * x[-1]))
        v = torch.stack([bump * factor for factor in (0.9, -0.6, 0.5)[: len(n)]])[None] * finer
        velocities, last = shot(v, kernel, spacing, 10)
        first, end = (float((w * kernel.sharpen(w, spacing)).sum()) for w in (v, last))
        drift.append(end / first - 1)
        assert velocities.shape == (10, 1, len(n), *n)
    assert abs(drift[0]) < 0.1
    assert abs(drift[1]) < 0.4 * abs(drift[0])


def test_what_rounding_leaves_of_rough_detail_does_not_matter():
    """A kernel of order 8 on a large grid: single precision holds none of its finest momenta."""
    shape = (96, 112)
    kernel = Sobolev(0.0025, 4, unit="side")
    start = smooth(kernel, shape, 5.0)
    double, single = (shot(v, kernel, [1.0, 1.0], 5)[1] for v in (start, start.float()))
    assert (double - single).abs().max() < 2e-3


@pytest.mark.parametrize("scheme", [euler, midpoint])
@pytest.mark.parametrize("shape", [(6, 5), (4, 5, 4)])
def test_gradients_of_a_shot(shape, scheme):
    kernel = Sobolev(1, 2)
    start = smooth(kernel, shape, 0.7).requires_grad_()
    weights = noise(4, *start.shape, seed=1)

    def ways(v):
        velocities, last = shot(v, kernel, [1.0] * len(shape), 3, scheme)
        return (velocities * weights[:3]).sum(), (last * weights[3]).sum()

    assert torch.autograd.gradcheck(ways, (start,), eps=1e-7, atol=1e-4, fast_mode=True)


def test_computed_again_it_is_the_same_to_the_bit():
    kernel, shape = Sobolev(4, 2), (12, 14)
    start, gradients = smooth(kernel, shape, 2.0), []
    for frugal in (True, False):
        v = start.clone().requires_grad_()
        last = shot(v, kernel, [1.0, 1.0], 4, frugal=frugal)[1]
        gradients.append((last.detach(), *torch.autograd.grad(last.square().sum(), v)))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_only_under_gradients_is_anything_computed_again():
    calls = []

    def step(x):
        calls.append(None)
        return x * weight

    weight = torch.tensor(3.0, requires_grad=True)  # held by the step, not handed to it
    with torch.no_grad():
        checkpointed(step, torch.tensor(2.0))
    assert len(calls) == 1
    (gradient,) = torch.autograd.grad(checkpointed(step, torch.tensor(2.0)), weight)
    assert float(gradient) == 2
    assert len(calls) == 3


@every_shape
def test_batches_shoot_each_as_alone(shape):
    kernel = Sobolev(4, 2)
    both = smooth(kernel, shape, 2.0, batch=2)
    velocities, last = shot(both, kernel, [1.0] * len(shape), 3)
    for n in range(2):
        alone = shot(both[n : n + 1], kernel, [1.0] * len(shape), 3)
        torch.testing.assert_close(velocities[:, n : n + 1], alone[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(last[n : n + 1], alone[1], rtol=0, atol=1e-12)
