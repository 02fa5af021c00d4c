"""Learning rate schedules: factors as functions of progress, 0 → 1, or of the course of validation."""

import math
from dataclasses import dataclass

from pullback.errors import InputError


@dataclass(frozen=True)
class Cosine:
    """A schedule from 1 down to `floor` along half a cosine (Loshchilov & Hutter 2017, without restarts)."""

    floor: float = 0.0

    def __call__(self, progress: float) -> float:
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class Poly:
    """A schedule from 1 down to `floor` along (1 − progress)ᵖ; a line for p = 1.

    The default is nearly one; TransMorph's and OFG's authors use p = 0.9.
    """

    power: float = 0.9
    floor: float = 0.0

    def __call__(self, progress: float) -> float:
        return self.floor + (1 - self.floor) * (1 - progress) ** self.power


@dataclass(frozen=True)
class Steps:
    """A schedule that falls by `factor` at each progress of `at`; the defaults are those of Bigalke et al. for clouds.

    Raises:
        InputError: a factor or a progress that is not between 0 and 1.
    """

    at: tuple[float, ...] = (40 / 60, 52 / 60)
    factor: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.factor < 1 or not all(0 < one < 1 for one in self.at):
            raise InputError(f"Steps: a factor and progress between 0 and 1 expected, got {self.factor} and {self.at}")

    def __call__(self, progress: float) -> float:
        return self.factor ** sum(progress >= one for one in self.at)


@dataclass(frozen=True)
class Decay:
    """A schedule that is multiplied by `factor` so many `times`, evenly spread over a training: after each epoch.

    Raises:
        InputError: a factor that is not between 0 and 1, or no times.
    """

    factor: float = 0.95
    times: int = 50

    def __post_init__(self) -> None:
        if not 0 < self.factor < 1 or self.times < 1:
            raise InputError(
                f"Decay: a factor between 0 and 1, and once or more, expected, got {self.factor}, {self.times}"
            )

    def __call__(self, progress: float) -> float:
        return self.factor ** int(progress * self.times)


@dataclass(frozen=True)
class Plateau:
    """A rule that lowers rates by `factor` whenever `patience` validations in a row did not beat the best before.

    Raises:
        InputError: a factor that is not between 0 and 1, or no patience.
    """

    factor: float = 0.1
    patience: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.factor < 1 or self.patience < 1:
            raise InputError(
                f"plateau: a factor between 0 and 1 and a patience of 1 or more expected, got {self.factor} and "
                f"{self.patience}"
            )
