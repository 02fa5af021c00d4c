"""Bricks of networks."""

from pullback.networks.convolve import convolve
from pullback.networks.pad import padded
from pullback.networks.unet import UNet, convolution

__all__ = ["UNet", "convolution", "convolve", "padded"]
