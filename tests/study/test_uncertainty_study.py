"""The study of uncertainty: whose errors tell whose temperature, and bands that close about the truth."""

import math
from dataclasses import dataclass

import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.data.phantoms.dose import TreatedChest
from pullback.errors import InputError
from pullback.methods.pair.ensemble import ConstantDeviation
from pullback.numerics.random import make_generator
from pullback.space import Displacement, Grid, Image
from pullback.studies._posteriors import CalibrationEvaluation, DoseCoverage, TreatedChests, density_of
from pullback.study.evaluate import unmoved

GRID = Grid.centred((12, 10), 2.0)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Person:
    name: str


class Shifted:
    """A split of pairs of different people, whose truths are shifts of so many millimetres along both axes."""

    def __init__(self, *sizes: float) -> None:
        self.sizes = sizes
        self.pairs = [(Person(f"person-{n}"),) * 2 for n in range(len(sizes))]
        self.names = tuple(f"person-{n}" for n in range(len(sizes)))

    def __len__(self):
        return len(self.sizes)

    def __iter__(self):
        image = Image(torch.rand(1, 1, *GRID.shape, generator=make_generator(0)), GRID)
        for n, size in enumerate(self.sizes):
            truth = Displacement(torch.full((1, 2, *GRID.shape), size / 2), GRID)
            yield Pair(image, image, truth=truth, name=f"{n}")


def test_the_temperature_of_a_pair_is_that_of_all_others():
    """Errors of 1, 2 and 4 mm under a deviation of 1 mm: of the first, √((4 + 16) / 2)."""
    rows = list(CalibrationEvaluation(Shifted(1.0, 2.0, 4.0), 1.0, 1).rows(ConstantDeviation(unmoved), CPU))
    assert [row["rms z"] for row in rows] == pytest.approx([1, 2, 4])
    expected = [math.sqrt((4 + 16) / 2), math.sqrt((1 + 16) / 2), math.sqrt((1 + 4) / 2)]
    assert [row["temperature"] for row in rows] == pytest.approx(expected)
    after = [size / factor for size, factor in zip((1, 2, 4), expected, strict=True)]
    assert [row["rms z, calibrated"] for row in rows] == pytest.approx(after)
    density = [-0.5 * z**2 * 2 - 2 * math.log(f * math.sqrt(2 * math.pi)) for z, f in zip(after, expected, strict=True)]
    assert [row["log density, calibrated"] for row in rows] == pytest.approx(density)
    assert "rank correlation" not in rows[0]
    assert density_of(ConstantDeviation(unmoved), Shifted(0.0)) == pytest.approx(-math.log(2 * math.pi))


def test_without_others_or_a_deviation_there_is_no_temperature():
    with pytest.raises(InputError, match="two people"):
        next(CalibrationEvaluation(Shifted(1.0)).rows(ConstantDeviation(unmoved), CPU))
    with pytest.raises(InputError, match="deviation_r"):
        next(CalibrationEvaluation(Shifted(1.0, 2.0)).rows(unmoved, CPU))


def test_bands_close_about_the_true_dose_where_the_register_knows_the_truth():
    """The less it errs by its own account, the narrower they are, and all of the true histogram is in them, or beside.

    Of another register, which leaves all motion in, less is.
    """
    chests = TreatedChests(TreatedChest((28, 24), spacing=10.0, motion=5.0), count=2, days=1)

    def told(fixed, moving):
        days = [chest.day(1) for chest in chests.each()]
        (truth,) = [day.truth for day in days if torch.equal(day.ct.data, moving.data)]
        return Alignment(Pair(fixed, moving), truth)

    wide, narrow = (
        list(DoseCoverage(ConstantDeviation(told, size), unmoved, False, 2.0, 12)(chests, 0)) for size in (2.0, 1e-4)
    )
    for one, other in zip(wide, narrow, strict=True):
        assert other["target width"] < 1e-3 * one["target width"]
        assert other["target with margin %"] == 100
        assert other["other register: target %"] < 50
        assert other["temperature"] == 1.0
    calibrated = list(DoseCoverage(ConstantDeviation(told, 2.0), None, True, 2.0, 12)(chests, 0))
    assert all(row["temperature"] < 0.02 for row in calibrated)
    assert "other register: target %" not in calibrated[0]
