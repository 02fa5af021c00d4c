"""Segmentation networks: which label each voxel of one image is of."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pullback.errors import InputError
from pullback.networks.encoder_decoder import Convolutions, Decoder, Encoder, max_pooling, nearest_up
from pullback.networks.network import Network
from pullback.networks.unet import convolution
from pullback.networks.up import instance_norm_leaky
from pullback.space import Image


class SegmentationUNet(nn.Module):
    """A U-Net as nnU-Net plans them: two 3ᵈ convolutions at each size, instance normalisation and leaky ReLU.

    Args:
        ndim: 2 or 3.
        channels: of the image.
        widths: channels at each size, fine to coarse, two sizes or more.
    """

    def __init__(self, ndim: int, channels: int, widths: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        block = Convolutions(instance_norm_leaky)
        self.encoder = Encoder(ndim, channels, widths, block, max_pooling)
        self.decoder = Decoder(ndim, widths, tuple(reversed(widths[:-1])), block, nearest_up)
        self.channels_out = widths[0]

    def forward(self, values: Tensor) -> Tensor:
        """Return features `(B, widths[0], *spatial)` of `(B, channels, *spatial)` of any size."""
        shape, stride = values.shape[2:], self.encoder.stride
        if max(shape) <= stride:  # the coarsest features would be a single cell, which has no deviation
            values = F.pad(values, [0, stride + 1 - shape[-1]])
        return self.decoder(self.encoder(values))[0][..., : shape[-1]]


class Segmenter(Network):
    """A network that says of each voxel of an image how surely it is of each label.

    It learns from labelled images, which are examples by themselves (`data.Subject`), by `training.Segmenting`, and can
    be a part of any method that wants to know organs.

    Args:
        backbone: makes, from dimensions and channels of the image, what answers with features of its size, as many as
            its `channels_out` says.
        labels: that it knows, above background; all others are background to it.
        ndim: 2 or 3.
        channels: of the image.

    Raises:
        InputError: no labels, one of them twice, or background among them.
    """

    def __init__(
        self, backbone: Callable[[int, int], Any], labels: tuple[int, ...], ndim: int, channels: int = 1
    ) -> None:
        super().__init__()
        if not labels or min(labels) < 1 or len(set(labels)) < len(labels):
            raise InputError(f"Segmenter: different labels of 1 or more expected, one at least, got {labels}")
        self.labels = tuple(labels)
        self.backbone = backbone(ndim, channels)
        self.head = convolution(ndim, self.backbone.channels_out, 1 + len(labels), 1)

    def forward(self, image: Image) -> Tensor:
        """Return scores, whose softmax are the memberships: `(B, 1 + labels, *spatial)`, background first."""
        features = self.backbone(image.data.float())
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features.float())

    def memberships(self, image: Image) -> Tensor:
        """Return how surely each voxel is of background and of each label, `(B, 1 + labels, *spatial)`, 1 in sum."""
        return self.forward(image).softmax(1)
