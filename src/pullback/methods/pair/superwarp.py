"""SuperWarp: a U-Net that warps its features as the displacement grows, coarse to fine, and is told by true fields.

Young, Balbastre, Dalca, Wells, Iglesias, Fischl: SuperWarp: Supervised Learning and Warping on U-Net for Invariant
Subvoxel-Precise Registration, WBIR 2022. Both images go through one U-Net as a batch, so that their features stay
apart. On each level of its way up those of the moving image are warped by the displacement so far, and the sum and the
difference of both tell what is left of it. Pairs with known truth are `RandomWarps`, the supervision is
`KnownTransform`.

Where the paper is silent:

1. The way up runs on features that are not warped, of both images alike; warped copies are seen by the extractors
   alone. Else features are interpolated once per level.
2. Extractors are two convolutions that keep the 2C channels of both features and one that makes the displacement: so
   seven levels have 7.2 million weights, of which the paper counts 6.9.
3. What is left is composed with the displacement so far ("composed across the upward path"), not added to it, as fig. 1
   has it: the sum is wrong by the slope of the displacement times what is left.
4. Pooling is by means, upsampling linear; images are continued by their border to multiples of the coarsest voxel.
   Levels lie where the means of blocks lie, between the voxels.
5. Weights are drawn as He et al. 2015 do, so that differences of features survive so many layers.
6. The warm-up, the first tenth of the updates without motion, is left out: by extractors that begin with no motion
   nothing is learned of it. `WarmUp` with `start=0.05` is an arm of the study.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pullback.alignment import Alignment, Pair
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.networks import (
    Convolutions,
    Convolved,
    Decoder,
    Encoder,
    FieldHead,
    Network,
    channels_last,
    convolution,
    convolve,
    linear_up,
    mean_pooling,
    padded,
    together,
)
from pullback.numerics.cost_volume import unpooled
from pullback.numerics.integrate import compose
from pullback.numerics.sample import sample, voxels
from pullback.space import Displacement, Grid, Image
from pullback.training import LevelledAlignment, RandomWarps, Task

LEAK = 0.2
WIDTHS = (24, 32, 48, 64, 96, 128, 192)
VOLUMES = (12, 32, 48, 64, 96)
"""Of volumes, whose paper does not speak: five levels, the first half as wide, for memory."""
START = 1e-5  # deviation of an extractor's last weights, per voxel of the image


class SuperWarp(Network):
    """A register by displacements that are extracted, level by level, from features warped by what is known so far.

    Args:
        ndim: 2 or 3.
        widths: channels of the levels, fine to coarse; each has half the size of the one before. None takes the paper's
            seven in 2-D, five in 3-D. The coarsest voxel should be as long as images lie apart.
        wide: extractors keep the channels of both features; else they halve them first, for small machines.
        composed: what is left on a level is composed with the displacement so far; else added.
        hadamard: extractors see sum and difference of the features; else the features.
        warped: features of the moving image are warped by the displacement so far.
        start: deviation of the extractors' last weights, in voxels of the level; None begins without motion.
        channels: of one image.

    Raises:
        InputError: fewer than two levels, or channels below 1.
    """

    def __init__(
        self,
        ndim: int,
        widths: tuple[int, ...] | None = None,
        wide: bool = True,
        composed: bool = True,
        hadamard: bool = True,
        warped: bool = True,
        start: float | None = None,
        channels: int = 1,
    ) -> None:
        super().__init__()
        widths = (WIDTHS if ndim == 2 else VOLUMES) if widths is None else widths
        self.composed, self.hadamard, self.warped = composed, hadamard, warped
        self.encoder, self.decoder = _halves(ndim, channels, widths, "SuperWarp")
        self.extractors = nn.ModuleList(
            _Extractor(ndim, width, wide, START / 2**level if start is None else start)
            for level, width in enumerate(widths)
        )

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        """Return the alignment, and the displacements of the coarser levels on their own grids.

        Raises:
            InputError: an image of fewer than two voxels of the coarsest level along an axis.
        """
        shape, stride = fixed.grid.shape, self.encoder.stride
        fitting = (min(shape) // 2).bit_length()
        if min(shape) < 2 * stride:
            raise InputError(
                f"SuperWarp: of {'×'.join(map(str, shape))} voxels the coarsest of {len(self.extractors)} levels would "
                f"have less than two along an axis; {fitting} levels fit: give as many widths"
            )
        values = together(fixed, moving)
        before = [-n % stride // 2 for n in shape]
        pads = [pad for n, first in zip(shape, before, strict=True) for pad in (-n % stride - first, first)]
        both = F.pad(torch.cat(values.chunk(2, 1)), pads[::-1], mode="replicate")  # (2B, C, …): fixed, then moving
        *coarse, field = self.displacements(self.features(both))
        for axis, (first, n) in enumerate(zip(before, shape, strict=True), start=2):
            field = field.narrow(axis, first, n)
        levels = [
            Displacement(values, level_grid(fixed.grid, len(coarse) - n, before, tuple(values.shape[2:])))
            for n, values in enumerate(coarse)
        ]
        answer = Displacement(field.contiguous(), fixed.grid)
        return LevelledAlignment(Pair(fixed, moving), answer, levels=tuple(levels))

    def features(self, values: Tensor) -> list[Tensor]:
        """Return the features of `(B, channels, *spatial)` on all levels, fine to coarse, each image by itself."""
        down = self.encoder(channels_last(values))
        return [*self.decoder(down), down[-1]]

    def displacements(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the displacements of all levels, coarse to fine, `(B, d, *spatial)` in voxels of each.

        Args:
            features: fine to coarse, `(2B, C, *spatial)`, those of the fixed images before those of the moving ones.
        """
        found: list[Tensor] = []
        for level in reversed(range(len(features))):
            fixed, moving = features[level].chunk(2)
            before = None
            if found:
                before = unpooled(found[-1], 2, fixed.shape[2:])
                moving = _moved(moving, before) if self.warped else moving
            inputs = (fixed + moving, fixed - moving) if self.hadamard else (fixed, moving)
            rest = self.extractors[level](torch.cat(inputs, 1))
            if before is not None:
                rest = compose(before, rest) if self.composed else before + rest
            found.append(rest)
        return found


