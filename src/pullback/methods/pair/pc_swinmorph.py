"""PC-SwinMorph: two images in patches, both ways at once, with a contrast between places, and attention over the seams.

Liu, Huang, Liò, Schönlieb, Aviles-Rivero: PC-SwinMorph: patch representation for unsupervised medical image
registration and segmentation (2022). Both images are cut into the same patches. One encoder sees all of them; one
decoder answers with a displacement for each patch in both directions; these are laid together, and two blocks of a Swin
transformer, whose shifted windows lie across the seams, correct the whole fields. Labels of the fixed image carried by
the way back are the paper's segmentation of the moving one. It learns by `PatchContrastive`.

The paper has two pages and refers to the authors' earlier work for all else (Liu, Aviles-Rivero, Schönlieb: Contrastive
registration for unsupervised medical image segmentation, 2020; "[L]" is its code). Decided here:

- Encoder, decoder and NT-Xent are those of [L], without the batch normalisation and ReLU after its last convolution, by
  which no displacement is below 0; that convolution starts near 0.
- The paper draws the contrast before the encoders, which are to see its features. But a loss changes no features on the
  way forward: it is a loss on the encoder's last features, as in [L]. Negatives are the other places of the images, and
  of further pairs that are seen at once. Its weight is 0.01 ([L]: 1e-4, as two factors of 0.01).
- The Swin blocks see the displacements and the decoder's last features by tokens of 4ᵈ voxels, and answer with what is
  added, from 1e-3 on. Windows have 4 to 7 tokens along an axis, and patches are whole multiples of them: then windows
  do not cross seams, and shifted ones, by half, do.
- The loss is the mean over both directions of one energy, LNCC and diffusion. The paper names none.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pullback.alignment import BACK, Pair
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.methods.pair.patch_contrast import PatchAlignment
from pullback.networks import (
    Convolutions,
    Convolved,
    Decoder,
    Encoder,
    Network,
    Transposed,
    batch_norm_relu,
    channels_last,
    convolution,
    convolve,
    linear_up,
    max_pooling,
    together,
)
from pullback.networks.swin import SwinBlock
from pullback.numerics.tiles import Tiling
from pullback.space import Dense, Displacement, Grid, Image

TOKEN = 4  # voxels along an axis
LEAST = 12  # voxels along an axis of a patch, where there are several: three tokens
WINDOWS = (4, 7)  # tokens along an axis, the fewest and the most


class PCSwinMorph(Network):
    """A register of two images of one dimension, both ways at once, by patches that do not overlap.

    Images of any size: they are continued by zeros, alike on all sides, to whole patches, whose edges are multiples of
    the tokens' windows (`patches`). All patches are one batch, so that in training they need as much memory as the
    whole image; and no patch sees what moved into it from beyond but by the last blocks.

    Args:
        ndim: 2 or 3.
        tiles: patches along each axis; None is two.
        widths: channels of the encoder's three blocks; the decoder's are twice as many.
        window: tokens of 4 voxels along each axis, of the attention; None is six.
        embed: channels of a token.
        heads: of attention.
        stitch: let two Swin blocks correct the fields once they are laid together.
        projected: channels of a projection.
        border: how convolutions continue a patch: `"zeros"`, or `"replicate"` its border.
        transform: `Displacement`, or `Velocity` for a diffeomorphism each way; the answer is its `field`.
        channels: of one image.

    Raises:
        InputError: patches below 1, windows beyond 4 to 7 tokens, other numbers of axes, or another border.
    """

    def __init__(
        self,
        ndim: int,
        tiles: tuple[int, ...] | None = None,
        widths: tuple[int, ...] = (16, 32, 64),
        window: tuple[int, ...] | None = None,
        embed: int = 48,
        heads: int = 3,
        stitch: bool = True,
        projected: int = 64,
        border: str = "zeros",
        transform: Callable[[Tensor, Grid], Dense] = Displacement,
        channels: int = 1,
    ) -> None:
        super().__init__()
        self.tiles, self.window, self.transform = tiles or (2,) * ndim, window or (6,) * ndim, transform
        low, high = WINDOWS
        if len(self.tiles) != ndim or len(self.window) != ndim or min(self.tiles) < 1:
            raise InputError(
                f"PCSwinMorph: one patch or more and a window along each of {ndim} axes expected, got {self.tiles}, "
                f"{self.window}"
            )
        if not all(low <= n <= high for n in self.window) or border not in ("zeros", "replicate"):
            raise InputError(
                f"PCSwinMorph: windows of {low} to {high} tokens and a border of zeros or replicate expected, got "
                f"{self.window} and {border!r}"
            )
        norm, both = batch_norm_relu(ndim), [2 * width for width in widths]
        self.encoder = Encoder(ndim, channels, widths, Convolutions(batch_norm_relu), max_pooling)
        self.pool = max_pooling(ndim, widths[-1])
        self.project = nn.Linear(widths[-1], projected)
        deep = both[-1]
        self.bottom = nn.Sequential(Convolved(ndim, deep, 2 * deep, norm), Convolved(ndim, 2 * deep, deep, norm))
        self.up = nn.ModuleList(_rise(ndim, both, n) for n in reversed(range(len(both))))
        self.field = convolution(ndim, both[0], ndim, 3, padding=1)
        _near_zero(self.field, 1e-5)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Conv3d):
                layer.padding_mode = cast(Literal["zeros", "replicate"], border)
        self.stitch = _Stitcher(ndim, both[0], self.window, embed, heads) if stitch else None

    def patches(self, shape: Sequence[int]) -> Tiling:
        """Return the patches of an image of this shape.

        Their edge is the least multiple of the encoder's stride and of a window that so many cover the image by.

        Raises:
            InputError: patches of fewer than 12 voxels.
        """
        for axis, (n, count) in enumerate(zip(shape, self.tiles, strict=True)):
            if count > 1 and n < count * LEAST:
                raise InputError(
                    f"PCSwinMorph: {count} patches along axis {axis} need {count * LEAST} voxels, got {n}: take fewer "
                    f"patches"
                )
        steps = [math.lcm(2 * self.encoder.stride, TOKEN * window) for window in self.window]
        size = tuple(
            math.ceil(n / (count * step)) * step for n, count, step in zip(shape, self.tiles, steps, strict=True)
        )
        whole = tuple(count * edge for count, edge in zip(self.tiles, size, strict=True))
        return Tiling(whole, size, size)

    def seams(self, shape: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Return, along each axis of an image of this shape, the first voxels of the patches after a seam.

        Raises:
            InputError: as of `patches`.
        """
        tiling = self.patches(shape)
        befores = _before(tiling, shape)
        return tuple(
            tuple(start - before for start in starts[1:]) for starts, before in zip(tiling.starts, befores, strict=True)
        )

    def forward(self, fixed: Image, moving: Image) -> PatchAlignment:
        """Align two images both ways: fixed → moving, and as the transform `back`, moving → fixed.

        Raises:
            InputError: as of `patches`.
        """
        both, tiling = together(fixed, moving), self.patches(fixed.grid.shape)
        before = _before(tiling, fixed.grid.shape)
        around = [(a, m - n - a) for a, m, n in zip(before, tiling.shape, fixed.grid.shape, strict=True)]
        both = F.pad(both, [more for ends in reversed(around) for more in ends])
        images = torch.stack([tiling.cut(image) for image in both.chunk(2, 1)])  # (2, N, B, C, *size)
        fine, deepest = self._decoded(channels_last(images.flatten(0, 2)))
        with torch.autocast(both.device.type, enabled=False):  # bfloat16 would round the field
            fine = fine.float()
            parts = convolve(self.field, channels_last(fine))
            field, features = (_laid(each, tiling, images.shape[:3]) for each in (parts, fine))
            if self.stitch is not None:
                field = field + self.stitch(field, features)
            inside = (slice(a, a + n) for a, n in zip(before, fixed.grid.shape, strict=True))
            field = field[(slice(None), slice(None), *inside)]
            seen = self.project(deepest.float().flatten(2).mean(2))
        there, back = (self.transform(each, fixed.grid) for each in field.unflatten(0, (2, -1)))
        spread = images.flatten(3).amax(3) - images.flatten(3).amin(3)
        return PatchAlignment(
            Pair(fixed, moving),
            there,
            transforms={BACK: back},
            projections=F.normalize(seen, dim=1).unflatten(0, (2, -1)),
            varied=(spread > 0).all(0).flatten(),
        )

    def _decoded(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Return full-size features of both orders, `(2n, C, *size)`, and the last ones of each image's patches.

        `patches` are `(2n, C, *size)`, those of the fixed image first. The first half of the answer sees the features
        of the fixed image and then those of the moving one, the second half the other way round.
        """
        levels = self.encoder(patches)
        deepest = self.pool(levels[-1])
        values = self.bottom(_both_orders(deepest))
        for rise, level in zip(self.up, reversed(levels), strict=True):
            (values,) = rise([_both_orders(level), values])
        return values, deepest


class _Stitcher(nn.Module):
    """Attention within windows and then across them, from fields and features to what is added to the fields."""

    def __init__(self, ndim: int, channels: int, window: Sequence[int], embed: int, heads: int) -> None:
        super().__init__()
        self.mode = "bilinear" if ndim == 2 else "trilinear"
        self.embed = convolution(ndim, ndim + channels, embed, TOKEN, stride=TOKEN)
        shifts = ((0,) * ndim, tuple(n // 2 for n in window))
        self.blocks = nn.Sequential(*(SwinBlock(embed, heads, window, shift, 0.0) for shift in shifts))
        self.norm = nn.LayerNorm(embed)
        self.out = convolution(ndim, embed, ndim, 1)
        _near_zero(self.out, 1e-3)

    def forward(self, field: Tensor, features: Tensor) -> Tensor:
        tokens = convolve(self.embed, torch.cat([field, features], 1)).movedim(1, -1)
        tokens = self.norm(self.blocks(tokens)).movedim(-1, 1)
        return F.interpolate(self.out(tokens), scale_factor=TOKEN, mode=self.mode, align_corners=False)


def _rise(ndim: int, both: Sequence[int], n: int) -> Decoder:
    """Return the decoder's stage to the n-th size: linear upsampling from the bottom, transposed convolutions above."""
    lowest = n == len(both) - 1
    below = both[n] if lowest else both[n + 1]
    block = Convolutions(batch_norm_relu, (3,) if n == 0 else (3, 3))
    grow = linear_up if lowest else Transposed(batch_norm_relu, kernel=3)
    return Decoder(ndim, (both[n], below), (both[n],), block, grow)


def _before(tiling: Tiling, shape: Sequence[int]) -> tuple[int, ...]:
    """Return how many zeros come before an image along each axis."""
    return tuple((m - n) // 2 for m, n in zip(tiling.shape, shape, strict=True))


def _both_orders(features: Tensor) -> Tensor:
    """Return features `(2n, C, …)` of two images, each beside the other image's: `(2n, 2C, …)`."""
    return torch.cat([features, features.roll(len(features) // 2, 0)], 1)


def _laid(values: Tensor, tiling: Tiling, counts: Sequence[int]) -> Tensor:
    """Return values `(2·N·B, C, *size)` of patches laid together, `(2·B, C, *shape)`."""
    return tiling.laid(values.unflatten(0, tuple(counts)).transpose(0, 1).flatten(1, 2))


def _near_zero(layer: nn.Conv2d | nn.Conv3d, deviation: float) -> None:
    nn.init.normal_(layer.weight, std=deviation)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


METHOD = Method(
    about="a network of patches, both ways at once, whose seams attention crosses",
    aligns=("pair",),
    trained=True,
    papers=(
        Paper(
            "liu2022pcswinmorph",
            "Liu, Lihao and Huang, Zhening and Liò, Pietro and Schönlieb, Carola-Bibiane and Aviles-Rivero, Angelica",
            "PC-SwinMorph: Patch Representation for Unsupervised Medical Image Registration and Segmentation",
            "arXiv:2203.05684",
            2022,
            "10.48550/arXiv.2203.05684",
            "misc",
        ),
        Paper(
            "liu2020contrastive",
            "Liu, Lihao and Aviles-Rivero, Angelica I. and Schönlieb, Carola-Bibiane",
            "Contrastive Registration for Unsupervised Medical Image Segmentation",
            "arXiv:2011.08894",
            2020,
            "10.48550/arXiv.2011.08894",
            "misc",
        ),
    ),
)
