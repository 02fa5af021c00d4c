"""Feature extraction from one image."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pullback.errors import InputError
from pullback.networks.convolve import channels_last
from pullback.networks.network import Network
from pullback.networks.unet import convolution
from pullback.networks.up import Convolved, batch_norm_relu


class FeatureNet(Network):
    """A network of pairs of 3ᵈ convolutions, with features at two sizes by 1ᵈ convolutions.

    Bigalke et al. 2023, section 2.3.1: six convolutions, batch normalisation and ReLU after each, all strides 2. The
    paper does not say which of two has the stride, nor which block the fine features come after. In the authors' code
    (github.com/multimodallearning/reg-cyclical-self-train) the first has it, and they come after two convolutions.

    Args:
        ndim: 2 or 3.
        channels: of the image.
        widths: channels of each pair, two pairs at least.
        strides: of the first convolution of each pair.
        features: channels of the answers.

    Attributes:
        stride: voxels of the image from one coarse feature to the next, after the last pair.
        fine_stride: the same for the fine features, after the first pair.

    Raises:
        InputError: fewer than two widths, another number of strides, or one below 1.
    """

    def __init__(self, ndim: int, channels: int, widths: Sequence[int], strides: Sequence[int], features: int) -> None:
        super().__init__()
        if len(widths) != len(strides) or len(widths) < 2 or min(*widths, *strides) < 1:
            raise InputError(
                f"FeatureNet: as many widths as strides, two or more, each at least 1; got {widths}, {strides}"
            )
        finish = batch_norm_relu(ndim)
        before = [channels, *widths]
        self.stages = nn.ModuleList(
            nn.Sequential(Convolved(ndim, a, b, finish, stride=stride), Convolved(ndim, b, b, finish))
            for a, b, stride in zip(before[:-1], widths, strides, strict=True)
        )
        self.stride, self.fine_stride = math.prod(strides), strides[0]
        self.coarse = convolution(ndim, widths[-1], features, 1)
        self.fine = convolution(ndim, widths[0], features, 1)

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return features of `(B, channels, *spatial)` at every `stride`-th voxel, and at every `fine_stride`-th."""
        sizes, values = [], channels_last(values)
        for stage in self.stages:
            values = stage(values)
            sizes.append(values)
        with torch.autocast(values.device.type, enabled=False):  # costs are compared to their last bit
            return self.coarse(sizes[-1].float()), self.fine(sizes[0].float())
