"""A Gaussian around the answer of any register, its smooth samples, and the energy by which its deviation is found.

Smolders et al., WBIR 2022, section 2: q(z) = N(μ, Σ), where μ is somebody else's displacement. A sample is
z = μ + G ∘ n: white noise is smoothed first and scaled after, so that neighbours' deviations do not leak into a voxel.
Here the smoothing kernel's squares add up to 1 along each axis, so that G is the deviation; in the authors' code its
weights add up to 1, and G is the deviation times Σ k², 0.0029 in 3-D.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair
from pullback.errors import InputError
from pullback.metrics.calibration import deviation_in, deviation_maps, log_densities
from pullback.numerics.difference import gradient
from pullback.numerics.sample import sample
from pullback.numerics.smooth import gaussian, neighbour_correlation, stationary_noise
from pullback.space import Displacement, Image, Points, pull

SMOOTH = 15.0
"""Sigma of the paper's noise, in voxels; its kernel has 61 taps, 2 sigma to each side."""


def reach_of(smooth: float) -> int:
    """Return how far the kernel of noise of a sigma reaches, in voxels: 2 sigma, as the paper cuts it off."""
    return round(2 * smooth)


@dataclass(frozen=True, eq=False)
class Posterior:
    """A Gaussian of maps from the fixed to the moving world: a mean, a deviation, and noise that is smooth.

    Attributes:
        mean: μ, on the fixed grid.
        deviation: G, `(B, d, *mean.grid.shape)` above 0, in voxels along the axes of that grid.
        smooth: sigma of the noise in voxels: how far errors are alike.

    Raises:
        ValueError: a deviation of another shape.
    """

    mean: Displacement
    deviation: Tensor
    smooth: float = SMOOTH

    def __post_init__(self) -> None:
        if self.deviation.shape != self.mean.field.shape:
            raise ValueError(
                f"Posterior: a deviation for each component of the mean expected, {tuple(self.mean.field.shape)}, got "
                f"{tuple(self.deviation.shape)}"
            )

    @classmethod
    def of(cls, alignment: Alignment, smooth: float = SMOOTH) -> "Posterior":
        """Return the posterior around an alignment that says its deviation in its maps.

        Raises:
            InputError: it says none.
        """
        grid = alignment.pair.fixed.grid
        deviation = deviation_in(alignment.maps, grid)
        if deviation is None:
            known = ", ".join(alignment.maps) or "none"
            raise InputError(f"a posterior: maps of a deviation expected, as WithPosterior makes them, got {known}")
        return cls(Displacement(alignment.displacement.to(deviation), grid), deviation, smooth)

    @property
    def transform(self) -> Displacement:
        """The mean, as a register's answer has it."""
        return self.mean

    @property
    def maps(self) -> dict[str, Image]:
        """The deviation in mm, as maps of an alignment."""
        return deviation_maps(self.deviation, self.mean.grid)

    def scaled(self, factor: float) -> "Posterior":
        """Return the posterior with all deviations `factor` times as large."""
        return Posterior(self.mean, factor * self.deviation, self.smooth)

    def draw(self, generator: torch.Generator) -> Displacement:
        """Return one sample, fixed → moving."""
        shape, reach = self.deviation.shape, reach_of(self.smooth)
        noise = stationary_noise(shape, self.smooth, reach, generator, self.deviation)
        return Displacement(self.mean.field + self.deviation * noise, self.mean.grid)

    def draws(self, count: int, generator: torch.Generator) -> Iterator[Displacement]:
        """Yield samples one after the other, of which one is in memory at a time."""
        for _ in range(count):
            yield self.draw(generator)

    def log_density(self, fixed: Points, moving: Points) -> Tensor:
        """Return the log density of where fixed points `(1, N, d)` lie in the moving world, `(N,)` per mmᵈ: eq. 5."""
        grid = self.mean.grid
        here = fixed.data.double().mT
        off = grid.from_mm(moving.data.double().mT - self.mean.at(here).double())
        said = sample(self.deviation.double(), grid.to_voxels(here), "linear")
        per_voxel = log_densities(off[0].T, said[0].T)
        return per_voxel - math.log(abs(float(torch.linalg.det(grid.affine[:-1, :-1]))))


@dataclass(frozen=True)
class LogDeviation:
    """The parameter that a descent moves to find a deviation: log G, `(B, d, *spatial)`."""

    values: Tensor

    @property
    def params(self) -> tuple[Tensor, ...]:
        """The values."""
        return (self.values,)

    def with_params(self, *params: Tensor) -> "LogDeviation":
        """Return other values."""
        return LogDeviation(*params)


