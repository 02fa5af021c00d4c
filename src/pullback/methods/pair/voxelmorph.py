"""VoxelMorph: a U-Net that looks at both images and answers with a field.

Balakrishnan et al. 2018 (CVPR), 2019 (TMI); Dalca et al. 2018 for the stationary velocity.
"""

from collections.abc import Callable

from torch import Tensor

from pullback.alignment import Alignment
from pullback.methods.method import Method, Paper
from pullback.networks import FieldHead, Network, Trunk, UNet, together
from pullback.space import Dense, Displacement, Grid, Image

ENCODER = (16, 32, 32, 32)
VOXELMORPH_1 = (32, 32, 32, 32, 8, 8)
VOXELMORPH_2 = (32, 32, 32, 32, 32, 16, 16)
LIGHT_ENCODER = (8, 32, 32, 32)
LIGHT = (32, 32, 32, 32, 32, 8, 8)


class VoxelMorph(Network):
    """A register of fixed and moving images of one dimension by a U-Net.

    Images may have any size and different grids: the moving image is first pulled onto the fixed grid by the headers.

    Args:
        ndim: 2 or 3.
        encoder: channels of the halving stages.
        decoder: channels of the other stages; `VOXELMORPH_2` (default, as the paper's best; 300,547 parameters in 3D)
            or `VOXELMORPH_1`.
        transform: `Displacement`, or `Velocity` for a diffeomorphism; the head's answer is its `field`.
        channels: of one image.
        halves: as of `UNet`. With 1 there are 301,411 parameters, as in the authors' later code; with `LIGHT_ENCODER`
            and `LIGHT` as well 274,387, as in the code of On-the-Fly Guidance (Xin et al. 2024).
    """

    def __init__(
        self,
        ndim: int,
        encoder: tuple[int, ...] = ENCODER,
        decoder: tuple[int, ...] = VOXELMORPH_2,
        transform: Callable[[Tensor, Grid], Dense] = Displacement,
        channels: int = 1,
        halves: int = 2,
    ) -> None:
        super().__init__()
        self.unet = UNet(ndim, 2 * channels, encoder, decoder, halves)
        self.head = FieldHead(ndim, self.unet.channels_out, transform)

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        return self.head(self.unet(together(fixed, moving)), fixed, moving)

    def trunk(self) -> Trunk:
        """Return the stages down, and those up to a quarter of the size."""
        return self.unet.trunk()


METHOD = Method(
    about="a U-Net that looks at both images and answers with a field",
    aligns=("pair",),
    trained=True,
    papers=(
        Paper(
            "balakrishnan2019voxelmorph",
            "Balakrishnan, Guha and Zhao, Amy and Sabuncu, Mert R. and Guttag, John and Dalca, Adrian V.",
            "VoxelMorph: A Learning Framework for Deformable Medical Image Registration",
            "IEEE Transactions on Medical Imaging",
            2019,
            "10.1109/TMI.2019.2897538",
            "article",
            "38",
            "1788--1800",
        ),
        Paper(
            "balakrishnan2018unsupervised",
            "Balakrishnan, Guha and Zhao, Amy and Sabuncu, Mert R. and Guttag, John and Dalca, Adrian V.",
            "An Unsupervised Learning Model for Deformable Medical Image Registration",
            "IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)",
            2018,
            "10.1109/CVPR.2018.00964",
        ),
        Paper(
            "dalca2018unsupervised",
            "Dalca, Adrian V. and Balakrishnan, Guha and Guttag, John and Sabuncu, Mert R.",
            "Unsupervised Learning for Fast Probabilistic Diffeomorphic Registration",
            "Medical Image Computing and Computer Assisted Intervention (MICCAI)",
            2018,
            "10.1007/978-3-030-00928-1_82",
        ),
    ),
    keys=("voxelmorph-light",),
)
