"""Sine transforms against scipy, a sparse solver and closed forms."""

import math

import numpy as np
import pytest
import scipy.fft
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import spsolve

from pullback.numerics.random import make_generator
from pullback.numerics.sine import by_mode, eigenvalues, sine_transform, sine_weights

SHAPES = [(9, 12), (7, 8, 10), (3, 5)]
every_shape = pytest.mark.parametrize("shape", SHAPES)


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=make_generator(seed))


def inner(values):
    return values[(..., *[slice(1, -1)] * (values.ndim - 2))]


def stencil(shape, edges):
    """−Δ on the voxels within a border of zeros, `(N, N)`."""
    total = 0
    for axis, (n, edge) in enumerate(zip(shape, edges, strict=True)):
        m = n - 2
        part = sp.diags([np.full(m, 2.0), np.full(m - 1, -1.0), np.full(m - 1, -1.0)], [0, 1, -1]) / edge**2
        before, after = (math.prod(k - 2 for k in some) for some in (shape[:axis], shape[axis + 1 :]))
        total = total + sp.kron(sp.kron(sp.eye(before), part), sp.eye(after))
    return total.tocsc()


@every_shape
def test_as_scipys_and_its_own_inverse(shape):
    values = noise(2, 3, *shape)
    ours = sine_transform(values)
    expected = scipy.fft.dstn(values.numpy(), type=1, axes=range(2, values.ndim), norm="ortho")
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-12)
    torch.testing.assert_close(sine_transform(ours), values, rtol=0, atol=1e-12)
    assert sine_transform(values.float()).dtype == torch.float32


@every_shape
def test_poissons_equation_is_solved_as_by_a_sparse_solver(shape):
    values, edges = noise(1, 1, *shape), [0.7, 1.3, 1.0][: len(shape)]
    ours = by_mode(values, -1 / eigenvalues(shape, edges))
    expected = spsolve(-stencil(shape, edges), inner(values).flatten().numpy())
    np.testing.assert_allclose(inner(ours).flatten().numpy(), expected, atol=1e-12)
    assert ours.abs().sum() == pytest.approx(float(inner(ours).abs().sum()))  # nothing on the border


@pytest.mark.parametrize("ndim", [2, 3])
def test_poissons_error_falls_with_the_square_of_the_spacing(ndim):
    errors = []
    for n in (9, 17):
        x = torch.linspace(0, math.pi, n, dtype=torch.float64)
        u = torch.einsum("i,j->ij", x.sin(), (2 * x).sin())
        u, k = (u, 5) if ndim == 2 else (u[..., None] * (3 * x).sin(), 14)
        found = by_mode(-k * u[None, None], -1 / eigenvalues(u.shape, [math.pi / (n - 1)] * ndim))
        errors.append(float((found[0, 0] - u).abs().max()))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)


@every_shape
def test_symmetric_and_as_it_is_for_gradients(shape):
    a, b = noise(1, 2, *shape), noise(1, 2, *shape, seed=1)
    gains = 1 / (1 + eigenvalues(shape)) ** 2
    assert float((by_mode(a, gains) * b).sum()) == pytest.approx(float((a * by_mode(b, gains)).sum()), rel=1e-12)
    assert torch.autograd.gradcheck(lambda v: by_mode(v, gains), (noise(1, 1, *shape).requires_grad_(),))


def test_interpolation_by_sines_is_exact_for_modes_and_0_at_the_ends():
    n, where = 9, torch.linspace(-1, 9, 37, dtype=torch.float64)
    at = torch.arange(n, dtype=torch.float64)
    for k in (1, 3, 7):
        mode = lambda x, k=k: torch.sin(math.pi * k * x / (n - 1))  # noqa: E731
        expected = mode(where) * ((where > 0) & (where < n - 1))
        torch.testing.assert_close(sine_weights(where, n) @ mode(at), expected, rtol=0, atol=1e-12)


def test_grids_without_an_inside_are_refused():
    with pytest.raises(ValueError, match="three voxels or more"):
        by_mode(noise(1, 2, 2, 6), torch.ones(1))
