"""Trunks: backbones up to a quarter of the size, where other stages go on than the backbone's last."""

from collections.abc import Iterable
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

QUARTER = 4


class Trunk(nn.Module):
    """An encoder and the first stages of a decoder, which stop at a quarter of the size.

    Args:
        encoder: from images `(B, C, *spatial)` to features, a list from fine to coarse.
        up: stages, from the coarsest features on: each takes what is below and the features of twice that size.
        channels_out: of the answer.
        stride: of which the encoder takes multiples; images are filled up to them with zeros, behind their last voxel.
        beyond: voxels along one axis that an image must have more of, or the coarsest features are a single cell, which
            cannot be normalised.
    """

    def __init__(
        self, encoder: nn.Module, up: Iterable[nn.Module], channels_out: int, stride: int = QUARTER, beyond: int = 1
    ) -> None:
        super().__init__()
        self.encoder, self.up = encoder, nn.ModuleList(up)
        self.channels_out, self.stride, self.beyond = channels_out, stride, beyond

    def forward(self, both: Tensor) -> Tensor:
        """Return features `(B, channels_out, *⌈spatial / 4⌉)` of `(B, C, *spatial)`."""
        shape = both.shape[2:]
        missing = [pad for n in reversed(shape) for pad in (0, -n % self.stride)]
        values = self._climbed(F.pad(both, missing) if any(missing) else both)
        for axis, n in enumerate(shape, start=2):
            values = values.narrow(axis, 0, -(-n // QUARTER))
        return values

    def _climbed(self, both: Tensor) -> Tensor:
        values, *skips = reversed(self.encoder(both))
        for up, skip in zip(self.up, skips, strict=False):  # an encoder may answer with finer features, too
            values = up(values, skip)
        return values


class Backbone(Protocol):
    """A network of two images with a trunk."""

    def trunk(self) -> Trunk:
        """Return its trunk, of its own modules."""
        ...
