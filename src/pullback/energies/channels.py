"""Energies of some channels of both images."""

from dataclasses import dataclass

from torch import Tensor

from pullback.alignment import Alignment, Pair
from pullback.energies.energy import Energy


@dataclass(frozen=True)
class OnChannels(Energy):
    """An energy that sees some channels of both images alone, such as features beside intensities.

    The moving image is pulled once, for all energies of an alignment.

    Attributes:
        energy: any.
        first: number of the first channel, from 0.
        count: number of channels.
    """

    energy: Energy
    first: int = 0
    count: int = 1

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        return self.energy.terms(alignment.of_channels(self.first, self.count))

    def ready(self, pair: Pair) -> Energy:
        return OnChannels(self.energy.ready(pair.of_channels(self.first, self.count)), self.first, self.count)
