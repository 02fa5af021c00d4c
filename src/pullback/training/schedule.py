"""Learning rates over a training: factors as functions of progress, 0 → 1, or of what validation says."""

import math
from dataclasses import dataclass

from pullback.errors import InputError


@dataclass(frozen=True)
class Cosine:
    """From 1 down to `floor` along half a cosine (Loshchilov & Hutter 2017, without restarts)."""

    floor: float = 0.0

    def __call__(self, progress: float) -> float:
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class Poly:
    """From 1 down to 0 along (1 − progress)ᵖ: nearly a line. 0.9 is what TransMorph's authors and OFG's train by."""

    power: float = 0.9

    def __call__(self, progress: float) -> float:
        return (1 - progress) ** self.power


@dataclass(frozen=True)
class Steps:
    """From 1 down by `factor` at each progress of `at`: 40/60 and 52/60 are Bigalke et al.'s (MICCAI 2023) for clouds.

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
class Plateau:
    """Falls by `factor` whenever `patience` validations in a row were none better than the best before.

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