class _Extractor(nn.Module):
    """Three convolutions: from features of two images to what is left of their displacement, in voxels.

    Args:
        ndim: 2 or 3.
        channels: of the features of each.
        wide: whether all channels of both are kept, or half of them.
        start: deviation of the last weights.
    """

    def __init__(self, ndim: int, channels: int, wide: bool, start: float) -> None:
        super().__init__()
        within = 2 * channels if wide else channels
        self.mix = nn.Sequential(
            Convolved(ndim, 2 * channels, within, _leaky, bias=True), Convolved(ndim, within, within, _leaky, bias=True)
        )
        self.last = convolution(ndim, within, ndim, 3, padding=1)
        _drawn(self.mix)
        nn.init.normal_(self.last.weight, std=start)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, values: Tensor) -> Tensor:
        """Return `(B, d, *spatial)` float32, or as the weights are."""
        values = self.mix(channels_last(values))
        with torch.autocast(values.device.type, enabled=False):  # bfloat16 would round the field
            return convolve(self.last, values.to(self.last.weight.dtype)).contiguous()


class JoinedUNet(Network):
    """The baseline: the same U-Net, on both images as channels of one input, with one field at full size.

    Args:
        ndim: 2 or 3.
        widths: channels of the levels, fine to coarse, as of `SuperWarp`; None takes the same.
        channels: of one image.

    Raises:
        InputError: as `SuperWarp`.
    """

    def __init__(self, ndim: int, widths: tuple[int, ...] | None = None, channels: int = 1) -> None:
        super().__init__()
        widths = (WIDTHS if ndim == 2 else VOLUMES) if widths is None else widths
        self.encoder, self.decoder = _halves(ndim, 2 * channels, widths, "JoinedUNet")
        self.head = FieldHead(ndim, widths[0], Displacement)

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        features = padded(self._features, together(fixed, moving), self.encoder.stride)
        return self.head(features, fixed, moving)

    def _features(self, values: Tensor) -> Tensor:
        return cast(Tensor, self.decoder(self.encoder(channels_last(values)))[0])


