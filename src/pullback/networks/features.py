"""Features of one image."""

import torch
from torch import Tensor, nn

from pullback.networks.unet import convolution
from pullback.networks.up import Convolved, Finish


class FeatureNet(nn.Module):
    """Pairs of 3ᵈ convolutions, the second of each halving, and 1ᵈ convolutions to features at two sizes.

    Bigalke et al. 2023, section 2.3.1: six convolutions, batch normalisation and ReLU after each.

    Args:
        ndim: 2 or 3.
        channels: of the image.
        widths: channels of each pair; with three of them the size falls to an eighth.
        features: channels of the answers.
    """

    def __init__(self, ndim: int, channels: int, widths: tuple[int, ...], features: int) -> None:
        super().__init__()
        finish = _finish(ndim)
        before = [channels, *widths]
        self.stages = nn.ModuleList(
            nn.Sequential(Convolved(ndim, a, b, finish), Convolved(ndim, b, b, finish, stride=2))
            for a, b in zip(before, widths, strict=False)
        )
        self.stride = 2 ** len(widths)
        self.coarse = convolution(ndim, widths[-1], features, 1)
        self.fine = convolution(ndim, widths[-2], features, 1)

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, channels, *spatial)` to features at every `stride`-th voxel, and at every `stride / 2`-th."""
        sizes = []
        for stage in self.stages:
            values = stage(values)
            sizes.append(values)
        with torch.autocast(values.device.type, enabled=False):  # costs are compared to their last bit
            return self.coarse(sizes[-1].float()), self.fine(sizes[-2].float())


def _finish(ndim: int) -> Finish:
    norm = nn.BatchNorm2d if ndim == 2 else nn.BatchNorm3d
    return lambda channels: nn.Sequential(norm(channels), nn.ReLU(inplace=True))
