"""The Rice likelihood as an energy: scipy's density, and least where the signal is, not where the magnitude is."""

import numpy as np
import pytest
import torch
from scipy import stats

from pullback.alignment import Alignment, Pair
from pullback.energies import Rician
from pullback.errors import InputError
from pullback.numerics.random import make_generator
from pullback.space import Affine, Grid, Image

GRID = Grid.centred((12, 10))


def energy(y: torch.Tensor, signal: torch.Tensor, sigma: float, mask=None) -> float:
    return float(Rician(sigma)(Alignment(Pair(Image(y, GRID, mask), Image(signal, GRID)), Affine.identity(2))))


def test_it_is_the_mean_of_scipys_density_over_the_mask():
    draws = make_generator(0)
    signal = 5 * torch.rand(1, 1, 12, 10, generator=draws, dtype=torch.float64)
    y = 0.1 + 6 * torch.rand(1, 1, 12, 10, generator=draws, dtype=torch.float64)
    mask = torch.rand(1, 1, 12, 10, generator=draws) > 0.3
    known = -stats.rice.logpdf(y.numpy(), signal.numpy() / 1.7, scale=1.7)
    assert energy(y, signal, 1.7, mask) == pytest.approx(known[mask.numpy()].mean(), abs=1e-10)


def test_it_is_least_at_the_signal_and_not_at_the_mean_of_the_magnitudes():
    y = torch.from_numpy(stats.rice.rvs(0.8, scale=1, size=(1, 1, 12, 10), random_state=1))
    levels = np.linspace(0.2, 1.8, 81)
    values = [energy(y, torch.full_like(y, level), 1.0) for level in levels]
    best = levels[int(np.argmin(values))]
    assert abs(best - 0.8) < 0.3
    assert float(y.mean()) > best + 0.3


def test_noise_without_size_is_refused():
    with pytest.raises(InputError, match="above 0"):
        Rician(0.0)