@dataclass(frozen=True)
class WarmUp:
    """The procedure that begins with pairs of which nothing moves, so that features of other contrasts become alike.

    Attributes:
        share: of the updates (section 3.3: 20,000 of 200,000).

    Raises:
        InputError: no such share.
    """

    share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(f"WarmUp: a share of the updates between 0 and 1 expected, got {self.share}")

    def __call__(self, task: Task) -> nn.Module:
        """Train a network; what it learns without motion is kept in the task's folder as `still`.

        Raises:
            InputError: pairs are not made by `RandomWarps`.
        """
        training = task.training
        if not isinstance(training.augment, RandomWarps):
            raise InputError(f"WarmUp: training.augment makes the pairs, RandomWarps expected, got {training.augment}")
        updates = max(1, round(self.share * training.updates))
        still = replace(training, updates=updates, augment=training.augment.still, schedule=None, choose_from=1.0)
        network = task.part("still", still).trained(task.make(0))
        return replace(task, training=replace(training, updates=max(1, training.updates - updates))).trained(network)


def level_grid(grid: Grid, level: int, before: Sequence[int], shape: tuple[int, ...]) -> Grid:
    """Return the grid of the means of blocks of 2^level voxels of a grid that goes on by `before` voxels.

    Args:
        grid: of the image.
        level: 0 for that of the image.
        before: voxels that were added before the first along each axis.
        shape: of the answer.
    """
    stride, affine = 2**level, grid.affine.clone()
    first = (stride - 1) / 2 - torch.tensor(before, dtype=torch.float64)
    affine[:-1, -1] += affine[:-1, :-1] @ first
    affine[:-1, :-1] *= stride
    return Grid(shape, affine)


def _halves(ndim: int, channels: int, widths: Sequence[int], name: str) -> tuple[Encoder, Decoder]:
    """Return the two ways of the U-Net, of two convolutions on each level."""
    if len(widths) < 2 or min(*widths, channels) < 1:
        raise InputError(f"{name}: two levels or more, and channels of 1 or more expected, got widths {tuple(widths)}")
    block = Convolutions(lambda ndim: _leaky, bias=True)
    encoder = Encoder(ndim, channels, widths, block, mean_pooling)
    decoder = Decoder(ndim, widths, widths[-2::-1], block, linear_up)
    _drawn(encoder)
    _drawn(decoder)
    return encoder, decoder


def _leaky(channels: int) -> nn.Module:
    return nn.LeakyReLU(LEAK, inplace=True)


def _drawn(module: nn.Module) -> None:
    """Draw the weights of all convolutions so that each keeps the strength of its input (He et al. 2015)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, LEAK)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _moved(features: Tensor, field: Tensor) -> Tensor:
    """Return features where a displacement leads, `(B, C, *spatial)`; they go on by their border."""
    with torch.autocast(field.device.type, enabled=False):
        where = voxels(tuple(field.shape[2:]), field) + field
        return sample(features.to(field.dtype).contiguous(), where, padding="border")


METHOD = Method(
    about="a U-Net that warps its features level by level, told by true fields; a backbone for other ways to learn",
    aligns=("pair",),
    trained=True,
    papers=(
        Paper(
            "young2022superwarp",
            "Young, Sean I. and Balbastre, Yaël and Dalca, Adrian V. and Wells, William M. and Iglesias, Juan Eugenio "
            "and Fischl, Bruce",
            "SuperWarp: Supervised Learning and Warping on U-Net for Invariant Subvoxel-Precise Registration",
            "International Workshop on Biomedical Image Registration (WBIR)",
            2022,
            "10.1007/978-3-031-11203-4_12",
            pages="103--115",
        ),
    ),
    keys=("superwarp-dice", "superwarp-unsupervised"),
)
