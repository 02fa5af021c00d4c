"""Encoders and decoders: U-Nets of parts, whose features can be used at every size.

An encoder answers with features of its input, one for each size, from fine to coarse; a decoder goes on from the
coarsest of them, and joins the others on its way up. Both take images of any size: halves are rounded up, and what has
grown is cut to the size of what it is joined with, so that voxel 0 stays where it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn

from pullback.errors import InputError
from pullback.networks.up import Convolved, Finish

Block = Callable[[int, int, int], nn.Module]
"""From dimensions, and channels before and after, to a module that keeps the size."""
Shrink = Callable[[int, int], nn.Module]
"""From dimensions and channels to a module that halves the size, rounded up, and keeps the channels."""


class Grow(nn.Module):
    """A module that doubles the size of features, `(B, before, *n)` to `(B, channels_out, *2n)`.

    Args:
        layer: does it.
        channels_out: of the answer.
        finish: follows it, when the answer has its size.
    """

    def __init__(self, layer: nn.Module, channels_out: int, finish: nn.Module | None = None) -> None:
        super().__init__()
        self.layer, self.channels_out = layer, channels_out
        self.finish = nn.Identity() if finish is None else finish

    def forward(self, values: Tensor, shape: Sequence[int]) -> Tensor:
        """Return features of `shape`, which along each axis is 2n, or 2n − 1, where n was rounded up."""
        values = self.layer(values)
        for axis, n in enumerate(shape, start=2):
            values = values.narrow(axis, 0, n)
        return self.finish(values)


Growing = Callable[[int, int, int], Grow]
"""From dimensions, channels before, and those of the decoder's stage, to a `Grow`."""


