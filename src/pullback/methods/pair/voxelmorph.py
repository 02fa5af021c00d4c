"""VoxelMorph: a U-Net that looks at both images and answers with a field.

Balakrishnan et al. 2018 (CVPR), 2019 (TMI); Dalca et al. 2018 for the stationary velocity.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pullback.alignment import Alignment, Pair
from pullback.networks import UNet, convolution, convolve
from pullback.space import Affine, Dense, Displacement, Grid, Image, pull

ENCODER = (16, 32, 32, 32)
VOXELMORPH_1 = (32, 32, 32, 32, 8, 8)
VOXELMORPH_2 = (32, 32, 32, 32, 32, 16, 16)


class VoxelMorph(nn.Module):
    """A register: forward takes fixed and moving images of one dimension and answers with their alignment.

    Images of any size and of different grids: the moving image is first pulled onto the fixed grid as the headers say.
    The head starts near zero (weights of deviation 1e-5), so an untrained network answers with nearly no motion.

    Args:
        ndim: 2 or 3.
        encoder: channels of the halving stages.
        decoder: channels of the other stages; `VOXELMORPH_2` (default, as the paper's best) or `VOXELMORPH_1`.
        transform: `Displacement`, or `Velocity` for a diffeomorphism; the head's answer is its `field`.
        channels: of one image.
    """

    def __init__(
        self,
        ndim: int,
        encoder: tuple[int, ...] = ENCODER,
        decoder: tuple[int, ...] = VOXELMORPH_2,
        transform: Callable[[Tensor, Grid], Dense] = Displacement,
        channels: int = 1,
    ) -> None:
        super().__init__()
        self.transform = transform
        self.unet = UNet(ndim, 2 * channels, encoder, decoder)
        self.head = convolution(ndim, self.unet.channels_out, ndim, 3, padding=1)
        nn.init.normal_(self.head.weight, std=1e-5)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        seen = moving if moving.grid == fixed.grid else pull(moving, Affine.identity(fixed.grid.ndim), onto=fixed)
        features = self.unet(torch.cat([fixed.data, seen.data], 1))
        with torch.autocast(features.device.type, enabled=False):  # bfloat16 would round the field to 1/64 voxel
            field = convolve(self.head, features.float())
        return Alignment(Pair(fixed, moving), self.transform(field, fixed.grid))
