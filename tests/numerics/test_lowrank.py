"""Pivoted Cholesky against LAPACK's, and its error against what it leaves out."""

import pytest
import torch
from scipy.linalg.lapack import dpstrf

from pullback.numerics.lowrank import pivoted_cholesky


def covariance(count: int, width: float) -> torch.Tensor:
    points = torch.rand(count, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (-torch.cdist(points, points).square() / width**2).exp() * (1 + points[:, 0, None]) * (1 + points[:, 0])


@pytest.mark.parametrize("most", [7, 30])
def test_it_is_lapacks(most):
    whole = covariance(30, 0.1)
    factor, pivots = pivoted_cholesky(whole.diagonal(), lambda n: whole[n], 0.0, most)
    lower, order, _, _ = dpstrf(whole.numpy(), lower=1)
    assert pivots.tolist() == (order[:most] - 1).tolist()
    wanted = torch.from_numpy(lower).tril()[:, :most]
    torch.testing.assert_close(factor[torch.from_numpy(order).long() - 1], wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tolerance", [0.1, 1e-3, 1e-8])
def test_what_is_left_is_positive_and_small(tolerance):
    whole = covariance(80, 0.5)
    factor, pivots = pivoted_cholesky(whole.diagonal(), lambda n: whole[n], tolerance)
    left = whole - factor @ factor.mT
    assert float(left.trace()) <= tolerance * float(whole.trace())
    assert float(torch.linalg.eigvalsh(left)[0]) > -1e-13
    assert float(left[pivots].abs().max()) < 1e-13
    assert factor.shape == (80, len(pivots))
    assert torch.equal(factor[pivots], factor[pivots].tril())
    fewer = pivoted_cholesky(whole.diagonal(), lambda n: whole[n], 2 * tolerance)[0]
    assert fewer.shape[1] <= factor.shape[1] < 80


def test_nothing_has_no_rank():
    factor, pivots = pivoted_cholesky(torch.zeros(5, dtype=torch.float64), lambda n: torch.zeros(5).double(), 1e-3)
    assert factor.shape == (5, 0)
    assert len(pivots) == 0
