"""Heads that answer at points with a displacement each, and the alignment that such a network knows."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pullback.alignment import Alignment
from pullback.networks.unet import convolution
from pullback.networks.up import Convolved, instance_norm_relu

CHUNK = 512  # points at once
START, START_HEATMAP = 1e-3, 1e-2  # deviations of the last weights: an untrained head answers with little motion


@dataclass(frozen=True, eq=False)
class PointPrediction:
    """The prediction of a head at N points.

    Attributes:
        displacement: `(B, N, d)` in voxels of the fixed grid.
        likelihood: of each displacement of a lattice, `(B, N, J)`, of sum 1; None of a head without heatmaps.
        lattice: these displacements, `(J, d)` in voxels of the fixed grid.
    """

    displacement: Tensor
    likelihood: Tensor | None = None
    lattice: Tensor | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class SparseAlignment(Alignment):
    """The alignment by a network that answers at points; its transform goes through what it answers at some.

    Attributes:
        predict: from voxel coordinates `(B, d, N)` of the fixed grid to what is predicted there.
    """

    predict: Callable[[Tensor], PointPrediction]


class HeatmapHead(nn.Module):
    """A decoder from the features of a point to a heatmap over displacements, of which the mean is the answer.

    Heinrich & Hansen 2022, with the layers of the authors' code: a transposed convolution of kernel 7 makes a lattice
    of 7ᵈ of a point, two of kernel 3 follow, linear upsampling to `nodes`ᵈ, and four more; instance normalisation and
    ReLU between, over the lattice of one point, so that the answer at a point depends on no other. Of 64 channels it
    has 462,417 weights in 3-D.

    Args:
        ndim: 2 or 3.
        channels: of the features.
        width: channels after the first convolution, twice as many within.
        nodes: of the lattice along each axis, odd.
        reach: the lattice's, as a share of half the grid's extent along each axis. Its nodes are the middles of cells.
    """

    def __init__(self, ndim: int, channels: int = 64, width: int = 16, nodes: int = 11, reach: float = 0.3) -> None:
        super().__init__()
        self.ndim, self.nodes, self.reach = ndim, nodes, reach
        self.mode = "bilinear" if ndim == 2 else "trilinear"
        finish, wide = instance_norm_relu(ndim), 2 * width

        def block(before: int, after: int) -> Convolved:
            return Convolved(ndim, before, after, finish, bias=True)

        first = (nn.ConvTranspose2d if ndim == 2 else nn.ConvTranspose3d)(channels, width, 7)
        last = convolution(ndim, width, 1, 3, padding=1)
        nn.init.normal_(last.weight, std=START_HEATMAP)
        self.coarse = nn.Sequential(
            first, finish(width), block(width, wide), convolution(ndim, wide, wide, 3, padding=1)
        )
        self.fine = nn.Sequential(block(wide, wide), block(wide, wide), block(wide, width), last)

    def lattice(self, half: Tensor) -> Tensor:
        """Return the displacements of the heatmap, `(nodesᵈ, d)`, by half the extent of the grid, `(d,)` in voxels."""
        steps = self.reach * (2 * torch.arange(self.nodes).to(half) + 1 - self.nodes) / self.nodes
        return torch.cartesian_prod(*(steps * extent for extent in half))

    def forward(self, vectors: Tensor, half: Tensor) -> PointPrediction:
        """Return the answer for features `(B, channels, N)`, on a grid of half the extent `(d,)` in voxels."""
        batch, channels, count = vectors.shape
        seen = vectors.movedim(1, 2).reshape(batch * count, channels, *[1] * self.ndim)
        values = torch.cat([self._heatmap(part) for part in seen.split(CHUNK)])
        likelihood = values.flatten(1).softmax(1).view(batch, count, -1)
        lattice = self.lattice(half)
        return PointPrediction(likelihood @ lattice, likelihood, lattice)

    def _heatmap(self, seen: Tensor) -> Tensor:
        size = [self.nodes] * self.ndim
        return self.fine(F.interpolate(self.coarse(seen), size=size, mode=self.mode, align_corners=False))


class RegressionHead(nn.Module):
    """Three convolutions of kernel 1 from the features of points to their displacements.

    Instance normalisation and ReLU stand after the first two, over the points that are asked together. One unit of what
    the last answers is half the extent of the grid along each axis.

    Args:
        ndim: 2 or 3.
        channels: of the features, and between the convolutions.
    """

    def __init__(self, ndim: int, channels: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.Conv1d(channels, channels, 1), nn.InstanceNorm1d(channels), nn.ReLU(inplace=True)]
        last = nn.Conv1d(channels, ndim, 1)
        nn.init.normal_(last.weight, std=START)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.layers = nn.Sequential(*layers, last)

    def forward(self, vectors: Tensor, half: Tensor) -> PointPrediction:
        """Return the answer for features `(B, channels, N)`, on a grid of half the extent `(d,)` in voxels."""
        return PointPrediction(self.layers(vectors).mT * half)
