"""Common parts of the study of uncertainty: calibration by other people's pairs, and bands of dose with a truth."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair
from pullback.data import Test, Validation, preprocessed
from pullback.data.case import person_of
from pullback.data.phantoms.dose import STRUCTURES, Day, TreatedChest
from pullback.errors import InputError
from pullback.methods.pair.posterior import Posterior
from pullback.metrics import Folding
from pullback.metrics.calibration import (
    ALONG,
    calibration,
    deviation_in,
    errors_of,
    mean_log_density,
    rank_correlation,
    temperature,
)
from pullback.metrics.dose import LEVELS, accumulated, band, dvh, sampled_curves, structures_of, volume_shares
from pullback.numerics.difference import gradient
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import gaussian
from pullback.space import stored_axes
from pullback.training import Row
from pullback.training.measure import align

MARGIN = 0.001
"""Share of the greatest dose, of the paper's second number."""
ORGANS = ("heart", "lung")
"""Those that get a dose; the cord gets none."""


@dataclass(frozen=True)
class CalibrationEvaluation:
    """The calibration of a register that says its deviation, on its own and after one temperature.

    The temperature of a pair is that of the pairs of all other people: the root mean square of their z, each pair
    weighing alike. So no number of a pair takes part in its own.

    Attributes:
        pairs: of two people or more, with landmarks or a known truth.
        smooth: sigma of samples' noise in voxels, of those that are looked at for folds, and of the slopes that the
            deviation is compared with.
        samples: that are looked at for folds.
    """

    pairs: Validation | Test
    smooth: float = 8.0
    samples: int = 5
    aligns: ClassVar[str] = "pair"

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def names(self) -> tuple[str, ...]:
        return self.pairs.names

    def rows(self, network: Any, device: torch.device) -> Iterator[Row]:
        """Yield one row per pair.

        Raises:
            InputError: an answer says no deviation, a pair has neither landmarks nor a truth, or all are of one person.
        """
        owners = [person_of(fixed) for fixed, _ in self.pairs.pairs]
        if len({*owners}) < 2:
            raise InputError(
                "calibration: pairs of two people or more expected, of which the others tell a temperature"
            )
        found = [self._measured(network, pair.to(device)) for pair in self.pairs]
        for owner, (errors, said, row) in zip(owners, found, strict=True):
            others = [temperature(*each[:2]) for each, whose in zip(found, owners, strict=True) if whose != owner]
            factor = math.sqrt(math.fsum(value**2 for value in others) / len(others))
            after = calibration(errors, factor * said)
            kept = ("log density", "rms z", "coverage 90 %")
            yield {**row, "temperature": factor, **{f"{name}, calibrated": after[name] for name in kept}}

    def _measured(self, network: Any, pair: Pair) -> tuple[Tensor, Tensor, Row]:
        """Return errors, deviations, and all that needs no other pair."""
        start = time.perf_counter()
        alignment = align(network, pair)
        seconds = time.perf_counter() - start
        known = errors_of(alignment)
        if known is None:
            raise InputError(f"{pair.name}: maps {', '.join(ALONG)} and landmarks or a truth are expected")
        errors, said = known
        row: Row = {"pair": pair.name, "error mm": float(errors.norm(dim=1).mean()), **calibration(errors, said)}
        slope = slope_rank(alignment, self.smooth)
        row |= {"seconds": seconds} if math.isnan(slope) else {"slope rank": slope, "seconds": seconds}
        posterior = Posterior.of(alignment, self.smooth)
        folds = [
            Folding()(Alignment(pair, one))[Folding().name] for one in posterior.draws(self.samples, make_generator(0))
        ]
        return errors, said, row | {"folded samples %": math.fsum(folds) / len(folds)}

    def score(self, means: dict[str, float]) -> float:
        """Return the log density after calibration."""
        return means["log density, calibrated"]


def slope_rank(alignment: Alignment, smooth: float) -> float:
    """Return the rank correlation of each component of the deviation with the slope of the moved image along it.

    The slope is smoothed as samples are; it is the mean over components, each over the fixed grid. NaN of one deviation
    everywhere.
    """
    grid = alignment.pair.fixed.grid
    deviation = deviation_in(alignment.maps, grid)
    assert deviation is not None
    moved = preprocessed(alignment.moved)
    slopes = gaussian(gradient(moved.data[:, :1]).square(), smooth)
    ranks = [rank_correlation(deviation[0, axis].flatten(), slopes[0, axis].flatten()) for axis in stored_axes(grid)]
    return math.fsum(ranks) / len(ranks)


def density_of(register: Any, pairs: Iterable[Pair]) -> float:
    """Return the mean log density of a register's errors over pairs, without any calibration."""
    found = [mean_log_density(*known) for pair in pairs if (known := errors_of(align(register, pair))) is not None]
    return math.fsum(found) / len(found)


