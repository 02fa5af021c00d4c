"""Residual U-Net of few channels, for visits of one child, and what pre-alignment is worth to it.

Dimitrijevic et al.: Unsupervised learning-based intra-subject registration of pediatric brain MRI, WBIR 2022. The
network is that of DeepReg (Fu et al. 2020), `deepreg/model/backbone/u_net.py`, by its defaults: residual blocks, max
pooling, skips that are added. The paper is silent on, and here it is decided:

- "3-layer encoder and decoder with 8, 16 and 32 channels each": three sizes on each side of a bottom of 64, as in
  DeepReg's examples; `widths=(8, 16, 32)` is the other reading, whose bottom has 32;
- what the network answers: a displacement, DeepReg's "ddf"; `transform=Velocity` is its "dvf";
- the weight of the regularity, batch and updates: see the recipes.
"""

from collections.abc import Callable

from torch import Tensor, nn

from pullback.alignment import Alignment
from pullback.methods.method import Method, Paper
from pullback.networks import FieldHead, Network, together
from pullback.networks.encoder_decoder import Add, Decoder, Encoder, Transposed, max_pooling
from pullback.networks.residual import ConvolvedResidual
from pullback.networks.up import Finish, batch_norm_relu
from pullback.space import Dense, Displacement, Grid, Image

WIDTHS = (8, 16, 32, 64)
SHALLOW = (8, 16, 32)


def batch_norm(ndim: int) -> Finish:
    """Return batch normalisation, without activation."""
    return nn.BatchNorm2d if ndim == 2 else nn.BatchNorm3d


BLOCK = ConvolvedResidual(batch_norm_relu, batch_norm)


class ResidualUNet(Network):
    """A register of fixed and moving images of one dimension by a U-Net of residual blocks with added skips.

    Images may have any size and different grids: the moving image is first pulled onto the fixed grid by the headers,
    and sizes that are odd are rounded up on the way down and cut on the way up.

    Args:
        ndim: 2 or 3.
        widths: channels of each size, fine to coarse; the last is the bottom. 550,027 parameters in 3-D; with
            `SHALLOW` 134,667.
        transform: `Displacement`, or `Velocity` for a diffeomorphism; the head's answer is its `field`.
        channels: of one image.
    """

    def __init__(
        self,
        ndim: int,
        widths: tuple[int, ...] = WIDTHS,
        transform: Callable[[Tensor, Grid], Dense] = Displacement,
        channels: int = 1,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(ndim, 2 * channels, widths, BLOCK, max_pooling)
        self.decoder = Decoder(ndim, widths, widths[-2::-1], BLOCK, Transposed(batch_norm_relu, kernel=3), Add())
        self.head = FieldHead(ndim, self.decoder.channels_out, transform)

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        return self.head(self.decoder(self.encoder(together(fixed, moving)))[0], fixed, moving)


METHOD = Method(
    about="a small U-Net of residual blocks, for visits of one person, with or without pre-alignment",
    aligns=("pair",),
    trained=True,
    papers=(
        Paper(
            "dimitrijevic2022unsupervised",
            "Dimitrijevic, Andjela and Noblet, Vincent and De Leener, Benjamin",
            "Unsupervised Learning-Based Intra-Subject Registration of Pediatric Brain MRI",
            "Biomedical Image Registration (WBIR)",
            2022,
        ),
        Paper(
            "fu2020deepreg",
            "Fu, Yunguan and Montaña Brown, Nina and Saeed, Shaheer U. and Casamitjana, Adrià and Baum, Zachary M. C. "
            "and Delaunay, Rémi and Yang, Qianye and Grimwood, Alexander and Min, Zhe and Blumberg, Stefano B. and "
            "Iglesias, Juan Eugenio and Barratt, Dean C. and Bonmati, Ester and Clarkson, Matthew J. and "
            "Vercauteren, Tom and Hu, Yipeng",
            "DeepReg: a deep learning toolkit for medical image registration",
            "Journal of Open Source Software",
            2020,
            "10.21105/joss.02705",
            "article",
            "5",
            "2705",
        ),
    ),
    keys=("residual-unet-rigid", "residual-unet-affine"),
)
