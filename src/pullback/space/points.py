"""Landmarks and point clouds."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from pullback.space.brief import brief


@dataclass(frozen=True, eq=False)
class Points:
    """Points of the world: `data` is `(B, N, d)` in RAS mm.

    Raises:
        ValueError: another shape.
    """

    data: Tensor

    __repr__ = brief

    def __post_init__(self) -> None:
        if self.data.ndim != 3 or self.data.shape[-1] not in (2, 3):
            raise ValueError(f"Points: (B, N, 2 or 3) expected, got {tuple(self.data.shape)}")

    def to(self, device: torch.device) -> Self:
        return replace(self, data=self.data.to(device))

    @property
    def batch(self) -> int:
        """How many clouds it holds."""
        return len(self.data)

    def nth(self, n: int) -> Self:
        """The n-th cloud of the batch; of a batch of one itself, whatever n."""
        return self if self.batch == 1 else replace(self, data=self.data[n : n + 1])
