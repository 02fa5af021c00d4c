"""Stages of a decoder."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pullback.networks.convolve import convolve
from pullback.networks.unet import convolution

Finish = Callable[[int], nn.Module]
"""What follows a convolution of so many channels: normalisation and activation."""


def batch_norm_relu(ndim: int) -> Finish:
    """Return batch normalisation followed by ReLU."""
    norm = nn.BatchNorm2d if ndim == 2 else nn.BatchNorm3d
    return lambda channels: nn.Sequential(norm(channels), nn.ReLU(inplace=True))


def instance_norm_leaky(ndim: int) -> Finish:
    """Return instance normalisation followed by leaky ReLU of slope 0.01."""
    norm = nn.InstanceNorm2d if ndim == 2 else nn.InstanceNorm3d
    return lambda channels: nn.Sequential(norm(channels), nn.LeakyReLU(inplace=True))


def instance_norm_relu(ndim: int) -> Finish:
    """Return instance normalisation, without weights, followed by ReLU."""
    norm = nn.InstanceNorm2d if ndim == 2 else nn.InstanceNorm3d
    return lambda channels: nn.Sequential(norm(channels), nn.ReLU(inplace=True))


class Convolved(nn.Module):
    """A convolution, by default 3ᵈ, that keeps the size, or every `stride`-th voxel of it, then `finish`.

    Args:
        ndim: 2 or 3.
        before, after: channels.
        finish: what follows.
        bias: of the convolution; without use where a normalisation follows.
        stride: of the convolution.
        kernel: its edge, odd.
    """

    def __init__(
        self,
        ndim: int,
        before: int,
        after: int,
        finish: Finish,
        bias: bool = False,
        stride: int = 1,
        kernel: int = 3,
    ) -> None:
        super().__init__()
        self.convolution = convolution(ndim, before, after, kernel, padding=kernel // 2, bias=bias, stride=stride)
        self.finish = finish(after)

    def forward(self, values: Tensor) -> Tensor:
        """Return features `(B, after, *spatial)` of `(B, before, *spatial)`."""
        return self.finish(convolve(self.convolution, values))


class Up(nn.Module):
    """A decoder stage of TransMorph and ViT-V-Net: linear upsampling by two, the skip of that size, two convolutions.

    Args:
        ndim: 2 or 3.
        before, skip, after: channels from below, of the skip, and of the answer.
        finish: the layers after each convolution.
    """

    def __init__(self, ndim: int, before: int, skip: int, after: int, finish: Finish) -> None:
        super().__init__()
        self.mode = "bilinear" if ndim == 2 else "trilinear"
        self.first = Convolved(ndim, before + skip, after, finish)
        self.second = Convolved(ndim, after, after, finish)

    def forward(self, values: Tensor, skip: Tensor) -> Tensor:
        """Return features `(B, after, *2n)` from those below, `(B, before, *n)`, and the skip, `(B, skip, *2n)`.

        A skip may be of 2n − 1, where n was rounded up; so is the answer then.
        """
        values = F.interpolate(values, scale_factor=2, mode=self.mode, align_corners=False)
        for axis, n in enumerate(skip.shape[2:], start=2):
            values = values.narrow(axis, 0, n)
        return self.second(self.first(torch.cat([values, skip], 1)))