@dataclass(frozen=True)
class PosteriorEnergy:
    """The variational free energy of a posterior as a function of its deviation: eq. 2 to 4, a mean over voxels.

    - `data`: how unlike the fixed image is the moving one, pulled through samples, over twice the noise of images;
    - `trace`: (λ/2) tr((D − A) Σ), edge by edge: how unlikely samples are under the prior, whose precision is λ times
      the graph Laplacian of the grid;
    - `entropy`: −Σ log G, which keeps the deviation from 0.

    Where images show nothing, G is 1 / √(2 d λ (1 − ρ)) voxels far from the border, ρ being the correlation of
    neighbours: 3.08 in 3-D for the paper's numbers, and 0.13 if errors were taken to be independent. Both numbers
    depend on the images and on how wrong the register is: tune them on landmarks, or trust nothing but the order.

    Attributes:
        noise: σ_I², of images scaled to 0 … 1; the paper's 1e-4.
        prior: λ, per squared voxel; the paper's 10.
        smooth: sigma of the samples' noise in voxels; the paper's 15.
        samples: of each evaluation; the paper is silent, its code has 1.

    Raises:
        InputError: a number that is not above 0.
    """

    noise: float = 1e-4
    prior: float = 10.0
    smooth: float = SMOOTH
    samples: int = 1

    def __post_init__(self) -> None:
        if min(self.noise, self.prior, self.smooth) <= 0 or self.samples < 1:
            raise InputError(
                f"PosteriorEnergy: noise, prior and smooth above 0 and one sample or more expected, got "
                f"{self.noise:g}, {self.prior:g}, {self.smooth:g} and {self.samples}"
            )

    @property
    def correlation(self) -> float:
        """ρ, of neighbours in a sample."""
        return neighbour_correlation(self.smooth, reach_of(self.smooth))

    def terms(
        self, pair: Pair, mean: Tensor, log_deviation: Tensor, generator: torch.Generator, learned: bool = False
    ) -> dict[str, Tensor]:
        """Return the terms by name, scalars `()`.

        Args:
            pair: images scaled alike; where the fixed one is masked, nothing is compared.
            mean: μ, `(B, d, *spatial)` in voxels of the fixed grid.
            log_deviation: log G, likewise.
            generator: of the samples.
            learned: whether the mean learns, too; then `mean` is its own energy, (λ/2) μᵀ(D − A)μ.
        """
        deviation = log_deviation.exp()
        voxels = deviation[:, 0].numel()
        data = torch.stack([self._data(pair, mean, deviation, generator) for _ in range(self.samples)]).mean()
        found = {
            "data": data / (2 * self.noise),
            "trace": self.prior / 2 * edge_sum(deviation, self.correlation) / voxels,
            "entropy": -log_deviation.sum() / voxels,
        }
        if learned:
            found["mean"] = self.prior / 2 * edge_sum(mean, 1.0) / voxels
        return found

    def _data(self, pair: Pair, mean: Tensor, deviation: Tensor, generator: torch.Generator) -> Tensor:
        """Return the squared difference of one sample, summed over channels: its mean over voxels."""
        fixed = pair.fixed
        noise = stationary_noise(deviation.shape, self.smooth, reach_of(self.smooth), generator, deviation)
        drawn = Displacement(mean + deviation * noise, fixed.grid)
        off = (fixed.data - pull(pair.moving, drawn, onto=fixed).data).square().sum(1, keepdim=True)
        return (off if fixed.mask is None else off * fixed.mask).mean()

    def guess(self, pair: Pair, mean: Tensor) -> Tensor:
        """Return log G by a formula, `(B, d, *spatial)`: Laplace's, with the slopes of the moved image as neighbours
        share them.

        It is where a descent begins: G⁻² = 2 d λ (1 − ρ) + |∂(m ∘ φ)|² / σ_I², the square smoothed as the noise is.
        """
        moved = pull(pair.moving, Displacement(mean, pair.fixed.grid), onto=pair.fixed).data
        channels = moved.split(1, 1)
        slopes = torch.stack([gradient(each) for each in channels]).square().sum(0)
        sharp = 2 * mean.shape[1] * self.prior * (1 - self.correlation) + gaussian(slopes, self.smooth) / self.noise
        return -0.5 * sharp.log()


def edge_sum(values: Tensor, correlation: float) -> Tensor:
    """Return the sum of v_i² + v_j² − 2 ρ v_i v_j over all edges of the grid, each once, and all components, `()`.

    For a deviation it is tr((D − A) Σ); with ρ = 1, for a mean, μᵀ(D − A)μ. It is summed as (v_i − v_j)² and
    2 (1 − ρ) v_i v_j, or single precision would lose the 1 − ρ = 0.0018 of the paper's noise.

    Args:
        values: `(B, d, *spatial)`.
        correlation: ρ, of neighbours along each axis.
    """
    total = values.new_zeros(())
    for axis in range(2, values.ndim):
        n = values.shape[axis] - 1
        one, other = values.narrow(axis, 0, n), values.narrow(axis, 1, n)
        total = total + (one - other).square().sum() + 2 * (1 - correlation) * (one * other).sum()
    return total