# ---- dose


@dataclass(frozen=True)
class TreatedChests:
    """A set of chests, each treated on several days.

    Attributes:
        chest: one of them; the others have other seeds.
        count: of chests.
        days: of each.
    """

    chest: TreatedChest = TreatedChest()
    count: int = 4
    days: int = 2

    def each(self) -> list[TreatedChest]:
        """Return the chests."""
        return [TreatedChest(**{**vars(self.chest), "seed": self.chest.seed + number}) for number in range(self.count)]


@dataclass(frozen=True)
class DoseCoverage:
    """The rows of a register that says its deviation, by bands of accumulated doses against the true ones.

    Attributes:
        register: of the plan's CT and a day's.
        other: another register, whose dose is held against the band as the paper does; None leaves it out.
        calibrated: multiply deviations by the temperature that the other chests tell.
        smooth: sigma of the samples' noise, voxels.
        samples: of each band.
    """

    register: Any
    other: Any = None
    calibrated: bool = True
    smooth: float = 8.0
    samples: int = 100

    def __call__(self, data: TreatedChests, seed: int) -> Iterator[Row]:
        """Yield one row per chest: the share of volumes, in %, at which the truth lies in the band."""
        chests = data.each()
        known = [self._aligned(chest, data.days) for chest in chests]
        told = [[temperature(*self._errors(each)) for each in days] for _, days, _ in known]
        for n, (chest, (plan, days, treated)) in enumerate(zip(chests, known, strict=True)):
            others = [value**2 for m, values in enumerate(told) for value in values if m != n]
            factor = math.sqrt(math.fsum(others) / len(others)) if self.calibrated and others else 1.0
            posteriors = [Posterior.of(each, self.smooth).scaled(factor) for each in days]
            yield self._row(f"chest {chest.seed}", plan, posteriors, treated) | {"temperature": factor}

    def _aligned(self, chest: TreatedChest, days: int) -> tuple[Any, list[Alignment], list[Day]]:
        plan, treated = chest.reference(), [chest.day(number) for number in range(1, days + 1)]
        pairs = [Pair(plan.image, day.ct, plan.labels, truth=day.truth, name=f"{chest.seed}") for day in treated]
        return plan, [align(self.register, pair) for pair in pairs], treated

    @staticmethod
    def _errors(alignment: Alignment) -> tuple[Tensor, Tensor]:
        """Return errors and deviations within the body; in the air about it nothing can be seen."""
        pair = alignment.pair
        assert pair.fixed_labels is not None
        seen = replace(pair.fixed, mask=pair.fixed_labels.data > 0)
        found = errors_of(replace(alignment, pair=replace(pair, fixed=seen)))
        assert found is not None
        return found

    def _row(self, name: str, plan: Any, posteriors: Sequence[Posterior], treated: Sequence[Day]) -> Row:
        shares, grid = volume_shares(200), plan.image.grid
        inside = structures_of(plan.labels, STRUCTURES)
        doses = [day.dose for day in treated]
        true = accumulated(doses, [day.truth for day in treated], onto=grid)
        drawn = [each.draws(self.samples, make_generator(n)) for n, each in enumerate(posteriors)]
        maps = (accumulated(doses, each, onto=grid) for each in zip(*drawn, strict=True))
        sampled = sampled_curves(maps, inside, shares)
        margin, row = MARGIN * float(true.data.max()), Row(pair=name)
        for structure, curves in sampled.items():
            known = band(curves, shares, LEVELS)
            curve = dvh(true, inside[structure]).at_volume(shares)
            row[f"{structure} %"] = 100 * known.holds(curve)
            row[f"{structure} with margin %"] = 100 * known.holds(curve, margin)
            row[f"{structure} width"] = float((known.high - known.low).mean())
        row["organs %"] = math.fsum(float(row[f"{name} %"]) for name in ORGANS) / len(ORGANS)
        row["nominal %"] = 100 * known.nominal
        return row | self._against_other(plan, treated, sampled, shares)

    def _against_other(self, plan: Any, treated: Sequence[Day], sampled: dict[str, Tensor], shares: Tensor) -> Row:
        """Return the share of volumes at which the other register's dose lies in the bands, as the paper has it."""
        if self.other is None:
            return {}
        inside = structures_of(plan.labels, STRUCTURES)
        ways = [align(self.other, Pair(plan.image, day.ct)).transform for day in treated]
        dose = accumulated([day.dose for day in treated], ways, onto=plan.image.grid)
        held = {
            name: 100 * band(curves, shares, LEVELS).holds(dvh(dose, inside[name]).at_volume(shares))
            for name, curves in sampled.items()
        }
        organs = math.fsum(held[name] for name in ORGANS) / len(ORGANS)
        return {"other register: organs %": organs, "other register: target %": held["target"]}
