"""From two images to what a network sees, and from its features to a transform."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pullback.alignment import Alignment, Pair
from pullback.networks.convolve import channels_last, convolve
from pullback.networks.unet import convolution
from pullback.space import Affine, Dense, Grid, Image, one_batch, pull


def together(fixed: Image, moving: Image) -> Tensor:
    """Both as channels of one input, `(B, 2C, *spatial)` float32: the moving image on the fixed grid, by headers."""
    with torch.autocast(fixed.data.device.type, enabled=False):  # bfloat16 would round coordinates to half a voxel
        seen = moving if moving.grid == fixed.grid else pull(moving, Affine.identity(fixed.grid.ndim), onto=fixed)
    batch = one_batch({"fixed": len(fixed.data), "moving": len(seen.data)})
    return torch.cat([image.data.expand(batch, *image.data.shape[1:]) for image in (fixed, seen)], 1).float()


class FieldHead(nn.Module):
    """The last 3ᵈ convolution: from features at full size to a field in voxels of the fixed grid.

    It starts near zero (weights of deviation 1e-5), so an untrained network answers with nearly no motion.

    Args:
        ndim: 2 or 3.
        channels: of the features.
        transform: `Displacement`, `Velocity`, …: whose `field` is predicted.
    """

    def __init__(self, ndim: int, channels: int, transform: Callable[[Tensor, Grid], Dense]) -> None:
        super().__init__()
        self.transform = transform
        self.convolution = convolution(ndim, channels, ndim, 3, padding=1)
        nn.init.normal_(self.convolution.weight, std=1e-5)
        assert self.convolution.bias is not None
        nn.init.zeros_(self.convolution.bias)

    def forward(self, features: Tensor, fixed: Image, moving: Image) -> Alignment:
        """`(B, channels, *fixed.grid.shape)` to the images' alignment."""
        with torch.autocast(features.device.type, enabled=False):  # bfloat16 would round the field to 1/64 voxel
            field = convolve(self.convolution, channels_last(features.float()))
        return Alignment(Pair(fixed, moving), self.transform(field, fixed.grid))
