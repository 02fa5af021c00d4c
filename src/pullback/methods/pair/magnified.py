"""Networks of single patches that see several magnifications, the parts of `masn`.

An affine network answers with one map for each patch, a field network with a displacement of it. Each is a U-Net for
each view; what is decided where the paper is silent stands in `masn`.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pullback.alignment import Alignment, Pair
from pullback.networks import Convolved, FieldHead, together
from pullback.networks.encoder_decoder import Convolutions, Decoder, Encoder, Grow, Transposed, max_pooling
from pullback.networks.heads import CELLS, in_cells
from pullback.networks.up import Finish
from pullback.space import Affine, Displacement, Image, part_of

TOGETHER = 4  # channels that are normalised as one group


def group_norm_prelu(ndim: int) -> Finish:
    """Return normalisation of groups of channels, followed by ReLU with a slope that is learned."""
    return lambda channels: nn.Sequential(nn.GroupNorm(max(channels // TOGETHER, 1), channels), nn.PReLU())


BLOCK, GROW = Convolutions(group_norm_prelu), Transposed(group_norm_prelu)


class Magnified(nn.Module):
    """Features of a patch from views of several magnifications, each a U-Net without weights in common.

    A view of magnification 1/n shows n times the width, as means of nⁿ voxels. The features of its decoder are cut to
    the patch, brought to its size, and joined by the first view's decoder at each size.

    Args:
        ndim: 2 or 3.
        channels: of one image.
        widths: channels of each size, fine to coarse.
        views: numbers n, of which the first is 1.
    """

    def __init__(self, ndim: int, channels: int, widths: Sequence[int], views: Sequence[int]) -> None:
        super().__init__()
        self.views = tuple(views)
        self.encoders = nn.ModuleList(Encoder(ndim, 2 * channels, widths, BLOCK, max_pooling) for _ in views)
        upper = [*widths[:-1]]
        joined = [*(width * len(self.views) for width in upper), widths[-1]]
        self.decoder = Decoder(ndim, joined, upper[::-1], BLOCK, GROW)
        self.decoders = nn.ModuleList(Decoder(ndim, widths, upper[::-1], BLOCK, GROW) for _ in views[1:])
        self.grows = nn.ModuleList(nn.ModuleList(_enlarged(ndim, width, n) for width in upper) for n in views[1:])
        self.channels_out = self.decoder.channels_out

    def forward(self, values: Tensor, size: int) -> Tensor:
        """Return features `(B, channels_out, size, …)` of the middle of `(B, 2C, *spatial)`, both images."""
        first, *others = (
            encoder(viewed(values, size, n)) for encoder, n in zip(self.encoders, self.views, strict=True)
        )
        joined = [[one] for one in first[:-1]]
        for decoder, grows, n, features in zip(self.decoders, self.grows, self.views[1:], others, strict=True):
            for level, (grow, known) in enumerate(zip(cast(nn.ModuleList, grows), decoder(features), strict=True)):
                joined[level].append(grow(middle(known, known.shape[2] // n), joined[level][0].shape[2:]))
        return self.decoder([*(torch.cat(each, 1) for each in joined), first[-1]])[0]


def viewed(values: Tensor, size: int, n: int) -> Tensor:
    """Return a view of the middle of `(B, C, *spatial)`: `size` voxels along each axis, each the mean of n per axis."""
    part = middle(values, n * size)
    if n == 1:
        return part
    return (F.avg_pool2d if part.ndim == 4 else F.avg_pool3d)(part, n)


def middle(values: Tensor, size: int) -> Tensor:
    """Return the middle of `(B, C, *spatial)`, of `size` voxels along each axis."""
    for axis, n in enumerate(values.shape[2:], start=2):
        values = values.narrow(axis, (n - size) // 2, size)
    return values


def _enlarged(ndim: int, width: int, n: int) -> Grow:
    """Return a transposed convolution that makes n voxels of each, along each axis."""
    kind = nn.ConvTranspose2d if ndim == 2 else nn.ConvTranspose3d
    return Grow(kind(width, width, n, n, bias=False), width, group_norm_prelu(ndim)(width))


class LocalAffine(nn.Module):
    """A register of patches by one affine map, about the middle of the patch; an untrained one does not move it.

    Args:
        ndim, channels, widths, views: as of `Magnified`.
        size: edge of the patch that is answered for, voxels.
    """

    def __init__(self, ndim: int, channels: int, widths: Sequence[int], views: Sequence[int], size: int) -> None:
        super().__init__()
        self.size = size
        self.features = Magnified(ndim, channels, widths, views)
        width, finish = self.features.channels_out, group_norm_prelu(ndim)
        self.block = nn.Sequential(
            Convolved(ndim, width, width, finish, stride=2), Convolved(ndim, width, width, finish)
        )
        self.last = nn.Linear(width * CELLS**ndim, ndim * (ndim + 1))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        features = in_cells(self.block(self.features(together(fixed, moving), self.size)))
        with torch.autocast(features.device.type, enabled=False):
            ndim, grid = fixed.grid.ndim, fixed.grid
            rows = self.last(features.float()).double().view(-1, ndim, ndim + 1)
            axes = (grid.affine[:-1, :-1] * self.size / 2).to(rows)  # half an edge along each axis, as columns, mm
            matrix = torch.eye(ndim + 1).to(rows).repeat(len(rows), 1, 1)
            matrix[:, :-1, :-1] += axes @ rows[:, :, :-1] @ torch.linalg.inv(axes)
            centre = grid.centre.to(rows)
            shift = (axes @ rows[:, :, -1:])[..., 0]
            matrix[:, :-1, -1] = centre + shift - matrix[:, :-1, :-1] @ centre
        return Alignment(Pair(fixed, moving), Affine(matrix))


class LocalField(nn.Module):
    """A register of patches by a displacement of their middle, in its voxels; an untrained one hardly moves it.

    Args:
        ndim, channels, widths, views, size: as of `LocalAffine`.
    """

    def __init__(self, ndim: int, channels: int, widths: Sequence[int], views: Sequence[int], size: int) -> None:
        super().__init__()
        self.size = size
        self.features = Magnified(ndim, channels, widths, views)
        width = self.features.channels_out
        self.block = Convolved(ndim, width, width, group_norm_prelu(ndim))
        self.head = FieldHead(ndim, width, Displacement, kernel=1)

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        features = self.block(self.features(together(fixed, moving), self.size))
        answer = self.head(features, answered(fixed, self.size), moving)
        return Alignment(Pair(fixed, moving), answer.transform)


def answered(image: Image, size: int) -> Image:
    """Return the middle of an image of a patch, `size` voxels along each axis."""
    return part_of(image, tuple(slice((n - size) // 2, (n - size) // 2 + size) for n in image.grid.shape))
