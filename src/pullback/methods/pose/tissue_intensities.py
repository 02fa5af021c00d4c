"""Intensities of the tissues and noise, which all frames of a series share, by expectation maximisation."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pullback.numerics.noise import Noise

FAINT = 0.05  # of the strongest tissue: what a tissue has at least at the start, for at 0 nothing tells it


@dataclass(frozen=True, eq=False)
class Shared:
    """Intensities of the tissues, the deviation of the noise, and what is expected of the intensities.

    Attributes:
        intensities: `(K,)` float64.
        sigma: `()` float64.
        mean: `(K,)` float64.
        precision: `(K,)` float64, one over squared deviations; 0 where nothing is expected.
    """

    intensities: Tensor
    sigma: Tensor
    mean: Tensor
    precision: Tensor

    @property
    def surprise(self) -> Tensor:
        """The negative log prior of the intensities."""
        return (self.precision * (self.intensities - self.mean).square()).sum() / 2


def begun(
    values: Tensor, tissues: Tensor, sigma: Tensor, mean: tuple[float, ...], deviation: tuple[float, ...]
) -> Shared:
    """Return what to begin with, by the mean square of frames `(T, N)`: E[y²] = ŷ² + 2σ².

    With intensities expected, these times the scale a of which (a Σ μₖ Gₖ)² is nearest to it; else those of which the
    sum is nearest to its root.

    Args:
        values: the frames.
        tissues: where the frames lie as they are, `(K, N)`.
        sigma: of the noise.
        mean, deviation: of the intensities, up to a scale; or none.
    """
    squares = values.double().square().mean(0) - 2 * sigma.double().square()
    maps = tissues.double()
    if mean:
        expected, spread = maps.new_tensor(mean), maps.new_tensor(deviation)
        shape = (expected @ maps).square()
        scale = ((squares * shape).sum() / shape.square().sum()).clamp(min=0).sqrt()
        return Shared(scale * expected, sigma.double(), scale * expected, 1 / (scale * spread).square())
    signal = squares.clamp(min=0).sqrt()
    found = torch.linalg.lstsq(maps @ maps.T, (maps @ signal)[:, None]).solution[:, 0]
    found = torch.maximum(found, FAINT * found.max())
    return Shared(found, sigma.double(), torch.zeros_like(found), torch.zeros_like(found))


def refined(values: Tensor, tissues: Tensor, known: Shared, noise: Noise, steps: int) -> tuple[Shared, Tensor]:
    """Take steps of expectation maximisation, and return what they lead to and −log p of each frame, `(T,)`.

    By the score s of each voxel a step is x ← x + (ΣGᵀG / σ² + S⁻¹)⁻¹ (ΣGᵀs − S⁻¹(x − μ)), kept at 0 and above; with
    the Rice distribution that is the step whose expected phase is I₁/I₀. Then σ² is the mean of `Noise.variance`. The
    posterior never falls.

    Args:
        values: frames, `(T, N)`.
        tissues: maps moved into each frame, `(T, K, N)`.
        known: where to begin.
        noise: law of the noise.
        steps: number of steps.
    """
    both = (tissues @ tissues.mT).double().sum(0)  # (K, K)
    for _ in range(steps):
        signal = _signal(tissues, known)
        sigma = known.sigma.to(values)
        pull = (tissues @ noise.score(values, signal, sigma)[..., None]).double().sum(0)[:, 0]
        pull = pull - known.precision * (known.intensities - known.mean)
        curvature = both / known.sigma.square() + torch.diag(known.precision)
        known = replace(known, intensities=_not_below(known.intensities, curvature, pull))
        variance = noise.variance(values, _signal(tissues, known), sigma).double().mean()
        known = replace(known, sigma=variance.clamp(min=1e-12 * known.sigma.square()).sqrt())
    surprise = noise.surprise(values, _signal(tissues, known), known.sigma.to(values))
    return known, surprise.double().sum(1)


def _signal(tissues: Tensor, known: Shared) -> Tensor:
    return torch.einsum("tkn,k->tn", tissues, known.intensities.to(tissues))


def _not_below(start: Tensor, curvature: Tensor, pull: Tensor) -> Tensor:
    """Return where ½ δᵀHδ − δᵀp is least with all of start + δ at 0 or above: what falls below is put there first."""
    free = torch.ones_like(start, dtype=torch.bool)
    while True:
        there = torch.zeros_like(start)
        known = pull + curvature @ start  # H x = p + H x₀
        there[free] = torch.linalg.solve(curvature[free][:, free], known[free])
        below = free & (there < 0)
        if not below.any():
            return there
        free &= ~below
