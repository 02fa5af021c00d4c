"""log I₀ and its derivative, against scipy and mpmath-free closed forms; and where a truncated series leaves it."""

import numpy as np
import pytest
import scipy.special
import torch

from pullback.numerics.bessel import i1_over_i0, log_i0, log_i0_series

Z = np.concatenate([np.linspace(0, 300, 4001), np.geomspace(300, 1e6, 400)])
EXACT = np.log(scipy.special.ive(0, Z)) + Z


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 4e-7), (torch.float64, 1e-14)])
def test_log_i0_is_that_of_scipy_to_rounding(dtype, within):
    found = log_i0(torch.from_numpy(Z).to(dtype)).double().numpy()
    exact = (
        np.log(scipy.special.ive(0, Z.astype(np.float32))) + Z.astype(np.float32) if dtype == torch.float32 else EXACT
    )
    assert (np.abs(found - exact) <= within * (1 + Z)).all()


def test_its_derivative_is_the_ratio_and_exactly_0_at_0():
    z = torch.tensor([0.0, 1e-8, 1e-3, 0.5, 3.0, 40.0, 200.0, 1e5], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(log_i0(z).sum(), z)
    known = scipy.special.ive(1, z.detach().numpy()) / scipy.special.ive(0, z.detach().numpy())
    np.testing.assert_allclose(slope.numpy(), known, rtol=1e-12, atol=1e-300)
    assert float(slope[0]) == 0.0


def test_both_are_differentiated_as_their_values_say():
    z = torch.tensor([0.2, 1.0, 5.0, 30.0, -2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log_i0, z)
    assert torch.autograd.gradcheck(i1_over_i0, z)
    zero = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(i1_over_i0(zero).sum(), zero)
    assert float(slope) == 0.5


def test_log_i0_is_even_and_the_ratio_odd():
    z = torch.tensor([0.3, 2.0, 90.0], dtype=torch.float64)
    assert torch.equal(log_i0(-z), log_i0(z))
    assert torch.equal(i1_over_i0(-z), -i1_over_i0(z))


def test_fifty_terms_of_the_series_are_exact_up_to_60_and_31_nats_off_at_196():
    z = torch.tensor([1.0, 30.0, 60.0, 196.0], dtype=torch.float64)
    value, slope = log_i0_series(z, 50)
    off = value - log_i0(z)
    assert float(off[:3].abs().max()) < 1e-6
    assert float(off[3]) == pytest.approx(-31, abs=1)
    assert float(slope[3]) == pytest.approx(0.51, abs=0.01), "in place of 0.997"
    torch.testing.assert_close(slope[:3], i1_over_i0(z[:3]), rtol=0, atol=1e-5)
    more, _ = log_i0_series(z, 400)
    torch.testing.assert_close(more, log_i0(z))
