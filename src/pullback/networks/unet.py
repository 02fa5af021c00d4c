"""The U-Net of registration."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pullback.errors import InputError
from pullback.networks.convolve import channels_last, convolve
from pullback.networks.pad import padded
from pullback.networks.trunk import Trunk


def convolution(ndim: int, *args, **kwargs) -> nn.Conv2d | nn.Conv3d:
    """Return `nn.Conv2d` or `nn.Conv3d` with these arguments."""
    return (nn.Conv2d if ndim == 2 else nn.Conv3d)(*args, **kwargs)


class UNet(nn.Module):
    """A U-Net: strided 3ᵈ convolutions down, convolutions and nearest upsampling with skips up, with leaky ReLU 0.2.

    Balakrishnan et al. 2018, fig. 3. With E encoder stages the decoder's first E convolutions run at
    1/2ᴱ … 1/2 of full size, each followed by upsampling and the skip of that size, except that the E-th is followed by
    one more at half size; the rest run at full size. In their later code that one more runs at full size, too.

    Args:
        ndim: 2 or 3.
        channels: of the input.
        encoder: channels of each halving convolution.
        decoder: channels of the convolutions after it, more than E + 1 of them.
        halves: convolutions at half size: 2, or 1 as in the later code.

    Raises:
        ValueError: fewer decoder stages than the encoder has, and two; or another number at half size.
    """

    def __init__(
        self, ndim: int, channels: int, encoder: tuple[int, ...], decoder: tuple[int, ...], halves: int = 2
    ) -> None:
        super().__init__()
        depth = len(encoder)
        if len(decoder) < depth + 2:
            raise ValueError(f"UNet: {depth} encoder stages need at least {depth + 2} decoder stages, got {decoder}")
        if halves not in (1, 2):
            raise ValueError(f"UNet: 1 or 2 convolutions at half size, got {halves}")
        self.full = depth + halves - 1  # the first stage at full size
        self.stride = 2**depth
        self.decoder = decoder
        self.channels_out = decoder[-1]
        widths = [channels, *encoder]
        self.down = nn.ModuleList(
            convolution(ndim, a, b, 3, stride=2, padding=1) for a, b in zip(widths, encoder, strict=False)
        )
        skips = [0, *widths[-2:0:-1], *[0] * (halves - 1), channels]  # what is concatenated before each decoder stage
        skips += [0] * (len(decoder) - len(skips))
        before = [encoder[-1], *decoder]
        self.up = nn.ModuleList(
            convolution(ndim, a + s, b, 3, padding=1) for a, s, b in zip(before, skips, decoder, strict=False)
        )

    def forward(self, values: Tensor) -> Tensor:
        """Return features `(B, channels_out, *spatial)` of `(B, channels, *spatial)` of any size."""
        return padded(self._forward, values, self.stride)

    def _forward(self, values: Tensor) -> Tensor:
        skips = [channels_last(values)]
        for stage in self.down:
            skips.append(_activate(convolve(stage, skips[-1])))
        out, depth = skips.pop(), len(self.down)
        for index, stage in enumerate(self.up):
            if 0 < index < depth or index == self.full:
                out = torch.cat([F.interpolate(out, scale_factor=2, mode="nearest"), skips.pop()], 1)
            out = _activate(convolve(stage, out))
        return out

    def trunk(self) -> Trunk:
        """Return the stages down, and those up to a quarter of the size.

        Raises:
            InputError: fewer than two stages down, which do not get to a quarter.
        """
        depth = len(self.down)
        if depth < 2:
            raise InputError(f"UNet.trunk: two encoder stages or more, which get to a quarter, expected; got {depth}")
        up = [_Joining(stage) for stage in self.up[1 : depth - 1]]
        return Trunk(_Down(self.down, self.up[0]), up, self.decoder[depth - 2], self.stride)


class _Down(nn.Module):
    """The stages down and the first at the lowest size: features from half the size to that."""

    def __init__(self, down: nn.ModuleList, last: nn.Module) -> None:
        super().__init__()
        self.down, self.last = down, last

    def forward(self, values: Tensor) -> list[Tensor]:
        features = [channels_last(values)]
        for stage in self.down:
            features.append(_activate(convolve(stage, features[-1])))
        return [*features[1:-1], _activate(convolve(self.last, features[-1]))]


class _Joining(nn.Module):
    """Stage up: nearest upsampling, the skip of that size, a convolution."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, values: Tensor, skip: Tensor) -> Tensor:
        joined = torch.cat([F.interpolate(values, scale_factor=2, mode="nearest"), skip], 1)
        return _activate(convolve(self.stage, joined))


def _activate(values: Tensor) -> Tensor:
    return F.leaky_relu(values, 0.2, inplace=True)
