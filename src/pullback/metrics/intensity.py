"""Metrics of intensities alone: mean squares, and shared information by plain histograms."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pullback.alignment import Alignment
from pullback.energies import MSE
from pullback.errors import InputError
from pullback.metrics.metric import foreground, of_one


@dataclass(frozen=True)
class SquaredError:
    """The mean squared difference of fixed and moved intensities over the masks, as the energy `MSE`."""

    name: ClassVar[str] = "mse"
    higher_is_better: ClassVar[bool] = False

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        return {self.name: float(MSE()(alignment))}


@dataclass(frozen=True)
class SharedInformation:
    """Twice the mutual information over the sum of both entropies, over the foreground: 0 … 1.

    Each image's range there is cut into bins of one width, without windows. It is the number behind eq. 6 of the
    multi-magnification networks (WBIR 2022), which prints the joint entropy in the place of what is shared; that would
    lie between 1 and 2. An image without contrast shares nothing.

    Attributes:
        bins: of each range.

    Raises:
        InputError: fewer than two.
    """

    bins: int = 256
    name: ClassVar[str] = "shared information"
    higher_is_better: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise InputError(f"SharedInformation: 2 bins at least, got {self.bins}; 256 are common")

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        fixed, moved = alignment.pair.fixed.data, alignment.moved.data
        inside = foreground(alignment).expand_as(fixed)
        one, two = (self._binned(values[inside]) for values in (fixed, moved))
        joint = torch.bincount(one * self.bins + two, minlength=self.bins**2).double().view(self.bins, self.bins)
        joint = joint / joint.sum().clamp(min=1)
        own = _entropy(joint.sum(0)) + _entropy(joint.sum(1))
        return {self.name: float(2 * (own - _entropy(joint)) / own) if own > 0 else 0.0}

    def _binned(self, values: Tensor) -> Tensor:
        if not len(values):
            return values.long()
        low, high = values.min(), values.max()
        width = (high - low).clamp(min=torch.finfo(values.dtype).tiny)
        return ((values - low) / width * self.bins).long().clamp(max=self.bins - 1)


def _entropy(shares: Tensor) -> Tensor:
    return -(shares * shares.clamp(min=torch.finfo(shares.dtype).tiny).log()).sum()
