"""NCR-Net: one network aligns two images, and marks what of the fixed one has no counterpart in the moving one.

Andresen, Kepp, Ehrhardt, von der Burchard, Roider, Handels: Deep learning-based simultaneous registration and
unsupervised non-correspondence segmentation of medical images with pathologies, IJCARS 17:699, 2022; abstract at WBIR
2022. A U-Net with one encoder and two decoders: one answers with a velocity, the other with a map S from 0 to 1 on the
fixed grid. How it learns is in `non_correspondence`.

The abstract leaves most open. Parts and widths are those of the group's next network (ANCR-Net, public code), without
its difference image and its dropout. Where it is silent too, this was decided: convolutions are padded by zeros, as
everywhere here, and the map's logits begin at −2.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pullback.alignment import Alignment, Pair
from pullback.methods.method import Method, Paper
from pullback.networks import Decoder, Encoder, Network, batch_norm_relu, convolution, linear_up, max_pooling, together
from pullback.networks.up import Convolved, Finish
from pullback.space import Affine, Grid, Image, Velocity, pull

MAP = "non_correspondence"
LEVELS = 3  # of full, half and a quarter of the size


@dataclass(frozen=True, eq=False)
class MarkedAlignment(Alignment):
    """An alignment with a map of what has no counterpart, and the same of the images at lower resolution.

    Attributes:
        coarser: at a half and a quarter of the resolution, each with a map of its own.
    """

    coarser: tuple[Alignment, ...] = ()


class NCRNet(Network):
    """A register of images of one dimension that also marks where the fixed one shows what the moving one lacks.

    The answer's map `non_correspondence` is S, 0 … 1. Images may have any size.

    Args:
        ndim: 2 or 3.
        width: n: channels are n to 16 n. In 2-D there are 1,022,833 weights with 8, and 575,907 with 6.
        channels: of one image.
        finish: what follows each convolution; with batches of one pair `instance_norm_relu` is the same in training
            and after it.
        start: of the map's logits, so that training begins with little marked.
    """

    def __init__(
        self,
        ndim: int,
        width: int = 8,
        channels: int = 1,
        finish: Callable[[int], Finish] = batch_norm_relu,
        start: float = -2.0,
    ) -> None:
        super().__init__()
        n = width
        self.ndim, block, down = ndim, _Blocks(finish, width), (n, 3 * n, 4 * n, 8 * n, 16 * n)
        self.encoder = Encoder(ndim, 2 * channels, down, block, max_pooling)
        self.moving = Decoder(ndim, down, (8 * n, 6 * n, 4 * n), block, linear_up)
        self.marking = Decoder(ndim, down, (8 * n, 6 * n, 4 * n, 2 * n), block, linear_up)
        self.velocities = nn.ModuleList(_velocity_head(ndim, k * n) for k in (4, 6, 8))
        self.maps = nn.ModuleList(_map_head(ndim, k * n, start) for k in (2, 4, 6))
        self.up = linear_up(ndim, ndim, ndim)

    def forward(self, fixed: Image, moving: Image) -> MarkedAlignment:
        features = self.encoder(together(fixed, moving))
        motions, marks = self.moving(features), self.marking(features)[:LEVELS]
        with torch.autocast(fixed.data.device.type, enabled=False):  # bfloat16 would round the field to 1/64 voxel
            pairs = _levels(fixed, moving)
            first, *coarser = (
                self._level(level, head(motion.float()), torch.sigmoid(mark_head(mark.float())))
                for level, head, motion, mark_head, mark in zip(
                    pairs, self.velocities, motions, self.maps, marks, strict=True
                )
            )
        return MarkedAlignment(first.pair, first.transform, first.maps, coarser=tuple(coarser))

    def _level(self, pair: Pair, velocity: Tensor, mark: Tensor) -> Alignment:
        """Return the answer at a level, by a velocity in its voxels on a lattice of half its size."""
        grid = pair.fixed.grid
        return Alignment(pair, Velocity(self.up(velocity, grid.shape), grid), {MAP: Image(mark, grid)})


@dataclass(frozen=True)
class _Blocks:
    """Blocks of two 3ᵈ convolutions, with as many channels between them as that network has.

    Attributes:
        finish: as of `NCRNet`.
        width: n.
    """

    finish: Callable[[int], Finish]
    width: int

    def __call__(self, ndim: int, before: int, after: int) -> nn.Sequential:
        up = {24: 12, 12: 8, 9: 6, 5: 4}  # of decoders, by channels before; an encoder's have those after
        between = up.get(before // self.width, after // self.width) * self.width if before > after else after
        ways = ((before, between), (between, after))
        return nn.Sequential(*(Convolved(ndim, one, two, self.finish(ndim)) for one, two in ways))


def _head(ndim: int, channels: int, after: int) -> tuple[nn.Sequential, nn.Conv2d | nn.Conv3d]:
    """Return two convolutions of one voxel, to `after` channels, and the last of them."""
    last = convolution(ndim, channels // 2, after, 1)
    return nn.Sequential(convolution(ndim, channels, channels // 2, 1), nn.ReLU(inplace=True), last), last


def _velocity_head(ndim: int, channels: int) -> nn.Sequential:
    """Return a head that starts near 0, so that an untrained network hardly moves."""
    head, last = _head(ndim, channels, ndim)
    nn.init.normal_(last.weight, std=1e-5)
    assert last.bias is not None
    nn.init.zeros_(last.bias)
    return head


def _map_head(ndim: int, channels: int, start: float) -> nn.Sequential:
    head, last = _head(ndim, channels, 1)
    assert last.bias is not None
    nn.init.constant_(last.bias, start)
    return head


def _levels(fixed: Image, moving: Image) -> list[Pair]:
    """Return the images at full size, and both on the fixed grid at a half and a quarter, as means over voxels."""
    pairs, there = [Pair(fixed, moving)], moving
    if moving.grid != fixed.grid:
        there = pull(moving, Affine.identity(fixed.grid.ndim), onto=fixed)
    for _ in range(LEVELS - 1):
        fixed, there = _halved(fixed), _halved(there)
        pairs.append(Pair(fixed, there))
    return pairs


def _halved(image: Image) -> Image:
    """Return the means of 2ᵈ voxels, of fewer at the end; masked where one of them is."""
    d, pool = image.grid.ndim, F.avg_pool2d if image.grid.ndim == 2 else F.avg_pool3d
    step = torch.eye(d + 1, dtype=torch.float64)
    step[:-1] *= 2
    step[:-1, -1] = 0.5
    data = pool(image.data, 2, ceil_mode=True)
    mask = None if image.mask is None else pool(image.mask.to(data), 2, ceil_mode=True) == 1
    return Image(data, Grid(tuple(data.shape[2:]), image.grid.affine @ step.to(image.grid.affine)), mask)


METHOD = Method(
    about="a network that aligns, and marks what has no counterpart: lesions that nobody has outlined",
    aligns=("pair",),
    trained=True,
    papers=(
        Paper(
            "andresen2022deep",
            "Andresen, Julia and Kepp, Timo and Ehrhardt, Jan and von der Burchard, Claus and Roider, Johann and "
            "Handels, Heinz",
            "Deep learning-based simultaneous registration and unsupervised non-correspondence segmentation of medical "
            "images with pathologies",
            "International Journal of Computer Assisted Radiology and Surgery",
            2022,
            "10.1007/s11548-022-02577-4",
            "article",
            "17",
            "699--710",
        ),
    ),
    keys=("ncr-net-within",),
)
