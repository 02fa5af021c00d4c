"""Laws of noise: densities against scipy and in their limits, and scores that have no bias where the law is true."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from pullback.numerics.noise import GaussianNoise, RiceNoise, RicianMeanNoise, fit_rice, rayleigh_sigma, rician_mean
from pullback.numerics.random import make_generator


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def drawn(signal: float, sigma: float, count: int) -> torch.Tensor:
    """Magnitudes of a complex signal with noise."""
    noise = sigma * torch.randn(2, count, generator=make_generator(3), dtype=torch.float64)
    return torch.hypot(signal + noise[0], noise[1])


@pytest.mark.parametrize(("signal", "sigma"), [(0.0, 1.0), (0.7, 1.0), (30.0, 10.0), (140.0, 10.0)])
def test_rice_is_scipys_density_and_integrates_to_1(signal, sigma):
    def density(y: float) -> float:
        return math.exp(-float(RiceNoise().surprise(number(y), number(signal), number(sigma))))

    for y in (0.3 * sigma, sigma, signal + sigma):
        known = stats.rice.logpdf(y, signal / sigma, scale=sigma)
        assert math.log(density(y)) == pytest.approx(known, abs=1e-10)
    low, high = max(signal - 12 * sigma, 1e-3 * sigma), signal + 12 * sigma
    whole, _ = integrate.quad(density, low, high, epsabs=1e-11, limit=200)
    below = stats.rice.cdf(low, signal / sigma, scale=sigma)
    assert whole + below == pytest.approx(1, abs=1e-8)


def test_without_signal_it_is_rayleigh_and_with_much_of_it_gaussian_a_little_above():
    y = torch.linspace(0.1, 5, 50, dtype=torch.float64)
    rayleigh = -(y.log() - y.square() / 2)
    torch.testing.assert_close(RiceNoise().surprise(y, torch.zeros_like(y), number(1.0)), rayleigh)
    about = torch.linspace(98, 102, 9, dtype=torch.float64)
    near = GaussianNoise().surprise(about, number(100 + 1 / 200), number(1.0))
    torch.testing.assert_close(RiceNoise().surprise(about, number(100.0), number(1.0)), near, rtol=0, atol=1e-3)


@pytest.mark.parametrize("noise", [RiceNoise(), RiceNoise(80), GaussianNoise(), RicianMeanNoise()], ids=repr)
def test_the_score_is_the_slope_of_the_surprise(noise):
    y = torch.tensor([0.5, 1.0, 3.0, 8.0], dtype=torch.float64)
    signal = torch.tensor([0.2, 2.0, 1.0, 7.0], dtype=torch.float64, requires_grad=True)
    sigma = number(1.3)
    (slope,) = torch.autograd.grad(-noise.surprise(y, signal, sigma).sum(), signal)
    torch.testing.assert_close(noise.score(y, signal.detach(), sigma), slope, rtol=1e-9, atol=1e-12)
    for one, other in zip(
        noise.judged(y, signal.detach(), sigma),
        (noise.surprise(y, signal.detach(), sigma), slope, noise.information(signal.detach(), sigma)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("signal", [0.5, 1.5, 5.0])
def test_the_score_of_rice_and_of_its_mean_has_no_bias_and_that_of_gauss_has(signal):
    y = drawn(signal, 1.0, 300_000)
    for noise in (RiceNoise(), RicianMeanNoise()):
        score = noise.score(y, number(signal), number(1.0))
        assert abs(float(score.mean())) < 4 * float(score.std()) / 300_000**0.5
    bias = float(GaussianNoise().score(y, number(signal), number(1.0)).mean())
    assert bias == pytest.approx(float(rician_mean(number(signal), number(1.0))[0]) - signal, abs=0.01)
    assert bias > 0.09


@pytest.mark.parametrize("signal", [0.05, 0.5, 1.0, 2.0, 4.0, 20.0])
def test_the_information_of_rice_is_nearly_the_expected_square_of_its_score(signal):
    def weighted(y: float) -> float:
        score = float(RiceNoise().score(number(y), number(signal), number(1.0)))
        return score**2 * stats.rice.pdf(y, signal)

    known, _ = integrate.quad(weighted, 0, signal + 12, limit=200)
    assert float(RiceNoise().information(number(signal), number(1.0))) == pytest.approx(known, rel=0.16)


def test_the_mean_of_rice_is_scipys_and_its_slope_that_of_its_values():
    signal = torch.tensor([0.0, 0.3, 1.0, 4.0, 50.0], dtype=torch.float64)
    mean, slope = rician_mean(signal, number(2.0))
    np.testing.assert_allclose(mean.numpy(), stats.rice.mean(signal.numpy() / 2, scale=2), rtol=1e-7)
    further = rician_mean(signal + 1e-5, number(2.0))[0]
    torch.testing.assert_close(slope, (further - mean) / 1e-5, rtol=0, atol=1e-5)


def test_the_next_sigma_is_the_true_one_at_the_truth():
    y = drawn(1.2, 3.0, 300_000)
    for noise in (RiceNoise(), RicianMeanNoise()):
        variance = noise.variance(y, number(1.2), number(3.0)).mean()
        assert float(variance.sqrt()) == pytest.approx(3.0, rel=0.01)
    assert float(rayleigh_sigma(drawn(0.0, 7.0, 100_000))) == pytest.approx(7.0, rel=0.01)


def test_the_fit_of_a_column_is_scipys():
    y = torch.stack([drawn(signal, 1.0, 400) for signal in (3.0, 6.0)], 1)
    signal, sigma = fit_rice(y, 60)
    for n in range(2):
        b, _, scale = stats.rice.fit(y[:, n].numpy(), float(y[:, n].mean()), floc=0)
        assert float(sigma[n]) == pytest.approx(scale, abs=1e-3)
        assert float(signal[n]) == pytest.approx(b * scale, abs=1e-3)
