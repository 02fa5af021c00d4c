"""Heads of networks: from features to a field, a pose or an embedding; and the common input of two images."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pullback.alignment import Alignment, Pair
from pullback.networks.convolve import channels_last, convolve
from pullback.networks.unet import convolution
from pullback.numerics.rotation import of_vector
from pullback.space import Affine, Dense, Grid, Image, one_batch, pull

CELLS = 3  # along each axis, of what a head sees of features of any size


def together(fixed: Image, moving: Image) -> Tensor:
    """Return both images as channels of one input, `(B, 2C, *spatial)` float32, on the fixed grid by their headers."""
    with torch.autocast(fixed.data.device.type, enabled=False):  # bfloat16 would round coordinates to half a voxel
        seen = moving if moving.grid == fixed.grid else pull(moving, Affine.identity(fixed.grid.ndim), onto=fixed)
    batch = one_batch({"fixed": len(fixed.data), "moving": len(seen.data)})
    return torch.cat([image.data.expand(batch, *image.data.shape[1:]) for image in (fixed, seen)], 1).float()


class FieldHead(nn.Module):
    """The last convolution of a network: from features at full size to a field in voxels of the fixed grid.

    It starts near zero (weights of deviation 1e-5), so an untrained network answers with nearly no motion.

    Args:
        ndim: 2 or 3.
        channels: of the features.
        transform: `Displacement`, `Velocity`, …: the kind whose `field` is predicted.
        bound: keeps the field below this share of half the grid's extent along each axis, as s · tanh(o), s in voxels;
            None leaves it free.
        kernel: edge of the convolution, odd.
    """

    def __init__(
        self,
        ndim: int,
        channels: int,
        transform: Callable[[Tensor, Grid], Dense],
        bound: float | None = None,
        kernel: int = 3,
    ) -> None:
        super().__init__()
        self.transform = transform
        self.bound = bound
        self.convolution = convolution(ndim, channels, ndim, kernel, padding=kernel // 2)
        nn.init.normal_(self.convolution.weight, std=1e-5 if bound is None else 1e-7)  # tanh is as steep as s is long
        assert self.convolution.bias is not None
        nn.init.zeros_(self.convolution.bias)

    def forward(self, features: Tensor, fixed: Image, moving: Image) -> Alignment:
        """Return the alignment of two images by features `(B, channels, *fixed.grid.shape)`."""
        with torch.autocast(features.device.type, enabled=False):  # bfloat16 would round the field to 1/64 voxel
            field = convolve(self.convolution, channels_last(features.float()))
            if self.bound is not None:
                extent = (torch.tensor(fixed.grid.shape) - 1).to(field) / 2
                field = self.bound * extent.view(-1, *[1] * fixed.grid.ndim) * field.tanh()
        return Alignment(Pair(fixed, moving), self.transform(field, fixed.grid))


class PoseHead(nn.Module):
    """Two linear layers: from features to a rotation about the middle of the fixed grid and a translation.

    One unit of what they answer is 10° or 10 mm. The last starts near zero (weights of deviation 1e-5), so an untrained
    network answers with nearly the identity.

    Args:
        ndim: 2 or 3.
        channels: of the features, of which the mean over 3ᵈ cells of the field of view is seen.
        form: from numbers `(B, k)` to rotations `(B, d, d)`, near the identity at 0: `of_vector`, `of_euler`, ….
        count: k; None is an angle in 2-D, a rotation vector in 3-D.
        hidden: channels between the layers.
    """

    def __init__(
        self,
        ndim: int,
        channels: int,
        form: Callable[[Tensor], Tensor] = of_vector,
        count: int | None = None,
        hidden: int = 128,
    ) -> None:
        super().__init__()
        self.form = form
        self.count = count or (1 if ndim == 2 else 3)
        self.first = nn.Linear(channels * CELLS**ndim, hidden)
        self.last = nn.Linear(hidden, self.count + ndim)
        nn.init.normal_(self.last.weight, std=1e-5)
        nn.init.zeros_(self.last.bias)

    def forward(self, features: Tensor, fixed: Image, moving: Image) -> Alignment:
        """Return the alignment of two images by features `(B, channels, *spatial)` of any size."""
        with torch.autocast(features.device.type, enabled=False):
            numbers = self.last(F.relu(self.first(in_cells(features.float())))).double()
            turn = self.form(math.radians(10) * numbers[:, : self.count])
            centre, shift = fixed.grid.centre.to(numbers), 10 * numbers[:, self.count :]
            matrix = torch.eye(len(centre) + 1).to(numbers).repeat(len(numbers), 1, 1)
            matrix[:, :-1, :-1] = turn
            matrix[:, :-1, -1] = centre + shift - turn @ centre
        return Alignment(Pair(fixed, moving), Affine(matrix))


class EmbeddingHead(nn.Module):
    """Two linear layers: from features to vectors of length 1.

    Args:
        ndim: 2 or 3.
        channels: of the features, of which the mean over 3ᵈ cells of the field of view is seen.
        size: of the vectors.
        hidden: channels between the layers.
        dropout: share of them that are dropped in training.
    """

    def __init__(self, ndim: int, channels: int, size: int = 64, hidden: int = 256, dropout: float = 0.5) -> None:
        super().__init__()
        self.first = nn.Linear(channels * CELLS**ndim, hidden)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(hidden, size)

    def forward(self, features: Tensor) -> Tensor:
        """Return vectors `(B, size)` for features `(B, channels, *spatial)` of any size."""
        with torch.autocast(features.device.type, enabled=False):
            seen = F.relu(self.first(in_cells(features.float())))
            return F.normalize(self.last(self.dropout(seen)), dim=1)


def in_cells(features: Tensor) -> Tensor:
    """Return means of features `(B, C, *spatial)` over `CELLS` cells along each axis, `(B, C·CELLSᵈ)`, for any size."""
    pool = F.adaptive_avg_pool2d if features.ndim == 4 else F.adaptive_avg_pool3d
    return pool(features, CELLS).flatten(1)
