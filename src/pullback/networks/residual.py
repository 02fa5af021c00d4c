"""Residual blocks of convolutions."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from pullback.networks.convolve import convolve
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
