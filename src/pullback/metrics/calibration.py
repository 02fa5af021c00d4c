"""Calibration: whether errors of a registration are as large as it says they may be.

Smolders et al., WBIR 2022, eq. 5 and fig. 4: the likelihood of landmarks, and errors by predicted deviation. All
numbers are of components along the axes of the fixed grid, in mm, so that an oblique grid changes nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pullback.alignment import Alignment
from pullback.metrics.metric import foreground, of_one
from pullback.numerics.sample import sample
from pullback.space import Grid, Image, stored_axes

TOTAL = "deviation"
"""The map of the root of the sum of squares of the components: the root mean square of the error's length, mm."""
ALONG = ("deviation_r", "deviation_a", "deviation_s")
"""Maps of the deviation along the grid's axes that are nearest R, A and S, mm: what an alignment says of its error."""
LEVELS = (50.0, 90.0, 95.0)
BINS = 15


def deviation_maps(deviation: Tensor, grid: Grid) -> dict[str, Image]:
    """Return maps by the names above of a deviation `(B, d, *grid.shape)` along the axes of a grid, in its voxels."""
    mm = deviation * grid.spacing.to(deviation).view(-1, *[1] * grid.ndim)
    order = stored_axes(grid)
    along = {name: Image(mm[:, axis : axis + 1], grid) for name, axis in zip(ALONG, order, strict=False)}
    return {TOTAL: Image(mm.square().sum(1, keepdim=True).sqrt(), grid), **along}


def deviation_in(maps: Mapping[str, Image], grid: Grid) -> Tensor | None:
    """Return the deviation `(B, d, *grid.shape)` along the axes of a grid, in its voxels, of the maps on it.

    None where the maps do not say.
    """
    if not all(name in maps for name in ALONG[: grid.ndim]):
        return None
    placed = sorted(zip(stored_axes(grid), ALONG, strict=False))
    mm = torch.cat([maps[name].data for _, name in placed], 1)
    return mm / grid.spacing.to(mm).view(-1, *[1] * grid.ndim)


def errors_of(alignment: Alignment) -> tuple[Tensor, Tensor] | None:
    """Return errors and the deviations that were said of them, `(N, d)` float64 each in mm along the fixed grid's axes.

    They are at the landmarks, where both images have some; else at the foreground of the fixed image, where the truth
    is known. None where neither is, or where the alignment says no deviation.
    """
    pair, grid = alignment.pair, alignment.pair.fixed.grid
    deviation = deviation_in(alignment.maps, grid)
    if deviation is None:
        return None
    if pair.fixed_points is not None and pair.moving_points is not None:
        here = pair.fixed_points.data.double().mT
        off = grid.from_mm(pair.moving_points.data.double().mT - alignment.transform.at(here).double())
        said = sample(deviation.double(), grid.to_voxels(here), "linear")
        found, told = off[0].T, said[0].T
    elif pair.truth is not None:
        inside = foreground(alignment)[0, 0]
        off = pair.truth.displacement(grid).to(deviation) - alignment.transform.displacement(grid).to(deviation)
        found, told = off[0][:, inside].T.double(), deviation[0][:, inside].T.double()
    else:
        return None
    spacing = grid.spacing.to(found)
    return found * spacing, told * spacing


def log_densities(errors: Tensor, deviations: Tensor) -> Tensor:
    """Return the log density of each error `(N, d)` under a Gaussian with these deviations, `(N,)`, per mmᵈ: eq. 5."""
    normal = torch.distributions.Normal(torch.zeros_like(deviations), deviations, validate_args=False)
    return normal.log_prob(errors).sum(1)


def mean_log_density(errors: Tensor, deviations: Tensor, dropped: float = 0.01) -> float:
    """Return the mean log density after the least probable share of the errors is `dropped`, as the paper does."""
    each = log_densities(errors, deviations).sort(descending=True).values
    return float(each[: max(1, round(len(each) * (1 - dropped)))].mean())


def temperature(errors: Tensor, deviations: Tensor) -> float:
    """Return the one factor of all deviations that makes the errors most probable: the root mean square of z."""
    return float((errors / deviations).square().mean().sqrt())


def coverage_of(errors: Tensor, deviations: Tensor, level: float) -> float:
    """Return the share of components, in %, within the central interval that is to hold `level` % of them."""
    half = float(torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(0.5 + level / 200)))
    return 100 * float(((errors / deviations).abs() <= half).double().mean())


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Return Spearman's rank correlation of two samples `(N,)`; NaN where one of them is constant."""
    a, b = (_ranks(values) for values in (one, other))
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (a.norm() * b.norm()))


def _ranks(values: Tensor) -> Tensor:
    """Return ranks from 0; equal values share the mean of theirs."""
    _, which, counts = values.unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0).double() - (counts.double() + 1) / 2)[which]


@dataclass(frozen=True)
class Bin:
    """Errors of like deviation.

    Attributes:
        low, high: of the deviation, mm: the root of the sum of squares of the components.
        count: of the errors.
        error: their root mean square length, mm; NaN where there are none.
    """

    low: float
    high: float
    count: int
    error: float


def binned(errors: Tensor, deviations: Tensor, bins: int = BINS) -> list[Bin]:
    """Return errors in equal bins of the deviation, as in fig. 4: calibrated ones are as large as the deviation."""
    said, found = deviations.norm(dim=1), errors.norm(dim=1)
    edges = torch.linspace(float(said.min()), float(said.max()), bins + 1, dtype=said.dtype)
    where = torch.bucketize(said, edges[1:-1].contiguous())
    each = [found[where == n] for n in range(bins)]
    return [
        Bin(float(a), float(b), len(known), float(known.square().mean().sqrt()) if len(known) else float("nan"))
        for a, b, known in zip(edges[:-1], edges[1:], each, strict=True)
    ]


def calibration(errors: Tensor, deviations: Tensor, levels: Sequence[float] = LEVELS) -> dict[str, float]:
    """Return what errors and deviations `(N, d)` in mm say of each other.

    Returns:
        The mean log density (1 % dropped), rms z (1 where calibrated; above it, the errors are larger than was said),
        coverage at each level, and the rank correlation of the length of both, which no factor changes; not of one
        deviation everywhere, which has no order.
    """
    rank = rank_correlation(deviations.norm(dim=1).float(), errors.norm(dim=1).float())  # rounding is no order
    return {
        "log density": mean_log_density(errors, deviations),
        "rms z": temperature(errors, deviations),
        **{f"coverage {level:g} %": coverage_of(errors, deviations, level) for level in levels},
        **({} if math.isnan(rank) else {"rank correlation": rank}),
    }


@dataclass(frozen=True)
class Calibration:
    """The calibration of what an alignment says of its error, at landmarks or against a known truth.

    Attributes:
        factor: of all deviations, such as a `temperature` that other pairs told.
    """

    factor: float = 1.0
    name: ClassVar[str] = "log density"
    higher_is_better: ClassVar[bool] = True

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        known = errors_of(alignment)
        if known is None:
            return {}
        errors, deviations = known
        return calibration(errors, self.factor * deviations)
