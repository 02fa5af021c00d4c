"""Kernels: symmetric, positive and invertible; closed forms, dense matrices and scipy."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from pullback.errors import InputError
from pullback.numerics.kernel import Gaussian, Sobolev
from pullback.numerics.random import make_generator

SHAPES = [(6, 7), (5, 6, 4)]
SPACING = [0.8, 1.5, 1.1]
SOBOLEVS = [Sobolev(2, 2), Sobolev(0.01, 2, 0.01), Sobolev(1.5, 2.5, 0.7, "mm"), Sobolev(0.0025, 4, unit="side")]
GAUSSIANS = [Gaussian(0.6), Gaussian((2.0, 0.3), (1.0, 0.05)), Gaussian((1.2, 0.4), unit="voxel")]
every_shape = pytest.mark.parametrize("shape", SHAPES)
every = pytest.mark.parametrize("kernel", [*SOBOLEVS, *GAUSSIANS], ids=repr)


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=make_generator(seed))


def still(values):
    """0 on the border."""
    kept = torch.zeros_like(values)
    inside = (..., *[slice(1, -1)] * (values.ndim - 2))
    kept[inside] = values[inside]
    return kept


def matrix(function, shape):
    """Of a linear function of one batch, `(N, N)`."""
    d = len(shape)
    basis = torch.eye(d * math.prod(shape), dtype=torch.float64).view(-1, d, *shape)
    return function(basis).flatten(1).T


@every
@every_shape
def test_symmetric_and_positive(kernel, shape):
    smooth = matrix(lambda m: kernel.smooth(m, SPACING[: len(shape)]), shape)
    smooth = smooth / smooth.abs().max()
    torch.testing.assert_close(smooth, smooth.T, rtol=0, atol=1e-14)
    values = torch.linalg.eigvalsh(smooth)
    inside = math.prod(n - 2 for n in shape) if isinstance(kernel, Sobolev) else math.prod(shape)
    assert (values > -1e-14).all()
    assert int((values > 1e-12).sum()) == len(shape) * inside  # but for the border of those that hold it still


@every
@every_shape
def test_what_was_smoothed_is_sharpened(kernel, shape):
    spacing, rough = SPACING[: len(shape)], noise(2, len(shape), *shape)
    momentum = still(rough) if isinstance(kernel, Sobolev) else rough
    velocity = kernel.smooth(momentum, spacing)
    tolerance = 1e-10 if isinstance(kernel, Sobolev) else 1e-5  # of conjugate gradients, of the root mean square
    again = kernel.smooth(kernel.sharpen(velocity, spacing), spacing)
    assert (again - velocity).norm() <= tolerance * velocity.norm() * 2
    if isinstance(kernel, Sobolev):
        torch.testing.assert_close(kernel.sharpen(velocity, spacing), momentum, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kernel", SOBOLEVS, ids=repr)
@every_shape
def test_sine_modes_are_eigenvectors_in_closed_form(kernel, shape):
    d, spacing = len(shape), SPACING[: len(shape)]
    edges = {"voxel": [1.0] * d, "mm": spacing, "side": [1 / n for n in shape]}[kernel.unit]
    mode, k2 = torch.ones(1, 1, *shape, dtype=torch.float64), 0.0
    for axis, (n, edge) in enumerate(zip(shape, edges, strict=True)):
        k = axis % 2 + 1
        wave = torch.sin(math.pi * k * torch.arange(n, dtype=torch.float64) / (n - 1))
        mode = mode * wave.view(-1, *[1] * (d - 1 - axis))
        k2 += (2 * math.sin(math.pi * k / (n - 1) / 2) / edge) ** 2
    mode, gain = mode.expand(1, d, *shape), (kernel.gamma + kernel.alpha * k2) ** kernel.power
    axes = torch.tensor(edges, dtype=torch.float64).view(-1, *[1] * d)
    torch.testing.assert_close(kernel.sharpen(mode, spacing), gain * axes**2 * mode, rtol=1e-9, atol=1e-12 * gain)


@every_shape
def test_gaussians_as_scipys_with_zeros_beyond(shape):
    values, spacing = noise(1, len(shape), *shape), SPACING[: len(shape)]
    ours = Gaussian((1.7, 0.6), (0.3, 2.0)).smooth(values, spacing)
    for axis, edge in enumerate(spacing):
        expected = sum(
            w * gaussian_filter(values[0, axis].numpy(), [s / e for e in spacing], mode="constant", truncate=9)
            for s, w in ((1.7, 0.3), (0.6, 2.0))
        )
        np.testing.assert_allclose(ours[0, axis].numpy() * edge**2, expected, atol=1e-12)


@every
@every_shape
def test_gradients_and_batches(kernel, shape):
    if isinstance(kernel, Sobolev):
        field = noise(1, len(shape), *[3] * len(shape)).requires_grad_()
        assert torch.autograd.gradcheck(lambda v: kernel.sharpen(v, SPACING[: len(shape)]), (field,))
    spacing, momenta = SPACING[: len(shape)], noise(3, len(shape), *shape)
    velocities = kernel.smooth(momenta, spacing)
    for n in range(3):
        alone = kernel.smooth(momenta[n : n + 1], spacing)
        torch.testing.assert_close(velocities[n : n + 1], alone, rtol=0, atol=1e-14)
        torch.testing.assert_close(
            kernel.sharpen(velocities, spacing)[n : n + 1], kernel.sharpen(alone, spacing), rtol=1e-9, atol=1e-9
        )


def test_the_gradient_of_an_inverse_is_the_inverse():
    kernel, velocity = Gaussian((2.0, 0.3), (1.0, 0.3)), noise(1, 2, 5, 6).requires_grad_()
    upstream = noise(1, 2, 5, 6, seed=1)
    (gradient,) = torch.autograd.grad(kernel.sharpen(velocity, [1, 1]), velocity, upstream)
    torch.testing.assert_close(gradient, kernel.sharpen(upstream, [1, 1]), rtol=1e-4, atol=1e-4)


@every
def test_no_momentum_gains_more_than_the_gain(kernel):
    shape, spacing = (9, 8), [1.0, 1.0]
    edges = torch.tensor(kernel.edges(shape, spacing), dtype=torch.float64).view(-1, 1, 1)
    most = torch.linalg.eigvalsh(matrix(lambda m: kernel.smooth(m, spacing) * edges**2, shape)).max()
    assert float(most) <= kernel.gain(shape, spacing) * (1 + 1e-12)
    assert float(most) > 0.3 * kernel.gain(shape, spacing)


def test_in_mm_the_voxels_make_no_difference():
    """The same motion on voxels half as wide: its square in the norm is the same, to the error of the stencil."""
    norms = []
    for n in (33, 65):
        x = torch.linspace(0, math.pi, n, dtype=torch.float64)
        v = (x.sin()[:, None] * (2 * x).sin())[None, None].expand(1, 2, n, n) * (n - 1) / 32  # voxels
        edge = 32 / (n - 1)
        norms.append(float((v * Sobolev(3, 2, unit="mm").sharpen(v, [edge, edge])).sum(1).mean() * (n / (n - 1)) ** 2))
    assert norms[0] == pytest.approx(norms[1], rel=0.01)


@pytest.mark.parametrize("wrong", [{"alpha": -1}, {"power": 0}, {"gamma": 0}, {"unit": "metre"}])
def test_numbers_of_no_kernel_are_refused(wrong):
    with pytest.raises(InputError, match="Sobolev"):
        Sobolev(**{"alpha": 1.0, "power": 2.0, **wrong})


@pytest.mark.parametrize("wrong", [{"sigma": 0.0}, {"sigma": ()}, {"weights": (1.0, 2.0)}, {"unit": "metre"}])
def test_numbers_of_no_gaussian_are_refused(wrong):
    with pytest.raises(InputError, match="Gaussian"):
        Gaussian(**{"sigma": 1.0, **wrong})


def test_what_a_gaussian_never_makes_is_refused():
    with pytest.raises(InputError, match="rougher than any"):
        Gaussian(3.0).sharpen(noise(1, 2, 20, 22), [1.0, 1.0])