class Join(Protocol):
    """A way to put features from below and those of the encoder together."""

    def channels(self, below: int, skip: int) -> int:
        """Return how many channels there are then."""
        ...

    def __call__(self, below: Tensor, skip: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Concatenate:
    """The channels of both, those from below first."""

    def channels(self, below: int, skip: int) -> int:
        return below + skip

    def __call__(self, below: Tensor, skip: Tensor) -> Tensor:
        return torch.cat([below, skip], 1)


@dataclass(frozen=True)
class Add:
    """The sum of both."""

    def channels(self, below: int, skip: int) -> int:
        """Return how many channels both have.

        Raises:
            InputError: another number than the other.
        """
        if below != skip:
            raise InputError(f"Add: as many channels from below as of the encoder expected, got {below} and {skip}")
        return below

    def __call__(self, below: Tensor, skip: Tensor) -> Tensor:
        return below + skip


@dataclass(frozen=True)
class Convolutions:
    """Blocks of convolutions, each followed by `finish`.

    Attributes:
        finish: from dimensions to what follows a convolution: `instance_norm_relu`, `batch_norm_relu`, ….
        kernels: edges of the convolutions, odd; the first changes the channels.
        bias: of the convolutions; without use where a normalisation follows.
    """

    finish: Callable[[int], Finish]
    kernels: tuple[int, ...] = (3, 3)
    bias: bool = False

    def __call__(self, ndim: int, before: int, after: int) -> nn.Sequential:
        widths = (before, *[after] * len(self.kernels))
        return nn.Sequential(
            *(
                Convolved(ndim, a, b, self.finish(ndim), self.bias, kernel=edge)
                for (a, b), edge in zip(pairwise(widths), self.kernels, strict=True)
            )
        )


def max_pooling(ndim: int, channels: int) -> nn.Module:
    """Return maximum pooling by two; cells at the end may be of fewer voxels."""
    return (nn.MaxPool2d if ndim == 2 else nn.MaxPool3d)(2, ceil_mode=True)


def mean_pooling(ndim: int, channels: int) -> nn.Module:
    """Return mean pooling by two; cells at the end may be of fewer voxels."""
    return (nn.AvgPool2d if ndim == 2 else nn.AvgPool3d)(2, ceil_mode=True)


@dataclass(frozen=True)
class Strided:
    """Convolutions of stride two for an encoder, each followed by `finish`.

    Attributes:
        finish: as of `Convolutions`.
        bias: of the convolution.
    """

    finish: Callable[[int], Finish]
    bias: bool = False

    def __call__(self, ndim: int, channels: int) -> nn.Module:
        return Convolved(ndim, channels, channels, self.finish(ndim), self.bias, stride=2)


def nearest_up(ndim: int, before: int, after: int) -> Grow:
    """Return nearest upsampling by two, which keeps the channels."""
    return Grow(nn.Upsample(scale_factor=2, mode="nearest"), before)


def linear_up(ndim: int, before: int, after: int) -> Grow:
    """Return linear upsampling by two, each new voxel a quarter of a voxel from the old one; it keeps the channels."""
    return Grow(nn.Upsample(scale_factor=2, mode="bilinear" if ndim == 2 else "trilinear"), before)


@dataclass(frozen=True)
class Transposed:
    """Transposed convolutions of stride two for a decoder, to the channels of its stage, each followed by `finish`.

    Attributes:
        finish: as of `Convolutions`; None lets nothing follow.
        kernel: edge, 2 or more.
        bias: of the convolution.

    Raises:
        InputError: a kernel that leaves gaps.
    """

    finish: Callable[[int], Finish] | None = None
    kernel: int = 2
    bias: bool = False

    def __post_init__(self) -> None:
        if self.kernel < 2:
            raise InputError(f"Transposed: a kernel of 2 or more expected, got {self.kernel}; less leaves gaps")

    def __call__(self, ndim: int, before: int, after: int) -> Grow:
        kind = nn.ConvTranspose2d if ndim == 2 else nn.ConvTranspose3d
        margin = (self.kernel - 1) // 2
        layer = kind(before, after, self.kernel, 2, margin, 2 + 2 * margin - self.kernel, bias=self.bias)
        return Grow(layer, after, None if self.finish is None else self.finish(ndim)(after))


class Encoder(nn.Module):
    """The way down of a U-Net: a block at each size, with half the size from one to the next.

    Args:
        ndim: 2 or 3.
        channels: of the input.
        widths: channels of the blocks, fine to coarse; the last is the bottom.
        block: the part at each size.
        shrink: the part between two.

    Raises:
        InputError: no widths, or channels below 1.
    """

    def __init__(self, ndim: int, channels: int, widths: Sequence[int], block: Block, shrink: Shrink) -> None:
        super().__init__()
        if not widths or min(channels, *widths) < 1:
            raise InputError(f"Encoder: channels of 1 or more for one size or more expected, got {channels}, {widths}")
        self.widths = tuple(widths)
        self.stride = 2 ** (len(widths) - 1)
        self.blocks = nn.ModuleList(block(ndim, a, b) for a, b in pairwise((channels, *widths)))
        self.shrinks = nn.ModuleList(shrink(ndim, width) for width in widths[:-1])

    def forward(self, values: Tensor) -> list[Tensor]:
        """Return features of `(B, channels, *spatial)`, `(B, widths[n], *⌈spatial / 2ⁿ⌉)` for each n."""
        first, *blocks = self.blocks
        features = [first(values)]
        for shrink, block in zip(self.shrinks, blocks, strict=True):
            features.append(block(shrink(features[-1])))
        return features


class Decoder(nn.Module):
    """The way up of a U-Net, which may end below full size: growth, the encoder's features of that size, a block.

    Args:
        ndim: 2 or 3.
        skips: channels of the features, fine to coarse, as `Encoder.widths`. 0 joins nothing, of features without
            channels, `features[:, :0]`, that only say the size.
        widths: channels of the blocks, coarse to fine; at most as many as there are sizes above the coarsest.
        block: the part at each size.
        grow: the part between two.
        join: how features are put together.

    Raises:
        InputError: no blocks or more than sizes, channels below 1, or channels that cannot be joined.
    """

    def __init__(
        self,
        ndim: int,
        skips: Sequence[int],
        widths: Sequence[int],
        block: Block,
        grow: Growing,
        join: Join = Concatenate(),
    ) -> None:
        super().__init__()
        if not 0 < len(widths) < len(skips) or min(widths) < 1:
            raise InputError(
                f"Decoder: up from the coarsest of {len(skips)} sizes there are 1 to {len(skips) - 1} blocks of 1 "
                f"channel or more; got widths {tuple(widths)}"
            )
        self.join, self.channels_out = join, widths[-1]
        self.grows, self.blocks = nn.ModuleList(), nn.ModuleList()
        below = skips[-1]
        for skip, width in zip(reversed(skips[:-1]), widths, strict=False):
            growing = grow(ndim, below, width)
            self.grows.append(growing)
            self.blocks.append(block(ndim, join.channels(growing.channels_out, skip), width))
            below = width

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the features of each block, fine to coarse, from those of an encoder, `(B, skips[n], *shape_n)`.

        The first of them has `channels_out` channels, and the size of the features that were joined last.
        """
        values = features[-1]
        found: list[Tensor] = []
        for grow, block, skip in zip(self.grows, self.blocks, reversed(features[:-1]), strict=False):
            values = block(self.join(grow(values, skip.shape[2:]), skip))
            found.insert(0, values)
        return found
