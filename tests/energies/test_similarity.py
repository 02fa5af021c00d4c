"""MSE and NCC against numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from pullback.alignment import Alignment, Pair
from pullback.energies import MSE, NCC, ncc
from pullback.space import Affine, Grid, Image


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def seen(fixed, moving, mask=None):
    grid = Grid.centred(tuple(fixed.shape[2:]))
    return Alignment(Pair(Image(fixed, grid, mask), Image(moving, grid)), Affine.identity(grid.ndim))


@pytest.mark.parametrize("shape", [(6, 7), (4, 5, 6)])
@pytest.mark.parametrize("masked", [False, True])
def test_mse_as_numpy(shape, masked):
    fixed, moving = noise(2, 3, *shape, seed=1), noise(2, 3, *shape, seed=2)
    mask = noise(2, 1, *shape, seed=3) > 0 if masked else None
    weights = None if mask is None else mask.expand_as(fixed).numpy()
    expected = np.average((fixed.numpy() - moving.numpy()) ** 2, weights=weights)
    assert float(MSE()(seen(fixed, moving, mask))) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shape", [(6, 7), (4, 5, 6)])
@pytest.mark.parametrize("masked", [False, True])
def test_ncc_as_numpy(shape, masked):
    fixed, moving = noise(2, 3, *shape, seed=1), noise(2, 3, *shape, seed=2)
    mask = noise(2, 1, *shape, seed=3) > 0 if masked else None
    expected = np.zeros((2, 3))
    for b in range(2):
        keep = slice(None) if mask is None else mask[b, 0].numpy()
        for c in range(3):
            expected[b, c] = np.corrcoef(fixed[b, c].numpy()[keep].ravel(), moving[b, c].numpy()[keep].ravel())[0, 1]
    np.testing.assert_allclose(ncc(fixed, moving, mask).numpy(), expected, atol=1e-9)
    energy = NCC()(seen(fixed, moving, mask))
    assert float(energy) == pytest.approx(1 - (expected**2).mean(), abs=1e-9)


@given(st.floats(0.01, 100), st.floats(-100, 100), st.integers(0, 10**6))
def test_ncc_is_one_for_affine_intensities_and_changes_sign_with_them(scale, offset, seed):
    image = noise(1, 1, 7, 8, seed=seed)
    assert float(ncc(image, scale * image + offset)) == pytest.approx(1, abs=1e-6)
    assert float(ncc(image, -scale * image + offset)) == pytest.approx(-1, abs=1e-6)


@pytest.mark.parametrize("level", [0.0, 0.1, 1.7, 1000.1, 31415.9, -271828.2])
def test_ncc_of_constants_is_nothing(level):
    """Also where the mean of a constant is rounded in float32."""
    constant, texture = torch.full((1, 1, 17, 18, 19), level), noise(1, 1, 17, 18, 19).float()
    for i, other in ((constant, texture), (texture, constant), (constant, constant), (constant, 3 * constant)):
        j = other.clone().requires_grad_()
        value = ncc(i, j)
        assert value.item() == 0
        (gradient,) = torch.autograd.grad(value.sum(), j)
        assert not gradient.any()


@pytest.mark.parametrize("scale", [10.0**power for power in range(-30, 31, 6)])
@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_ncc_does_not_see_the_unit(scale, offset):
    """In float32, whose squares end at 1e38; and a gradient is as many times smaller as intensities are larger."""
    fixed, moving = noise(1, 2, 9, 8, 7, seed=1), noise(1, 2, 9, 8, 7, seed=2) + offset
    mask = noise(1, 1, 9, 8, 7, seed=3) > 0
    moving.requires_grad_()
    expected = ncc(fixed, moving, mask)
    (slope,) = torch.autograd.grad(expected.sum(), moving)
    scaled = (scale * moving).detach().float().requires_grad_()
    found = ncc((fixed / scale).float(), scaled, mask)
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=0)
    (found_slope,) = torch.autograd.grad(found.sum(), scaled)
    torch.testing.assert_close(found_slope.double() * scale, slope, atol=1e-5 * float(slope.abs().max()), rtol=0)


def test_ncc_of_large_intensities_in_float32():
    """Raw MR: each sum of squares fits well into float32, their product does not."""
    image = 1e6 * noise(1, 1, 60, 60, 60).float()
    assert float(ncc(image, image)) == pytest.approx(1, abs=1e-3)
    assert float(ncc(1e4 * image, image)) == pytest.approx(1, abs=1e-3)
