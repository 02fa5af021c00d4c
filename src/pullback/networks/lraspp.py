"""LR-ASPP on a MobileNet: a light segmentation backbone, in 2-D and 3-D.

Inverted residuals of Sandler et al. 2018, atrous pyramid pooling of Chen et al. 2017 and the light head of Howard et
al. 2019, in the form in which the authors of DeepSTAPLE (Weihsbach et al. 2022) use them in 3-D.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDE = 128  # channels of pyramid and head


@dataclass(frozen=True)
class InvertedRow:
    """A row of a MobileNet's table: channels before, within and after a block, and its stride."""

    before: int
    within: int
    after: int
    stride: int = 1


ROWS = (
    InvertedRow(16, 96, 16),
    InvertedRow(16, 96, 24),
    InvertedRow(24, 144, 24),
    InvertedRow(24, 144, 32),
    InvertedRow(32, 192, 32),
    InvertedRow(32, 192, 32, 2),
    InvertedRow(32, 192, 64),
    InvertedRow(64, 384, 64),
    InvertedRow(64, 384, 64),
)
"""DeepSTAPLE's, after the first block, which makes 16 channels at half the size."""
STEM, STEM_WITHIN = 16, 32


def _convolved(
    ndim: int, before: int, after: int, kernel: int = 1, stride: int = 1, rate: int = 1, groups: int = 1
) -> nn.Sequential:
    """Return a convolution that keeps the size but for its stride, and batch normalisation."""
    kind, norm = (nn.Conv2d, nn.BatchNorm2d) if ndim == 2 else (nn.Conv3d, nn.BatchNorm3d)
    layer = kind(before, after, kernel, stride, rate * (kernel // 2), rate, groups, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out")
    return nn.Sequential(layer, norm(after))


class Inverted(nn.Module):
    """An inverted residual block: wider, each channel convolved by itself, narrower again, and added where it fits.

    Args:
        ndim: 2 or 3.
        row: its channels and stride.
        first: the widening is a full convolution of kernel 3 and stride 2, as of an image.
    """

    def __init__(self, ndim: int, row: InvertedRow, first: bool = False) -> None:
        super().__init__()
        wider = _convolved(ndim, row.before, row.within, 3, 2) if first else _convolved(ndim, row.before, row.within)
        own = _convolved(ndim, row.within, row.within, 3, row.stride, groups=row.within)
        narrower = _convolved(ndim, row.within, row.after)
        self.layers = nn.Sequential(wider, nn.ReLU6(), own, nn.ReLU6(), narrower)
        self.adds = row.before == row.after and row.stride == 1 and not first

    def forward(self, values: Tensor) -> Tensor:
        """Return `(B, after, *⌈spatial / stride⌉)` of `(B, before, *spatial)`; the first block halves the size too."""
        found = self.layers(values)
        return values + found if self.adds else found


class ASPP(nn.Module):
    """Atrous pyramid pooling: convolutions that look ever farther, and the mean of all, side by side, made one.

    Args:
        ndim: 2 or 3.
        channels: of what comes in.
        rates: of the convolutions of kernel 3.
    """

    def __init__(self, ndim: int, channels: int, rates: Sequence[int] = (2, 4, 8, 16)) -> None:
        super().__init__()
        branches = [_convolved(ndim, channels, WIDE)]
        branches += [_convolved(ndim, channels, WIDE, 3, rate=rate) for rate in rates]
        self.branches, self.mean = nn.ModuleList(branches), _convolved(ndim, channels, WIDE)
        self.one = nn.Sequential(_convolved(ndim, (len(rates) + 2) * WIDE, WIDE), nn.ReLU(), nn.Dropout(0.5))

    def forward(self, values: Tensor) -> Tensor:
        """Return `(B, 128, *spatial)` of `(B, channels, *spatial)`."""
        mean = F.relu(self.mean(values.mean(tuple(range(2, values.ndim)), keepdim=True)))
        found = [F.relu(branch(values)) for branch in self.branches]
        return self.one(torch.cat([*found, mean.expand_as(found[0])], 1))


class LRASPP(nn.Module):
    """A light backbone of a `Segmenter`: pyramid features at a quarter of the size, with fine ones beside.

    While it learns it wants two images at once, or more: normalisation is over the batch.

    Args:
        ndim: 2 or 3.
        channels: of the image.
        rows: of the blocks after the first; the first of stride 1 gives the fine features.
        width: channels of the answer.
    """

    def __init__(self, ndim: int, channels: int, rows: Sequence[InvertedRow] = ROWS, width: int = 16) -> None:
        super().__init__()
        kind = nn.Conv2d if ndim == 2 else nn.Conv3d
        stem = Inverted(ndim, InvertedRow(channels, STEM_WITHIN, STEM), first=True)
        self.fine = nn.Sequential(stem, Inverted(ndim, rows[0]))
        self.coarse = nn.Sequential(*(Inverted(ndim, row) for row in rows[1:]), ASPP(ndim, rows[-1].after))
        self.shown = nn.Sequential(_convolved(ndim, rows[0].after, WIDE), nn.ReLU())
        self.attention = kind(rows[0].after, WIDE, 1, bias=False)
        self.from_fine, self.from_coarse = (kind(WIDE, width, 1) for _ in range(2))
        self.channels_out = width

    def forward(self, values: Tensor) -> Tensor:
        """Return features `(B, width, *spatial)` of `(B, channels, *spatial)`."""
        fine = self.fine(values)
        coarse = self.coarse(fine)
        attention = self.attention(fine.mean(tuple(range(2, fine.ndim)), keepdim=True)).sigmoid()
        mode = "bilinear" if values.ndim == 4 else "trilinear"
        beside = F.interpolate(self.shown(fine) * attention, coarse.shape[2:], mode=mode)
        found = self.from_fine(beside) + self.from_coarse(coarse)
        return F.interpolate(found, values.shape[2:], mode=mode)
