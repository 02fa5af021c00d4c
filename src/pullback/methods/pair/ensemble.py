"""Deviations without a model: the spread of several registers, and one number everywhere, to hold others against."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from pullback.alignment import Alignment, Pair, one_by_one
from pullback.errors import InputError
from pullback.metrics.calibration import deviation_maps
from pullback.numerics.smooth import gaussian
from pullback.solvers import timed
from pullback.space import Image, Transform, mean_and_deviation

LEAST = 0.05
"""Voxels, below which no spread is believed: where registers agree, they may be wrong together."""


@dataclass(frozen=True)
class Ensemble:
    """A register that answers as the first of several does, and with their spread as its deviation.

    What clinics do, and the one baseline that sees registers fail: where they end in other minima, they differ.

    Attributes:
        registers: two or more; each continues from a start, where one is given.
        smooth: sigma in voxels by which the variance is smoothed: that of six answers is rough by itself.
        least: deviation in voxels that is always left.

    Raises:
        InputError: fewer than two.
    """

    registers: tuple[Any, ...]
    smooth: float = 4.0
    least: float = LEAST

    def __post_init__(self) -> None:
        if len(self.registers) < 2:
            raise InputError(f"Ensemble: two registers or more expected, got {len(self.registers)}")

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
        """Align two images, fixed → moving, each pair of a batch by itself."""
        return one_by_one(self._one, fixed, moving, start)

    def _one(self, fixed: Image, moving: Image, start: Transform | None) -> Alignment:
        answers = [timed(Pair(fixed, moving), register, start) for register in self.registers]
        return spread_of(answers, self.smooth, self.least)


def spread_of(answers: Sequence[Alignment], smooth: float = 4.0, least: float = LEAST) -> Alignment:
    """Return the first of several answers to one pair, with their spread as its deviation, as `Ensemble` has it."""
    first, grid = answers[0], answers[0].pair.fixed.grid
    _, deviation = mean_and_deviation([answer.transform for answer in answers], grid)
    spread = gaussian(deviation.square(), smooth).sqrt().clamp(min=least)
    return replace(first, maps={**first.maps, **deviation_maps(spread.to(first.pair.fixed.data), grid)})


@dataclass(frozen=True)
class ConstantDeviation:
    """A register with one deviation everywhere; after a temperature it is as good as one number can be.

    Attributes:
        register: any; it continues from a start, where one is given.
        millimetres: of each component.

    Raises:
        InputError: a deviation that is not above 0.
    """

    register: Any
    millimetres: float = 1.0

    def __post_init__(self) -> None:
        if self.millimetres <= 0:
            raise InputError(f"ConstantDeviation: a deviation above 0 mm expected, got {self.millimetres:g}")

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
        """Align two images, fixed → moving, each pair of a batch by itself."""
        return one_by_one(self._one, fixed, moving, start)

    def _one(self, fixed: Image, moving: Image, start: Transform | None) -> Alignment:
        answer = timed(Pair(fixed, moving), self.register, start)
        grid = fixed.grid
        even = torch.ones(1, grid.ndim, *grid.shape).to(fixed.data)
        voxels = even * (self.millimetres / grid.spacing.to(even)).view(-1, *[1] * grid.ndim)
        return replace(answer, maps={**answer.maps, **deviation_maps(voxels, grid)})
