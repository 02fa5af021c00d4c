"""Residual blocks of convolutions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from pullback.errors import InputError
from pullback.networks.convolve import channels_last, convolve
from pullback.networks.unet import convolution
from pullback.networks.up import Convolved, Finish


class Residual(nn.Module):
    """Two convolutions of 3ᵈ beside which the input goes on, `(B, channels, *spatial)` before and after.

    The input is added once the second is normalised, and before its activation (He et al. 2016).

    Args:
        ndim: 2 or 3.
        channels: of the features.
        finish: what follows the first convolution.
        norm: what follows the second, before the sum.
    """

    def __init__(self, ndim: int, channels: int, finish: Finish, norm: Finish) -> None:
        super().__init__()
        self.first = Convolved(ndim, channels, channels, finish)
        self.second = convolution(ndim, channels, channels, 3, padding=1, bias=False)
        self.norm = norm(channels)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, values: Tensor) -> Tensor:
        """Return features of the size and channels of `values`."""
        return self.activation(values + self.norm(convolve(self.second, self.first(values))))


@dataclass(frozen=True)
class ConvolvedResidual:
    """Blocks of a convolution to the new channels and a residual block, for an encoder or a decoder.

    Attributes:
        finish: from dimensions to what follows a convolution: `batch_norm_relu`, ….
        norm: from dimensions to the normalisation before the sum.
    """

    finish: Callable[[int], Finish]
    norm: Callable[[int], Finish]

    def __call__(self, ndim: int, before: int, after: int) -> nn.Sequential:
        finish = self.finish(ndim)
        return nn.Sequential(Convolved(ndim, before, after, finish), Residual(ndim, after, finish, self.norm(ndim)))


GROWTH = 4  # of the channels that a bottleneck answers with


class Preactivated(nn.Module):
    """Convolutions after normalisation and ReLU, beside which the input goes on (He et al., Identity Mappings, 2016).

    Where the size of the channels changes, a convolution of 1ᵈ of the activated input goes on in its place. There are
    two convolutions of 3ᵈ; or, as a bottleneck, of 1ᵈ, 3ᵈ and 1ᵈ, the last to `GROWTH` times the width.

    Args:
        ndim: 2 or 3.
        before: channels of the input.
        width: channels within; without bottleneck also of the answer.
        stride: of the first convolution of 3ᵈ, and of what goes on beside.
        bottleneck: whether it is one.
        projected: whether a convolution goes on beside.
    """

    def __init__(
        self, ndim: int, before: int, width: int, stride: int = 1, bottleneck: bool = False, projected: bool = False
    ) -> None:
        super().__init__()
        norm = nn.BatchNorm2d if ndim == 2 else nn.BatchNorm3d
        after = GROWTH * width if bottleneck else width
        self.stride = stride
        self.norm = norm(before)
        self.beside = convolution(ndim, before, after, 1, stride=stride) if projected else None
        inner = [
            convolution(ndim, width if bottleneck else before, width, 3, stride=stride, padding=1, bias=False),
            norm(width),
            nn.ReLU(inplace=True),
        ]
        if bottleneck:
            first = [convolution(ndim, before, width, 1, bias=False), norm(width), nn.ReLU(inplace=True)]
            self.layers = nn.Sequential(*first, *inner, convolution(ndim, width, after, 1))
        else:
            self.layers = nn.Sequential(*inner, convolution(ndim, width, width, 3, padding=1, bias=False))

    def forward(self, values: Tensor) -> Tensor:
        """Return features `(B, after, *⌈spatial / stride⌉)` of `(B, before, *spatial)`."""
        seen = F.relu(self.norm(values))
        if self.beside is not None:
            return self.beside(seen) + self.layers(seen)
        every = (slice(None), slice(None), *[slice(None, None, self.stride)] * (values.ndim - 2))
        return values[every] + self.layers(seen)


class ResidualNet(nn.Module):
    """Stages of pre-activation residual blocks: of 3, 4, 6, 3 bottlenecks ResNet50V2, of 3, 4, 23, 3 ResNet101V2.

    With widths of 64, 128, 256, 512 and pooling these have the layers and biases of Keras' networks without their top.
    The size is halved by the first convolution, by the pooling, and in the last block of each stage but the last.

    Args:
        ndim: 2 or 3.
        channels: of the input.
        widths: of the stages.
        blocks: of each stage, one or more.
        bottleneck: whether blocks are bottlenecks.
        first: channels of the first convolution.
        kernel: its edge, odd.
        pooled: whether its answer is pooled, by maxima of 3ᵈ.

    Attributes:
        channels_out: channels of the answer.

    Raises:
        InputError: another number of widths than of blocks, or numbers below 1.
    """

    def __init__(
        self,
        ndim: int,
        channels: int,
        widths: Sequence[int] = (64, 128, 256, 512),
        blocks: Sequence[int] = (3, 4, 6, 3),
        bottleneck: bool = False,
        first: int = 64,
        kernel: int = 7,
        pooled: bool = True,
    ) -> None:
        super().__init__()
        if len(widths) != len(blocks) or min(*widths, *blocks, first) < 1:
            raise InputError(
                f"ResidualNet: widths and blocks of 1 or more for each stage expected, got {widths}, {blocks}"
            )
        self.stem = convolution(ndim, channels, first, kernel, stride=2, padding=kernel // 2)
        pool = nn.MaxPool2d if ndim == 2 else nn.MaxPool3d
        self.pool = pool(3, 2, padding=1) if pooled else None
        before, stages = first, []
        for n, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            stage: list[nn.Module] = []
            for k in range(count):
                stride = 2 if k == count - 1 and n < len(widths) - 1 else 1
                stage.append(Preactivated(ndim, before, width, stride, bottleneck, projected=k == 0))
                before = GROWTH * width if bottleneck else width
            stages.append(nn.Sequential(*stage))
        self.stages = nn.ModuleList(stages)
        self.norm = (nn.BatchNorm2d if ndim == 2 else nn.BatchNorm3d)(before)
        self.channels_out = before

    def forward(self, values: Tensor) -> Tensor:
        """Return features of `(B, channels, *spatial)`, `(B, channels_out, …)` of a size that is halved so often."""
        values = self.stem(channels_last(values))
        if self.pool is not None:
            values = self.pool(values)
        for stage in self.stages:
            values = stage(values)
        return F.relu(self.norm(values))
