"""Laws of noise: how the magnitudes y ≥ 0 of a scan scatter about its signal ŷ ≥ 0.

The magnitude of a complex number with Gaussian noise of deviation σ in both parts has a Rice distribution (Gudbjartsson
and Patz 1995): above the signal in the mean, and the more so the weaker that is.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.numerics.bessel import i1_over_i0, log_i0, log_i0_series

LEAST = 1e-4
"""Magnitudes count as this much of σ at least: a Rice variable is never 0."""


class Noise(ABC):
    """A law −log p(y | ŷ, σ), with what a solver asks of it; all arguments are broadcast."""

    @abstractmethod
    def surprise(self, y: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
        """Return −log p(y | ŷ, σ)."""

    @abstractmethod
    def score(self, y: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
        """Return ∂ log p / ∂ŷ."""

    @abstractmethod
    def information(self, signal: Tensor, sigma: Tensor) -> Tensor:
        """Return how much y tells of ŷ, the expected square of the score where the law is true, or near to it.

        It is never above 1 / σ², which bounds the curvature of −log p.
        """

    def judged(self, y: Tensor, signal: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return surprise, score and information."""
        return self.surprise(y, signal, sigma), self.score(y, signal, sigma), self.information(signal, sigma)

    @abstractmethod
    def variance(self, y: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
        """Return numbers whose mean is the next σ²."""


@dataclass(frozen=True)
class RiceNoise(Noise):
    """The Rice distribution: −log p = −log y + 2 log σ + (y² + ŷ²) / 2σ² − log I₀(yŷ / σ²).

    The ratio r = I₁/I₀ is the expected cosine of the phase between signal and what was measured. With it the score is
    (r y − ŷ) / σ², and the step of expectation maximisation for σ² is the mean of (y² + ŷ² − 2 r y ŷ) / 2.

    Attributes:
        terms: of the series for I₀ after its first; 0 for the exact function. The paper has 50, see `log_i0_series`.
    """

    terms: int = 0

    def surprise(self, y: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
        y = torch.maximum(y, LEAST * sigma)
        # y² + ŷ² and 2 yŷ are of one size where the signal is strong: their difference is taken first
        apart = (y - signal).square() / (2 * sigma.square())
        z = y * signal / sigma.square()
        return 2 * sigma.log() - y.log() + apart - (self._log_i0(z) - z)

    def score(self, y: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
        return (self._ratio(y * signal / sigma.square()) * y - signal) / sigma.square()

    def information(self, signal: Tensor, sigma: Tensor) -> Tensor:
        """Return ŷ² / (ŷ² + σ²) / σ², which is right where ŷ ≪ σ and where ŷ ≫ σ, and nearly so between."""
        strength = signal.square()
        return strength / (strength + sigma.square()) / sigma.square()

    def variance(self, y: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
        cosine = self._ratio(y * signal / sigma.square())
        return (y.square() + signal.square() - 2 * cosine * y * signal) / 2

    def judged(self, y: Tensor, signal: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = torch.maximum(y, LEAST * sigma)
        variance, z = sigma.square(), y * signal / sigma.square()
        if self.terms:
            log, ratio = log_i0_series(z, self.terms)
        else:
            zero = torch.special.i0e(z)  # once for both
            log, ratio = zero.log() + z.abs(), torch.special.i1e(z) / zero
        surprise = 2 * sigma.log() - y.log() + (y - signal).square() / (2 * variance) - (log - z)
        return surprise, (ratio * y - signal) / variance, self.information(signal, sigma)

    def _log_i0(self, z: Tensor) -> Tensor:
        return log_i0_series(z, self.terms)[0] if self.terms else log_i0(z)

    def _ratio(self, z: Tensor) -> Tensor:
        return log_i0_series(z, self.terms)[1] if self.terms else i1_over_i0(z)


@dataclass(frozen=True)
class GaussianNoise(Noise):
    """A normal distribution about the signal."""

    def surprise(self, y: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
        return (y - signal).square() / (2 * sigma.square()) + sigma.log() + math.log(2 * math.pi) / 2

    def score(self, y: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
        return (y - signal) / sigma.square()

    def information(self, signal: Tensor, sigma: Tensor) -> Tensor:
        return (1 / sigma.square()).expand_as(signal)

    def variance(self, y: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
        return (y - signal).square()


@dataclass(frozen=True)
class RicianMeanNoise(Noise):
    """A normal distribution about the mean of the Rice distribution (Koay and Basser 2006), of deviation σ.

    The next σ² is by the second moment, E[y²] = ŷ² + 2σ².
    """

    def surprise(self, y: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
        return GaussianNoise().surprise(y, rician_mean(signal, sigma)[0], sigma)

    def score(self, y: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
        mean, slope = rician_mean(signal, sigma)
        return slope * (y - mean) / sigma.square()

    def information(self, signal: Tensor, sigma: Tensor) -> Tensor:
        return (rician_mean(signal, sigma)[1] / sigma).square()

    def variance(self, y: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
        return (y.square() - signal.square()) / 2


def rician_mean(signal: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of a Rice variable, and its derivative by the signal.

    With a = ŷ² / 2σ² the mean is σ √(π/2) e^(−a/2) [(1 + a) I₀(a/2) + a I₁(a/2)].
    """
    half = signal.square() / (4 * sigma.square())
    zero, one = torch.special.i0e(half), torch.special.i1e(half)
    root = math.sqrt(math.pi / 2)
    mean = sigma * root * ((1 + 2 * half) * zero + 2 * half * one)
    return mean, root * signal / (2 * sigma) * (zero + one)


def rayleigh_sigma(y: Tensor) -> Tensor:
    """Return σ of magnitudes without signal, by their median: σ √(2 log 2). Structures in few voxels do not matter."""
    return y.flatten().median() / math.sqrt(2 * math.log(2))


def fit_rice(y: Tensor, steps: int = 30) -> tuple[Tensor, Tensor]:
    """Return signal and σ of a Rice distribution for each column of magnitudes `(T, N)`, by expectation maximisation.

    It begins at the mean, and at the deviation about it.
    """
    signal, sigma = y.mean(0), y.std(0, correction=0)
    for _ in range(steps):
        variance = sigma.square().clamp(min=torch.finfo(y.dtype).tiny)
        cosine = i1_over_i0(y * signal / variance)
        signal = (cosine * y).mean(0)
        sigma = ((y.square().mean(0) + signal.square() - 2 * signal * (cosine * y).mean(0)) / 2).clamp(min=0).sqrt()
    return signal, sigma
