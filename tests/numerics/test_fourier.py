"""Cross-correlations by FFT against scipy.signal, which sums."""

import numpy as np
import pytest
import torch
from scipy.signal import correlate

from pullback.numerics.fourier import Shifts, correlation, cross_correlation, product, spectrum

SHAPES = [((9,), (6,)), ((7, 12), (11, 5)), ((4, 9), (4, 9)), ((5, 8, 6), (7, 3, 9)), ((1, 4, 6), (3, 1, 6))]


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def summed(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """At all shifts, from −(length of a − 1) on."""
    return np.sum([correlate(y, x, mode="full", method="direct") for x, y in zip(a.numpy(), b.numpy(), strict=True)], 0)


@pytest.mark.parametrize(("a", "b"), SHAPES)
@pytest.mark.parametrize("parts", [1, 3])
def test_all_shifts_as_scipy(a, b, parts):
    one, two = noise(parts, *a, seed=1), noise(parts, *b, seed=2)
    np.testing.assert_allclose(cross_correlation(one, two).numpy(), summed(one, two), atol=1e-10)


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_less_padding_leaves_the_kept_shifts_alone(a, b):
    one, two = noise(2, *a, seed=3), noise(2, *b, seed=4)
    least = tuple(-(-min(n, m) // 2) for n, m in zip(a, b, strict=True))
    inner = tuple(slice(o - 1, n + m - o) for n, m, o in zip(a, b, least, strict=True))
    np.testing.assert_allclose(cross_correlation(one, two, least).numpy(), summed(one, two)[inner], atol=1e-10)


def test_the_index_of_the_peak_is_the_shift():
    """What lies at x in one and at x + χ in the other is found at χ."""
    one, two = torch.zeros(1, 9, 8), torch.zeros(1, 12, 7)
    one[0, 2, 6] = two[0, 7, 3] = 1
    shifts = Shifts((9, 8), (12, 7), (2, 3))
    values = cross_correlation(one, two, shifts.overlap)
    assert tuple(values.shape) == shifts.shape
    peak = np.unravel_index(int(values.argmax()), values.shape)
    assert [int(i) + first for i, first in zip(peak, shifts.first, strict=True)] == [5, -3]


def test_one_against_a_batch():
    one, batch = noise(3, 6, 7, seed=5), noise(4, 3, 8, 5, seed=6)
    shifts = Shifts((6, 7), (8, 5), (1, 1))
    values = correlation(product(spectrum(one, shifts).conj(), spectrum(batch, shifts)), shifts)
    for value, other in zip(values, batch, strict=True):
        np.testing.assert_allclose(value.numpy(), summed(one, other), atol=1e-10)


def test_counts_of_voxels_are_exact_in_float32():
    """Overlaps of masks are whole numbers: rounding recovers them."""
    generator = torch.Generator().manual_seed(7)
    one, two = ((torch.rand(1, 24, 30, 26, generator=generator) < 0.6).float() for _ in range(2))
    exact = cross_correlation(one.double(), two.double()).round()
    assert torch.equal(cross_correlation(one, two).round().double(), exact)


def test_half_an_overlap_costs_half_as_much_again():
    assert Shifts((64,), (64,), (32,)).padded == (96,)
    assert Shifts((64,), (64,), (1,)).padded == (128,)


@pytest.mark.parametrize("overlap", [0, 6])
def test_an_overlap_that_cannot_be(overlap):
    with pytest.raises(ValueError, match="overlap"):
        cross_correlation(torch.zeros(1, 5, 9), torch.zeros(1, 9, 9), overlap)
