"""The base class of energies, and their weighted sums."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.alignment import Alignment, Objective, Pair


class Energy(ABC):
    """A scalar function of an alignment, smaller for better ones. `a + 0.02 * b` is an energy too."""

    @abstractmethod
    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        """Return the weighted terms of the energy by name, scalars `()`."""

    def __call__(self, alignment: Alignment) -> Tensor:
        """Return the sum of the terms, `()`."""
        return torch.stack(list(self.terms(alignment).values())).sum()

    def on(self, pair: Pair) -> Objective:
        """Return the energy of `pair` as a function of the transform alone, which a solver descends."""
        ready = self.ready(pair)
        return lambda transform: ready(Alignment(pair, transform))

    def ready(self, pair: Pair) -> "Energy":
        """Return an equal energy for `pair`, with all that does not depend on the transform computed in advance."""
        return self

    def __add__(self, other: "Energy") -> "Energy":
        return Sum((*parts(self), *parts(other)))

    def __rmul__(self, weight: float) -> "Energy":
        return Weighted(weight, self)

    __mul__ = __rmul__


@dataclass(frozen=True)
class Weighted(Energy):
    """An energy times a weight."""

    weight: float
    energy: Energy

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        return {name: self.weight * value for name, value in self.energy.terms(alignment).items()}

    def ready(self, pair: Pair) -> "Energy":
        return Weighted(self.weight, self.energy.ready(pair))


@dataclass(frozen=True)
class Sum(Energy):
    """A sum of energies; terms of one name add up."""

    parts: tuple[Energy, ...]

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        total: dict[str, Tensor] = {}
        for part in self.parts:
            for name, value in part.terms(alignment).items():
                total[name] = total[name] + value if name in total else value
        return total

    def ready(self, pair: Pair) -> "Energy":
        return Sum(tuple(part.ready(pair) for part in self.parts))


def parts(energy: Energy) -> tuple[Energy, ...]:
    """Return the summands of an energy."""
    return energy.parts if isinstance(energy, Sum) else (energy,)
