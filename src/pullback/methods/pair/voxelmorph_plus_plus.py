"""VoxelMorph++: a U-Net with coarse features, whose answer at keypoints is a heatmap over displacements.

Heinrich & Hansen: VoxelMorph++, going beyond the cranial vault with keypoint supervision and multi-channel instance
optimisation, WBIR 2022. Where the paper is silent, its authors' code is followed, but for these:

- a feature lies at the middle of the block of voxels that it is of, and points are in the same frame; - the spline is
the true one of three dimensions, and its smoothing is in voxels; - points are detected in the same way for training and
for use.

The instance optimisation that follows is `FeatureOptimised`, of the module of ConvexAdam.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pullback.alignment import Pair
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.methods.pair.convex_adam import self_similar
from pullback.networks import (
    Convolutions,
    Decoder,
    Encoder,
    HeatmapHead,
    Network,
    PointPrediction,
    SparseAlignment,
    instance_norm_relu,
    max_pooling,
    nearest_up,
    together,
)
from pullback.numerics.cost_volume import pooled
from pullback.numerics.graph import gather_rows, neighbours
from pullback.numerics.sample import sample
from pullback.space import Affine, Deferred, Grid, Image, Points, ThinPlate, Transform, keypoints, pull

DOWN, UP, LAST = (32, 48, 48, 64, 64), (48, 48, 48), (48, 32, 64)
LEAST = 20  # points of a spline
BEYOND = 0.2  # of the matched points: more outside the image, and they are not of it


class _CoarseUNet(nn.Module):
    """The paper's U-Net of eleven blocks, which ends at half the size of what it sees.

    A block is a convolution of kernel 3 and one of kernel 1, with instance normalisation and ReLU after each.
    """

    def __init__(
        self, ndim: int, channels: int, down: tuple[int, ...], up: tuple[int, ...], last: tuple[int, ...]
    ) -> None:
        super().__init__()
        block = Convolutions(instance_norm_relu, (3, 1), bias=True)
        self.encoder = Encoder(ndim, channels, down, block, max_pooling)
        self.decoder = Decoder(ndim, down, up, block, nearest_up)
        self.last = nn.Sequential(*(block(ndim, a, b) for a, b in pairwise((up[-1], *last))))

    def forward(self, values: Tensor) -> Tensor:
        """Return features `(B, last[-1], *⌈spatial / 2⌉)` of `(B, channels, *spatial)` of any size."""
        stride = self.encoder.stride
        if max(values.shape[2:]) <= stride:  # the coarsest features would be a single cell, which has no deviation
            values = F.pad(values, [0, stride + 1 - values.shape[-1]])
        return self.last(self.decoder(self.encoder(values))[0])


class VoxelMorphPlusPlus(Network):
    """A register of two images by displacements at points, and a smoothing spline through them.

    With the defaults the U-Net has 901,888 weights in 3-D. Its features are of blocks of 2 `pool` voxels; at a point
    they are interpolated linearly.

    Args:
        ndim: 2 or 3.
        channels: of one image.
        head: from dimensions and channels of features to what answers at points: `HeatmapHead`, `RegressionHead`.
        down, up, last: channels of the blocks: at five sizes, up to half the size, and there; there must be one less of
            `up` than takes it to full size.
        pool: voxels along each axis whose mean the U-Net sees.
        points: of the fixed image, through which the dense map goes.
        smoothing: of the spline, as in `ThinPlate.between`, in voxels of the fixed image (2-D: squared).
        every: voxels along each axis at which the spline is exact; between, it is cubic.

    Raises:
        InputError: `up` does not end at half the size.
    """

    def __init__(
        self,
        ndim: int,
        channels: int = 1,
        head: Callable[[int, int], nn.Module] = HeatmapHead,
        down: tuple[int, ...] = DOWN,
        up: tuple[int, ...] = UP,
        last: tuple[int, ...] = LAST,
        pool: int = 2,
        points: Callable[[Image], Points] = keypoints,
        smoothing: float = 20.0,
        every: int = 4,
    ) -> None:
        super().__init__()
        if len(up) != len(down) - 2 or not last:
            raise InputError(
                f"VoxelMorphPlusPlus: two blocks less up than down, and one or more at the end, expected; got "
                f"{len(down)}, {len(up)} and {len(last)}"
            )
        self.unet = _CoarseUNet(ndim, 2 * channels, down, up, last)
        self.head = head(ndim, last[-1])
        self.pool = (nn.AvgPool2d if ndim == 2 else nn.AvgPool3d)(pool, ceil_mode=True)
        self.step, self.points, self.smoothing, self.every = 2 * pool, points, smoothing, every

    def forward(self, fixed: Image, moving: Image) -> SparseAlignment:
        """Return the alignment of two images; the dense map is made when it is asked for.

        Raises:
            InputError: then, fewer than 20 points are found in the fixed image.
        """
        features = self.unet(self.pool(together(fixed, moving)))
        predict = partial(self._predicted, features, fixed.grid)
        transform = Deferred(partial(self._dense, features, fixed), fixed.grid.ndim, len(features))
        return SparseAlignment(Pair(fixed, moving), transform, predict=predict)

    def _predicted(self, features: Tensor, grid: Grid, where: Tensor) -> PointPrediction:
        """Return the head's answer at voxel coordinates `(B, d, N)`."""
        with torch.autocast(features.device.type, enabled=False):  # bfloat16 would round 30 voxels to an eighth
            known = features.float()
            cells = (where.to(known) - (self.step - 1) / 2) / self.step
            half = torch.tensor(grid.shape).to(known) / 2
            return self.head(sample(known, cells, padding="border"), half)

    def _dense(self, features: Tensor, fixed: Image) -> Transform:
        first, *others = (self._spline(features[n : n + 1], fixed.nth(n)) for n in range(len(features)))
        return first.stack(others) if others else first

    def _spline(self, features: Tensor, fixed: Image) -> Transform:
        grid, points = fixed.grid, self.points(fixed)
        if points.data.shape[1] < LEAST:
            raise InputError(
                f"VoxelMorphPlusPlus: {points.data.shape[1]} points in the fixed image, and {LEAST} are needed: a "
                f"larger mask, or network.points={{part: pullback.space.keypoints.RandomPoints}}"
            )
        where = grid.to_voxels(points.data.mT)  # (1, d, N)
        moved = where + self._predicted(features, grid, where).displacement.mT.to(where)
        edge = float(torch.linalg.det(grid.affine[:-1, :-1]).abs()) ** (1 / grid.ndim)
        smoothing = self.smoothing * (edge**2 if grid.ndim == 2 else edge)
        found = ThinPlate.between(points, Points(grid.to_world(moved).mT), smoothing).on(grid, self.every)
        return found.with_params(found.field.to(fixed.data))


@dataclass(frozen=True)
class Matched:
    """The supervision by a pair's matched points: the mean squared error of the displacements of the fixed ones.

    Section 2 of the paper; its unit is half the extent of the fixed grid along each axis. Matches are regular, as those
    of an automatic method with a graph are, and no other penalty is added.
    """

    def __call__(self, network: Callable[..., Any], pair: Pair, progress: float) -> dict[str, Tensor]:
        """Return the mean over points and axes, as `points`; points outside the fixed image are left out.

        Raises:
            InputError: the pair has no matched points, other numbers of them, or more than a fifth lies outside.
            TypeError: the network does not answer at points.
        """
        if pair.fixed_points is None or pair.moving_points is None:
            raise InputError(f"{pair.name or 'a pair'}: matched points of both images are expected, to learn from")
        counts = [points.data.shape[1] for points in (pair.fixed_points, pair.moving_points)]
        if counts[0] != counts[1]:
            raise InputError(f"{pair.name or 'a pair'}: as many points of both images expected, got {counts}")
        grid = pair.fixed.grid
        inside = grid.holds(pair.fixed_points.data.mT, 0.5).all(0)  # (N,)
        if float(inside.double().mean()) < 1 - BEYOND:
            raise InputError(
                f"{pair.name or 'a pair'}: {int((~inside).sum())} of {counts[0]} points lie outside the fixed image; "
                f"are they in its millimetres?"
            )
        where, there = (
            grid.to_voxels(points.data.mT)[:, :, inside] for points in (pair.fixed_points, pair.moving_points)
        )
        found = _asked(network, pair)(where).displacement
        off = (found - (there - where).mT.to(found)) / _half(grid, found)
        return {"points": off.square().mean()}


@dataclass(frozen=True)
class NonLocal:
    """The supervision by features alone: at the fixed points, those of the moving image, averaged by the heatmap.

    Equation 3: not the features at the mean displacement, but the mean of the features, so that each of several likely
    displacements is judged.

    Attributes:
        features: of an image, `(B, C, *spatial)` on its grid.
        pool: voxels along each axis whose mean features are compared: the paper's two poolings.
    """

    features: Callable[[Image], Tensor] = self_similar
    pool: int = 4

    def __call__(self, network: Callable[..., Any], pair: Pair, progress: float) -> dict[str, Tensor]:
        """Return the mean squared difference over points and features, as `nonlocal`.

        Raises:
            InputError: the pair has no fixed points.
            TypeError: the network does not answer at points, or without a heatmap.
        """
        where, known, moving = _compared(pair, self.features, self.pool)
        found = _asked(network, pair)(where)
        if found.likelihood is None or found.lattice is None:
            raise TypeError("NonLocal: a network with heatmaps is expected, such as HeatmapHead makes")
        with torch.no_grad():
            reached = where[..., None] + found.lattice.mT[None, :, None].to(where)  # (B, d, N, J)
            near = _at(moving, reached, self.pool)  # (B, C, N, J)
        mean = torch.einsum("bcnj,bnj->bcn", near, found.likelihood)
        return {"nonlocal": F.mse_loss(mean, known)}


@dataclass(frozen=True)
class Warped:
    """The supervision of the paper's baseline: features where the fixed points lead, and smoothness on their graph.

    Attributes:
        features, pool: as of `NonLocal`.
        smoothness: weight of the squared difference of displacements along the graph's edges, in half the extent of the
            fixed grid; the paper gives 0.25 and 0.75.
        neighbours: nearest points that a point is joined with.
    """

    features: Callable[[Image], Tensor] = self_similar
    pool: int = 4
    smoothness: float = 0.25
    neighbours: int = 7

    def __call__(self, network: Callable[..., Any], pair: Pair, progress: float) -> dict[str, Tensor]:
        """Return the mean squared difference of features, `warped`, and the weighted smoothness, `graph`.

        Raises:
            InputError: the pair has no fixed points.
            TypeError: the network does not answer at points.
        """
        where, known, moving = _compared(pair, self.features, self.pool)
        found = _asked(network, pair)(where).displacement
        unlike = F.mse_loss(_at(moving, where.to(found) + found.mT, self.pool), known)
        steps = (found / _half(pair.fixed.grid, found))[0]
        graph = neighbours(where[0].mT, min(self.neighbours, len(steps) - 1))
        rough = (gather_rows(steps, graph) - steps[:, None]).square().sum(-1).mean()
        return {"warped": unlike, "graph": self.smoothness * rough}


def _asked(network: Callable[..., Any], pair: Pair) -> Callable[[Tensor], PointPrediction]:
    """Return what a network knows of a pair, at voxel coordinates."""
    answer = network(pair.fixed, pair.moving)
    if not isinstance(answer, SparseAlignment):
        raise TypeError(f"a network that answers at points is expected, such as VoxelMorphPlusPlus, got {answer!r}")
    return answer.predict


def _half(grid: Grid, like: Tensor) -> Tensor:
    """Return half the extent of a grid along each axis, `(d,)` in voxels."""
    return torch.tensor(grid.shape).to(like) / 2


@torch.no_grad()
def _compared(pair: Pair, features: Callable[[Image], Tensor], pool: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the voxels of the fixed points `(1, d, N)`, the features there, and those of the moving image, pooled."""
    if pair.fixed_points is None:
        raise InputError(f"{pair.name or 'a pair'}: points of the fixed image are expected, to compare features at")
    fixed, moving = pair.fixed, pair.moving
    seen = moving if moving.grid == fixed.grid else pull(moving, Affine.identity(fixed.grid.ndim), onto=fixed)
    one, two = (pooled(features(image), pool) for image in (fixed, seen))
    where = fixed.grid.to_voxels(pair.fixed_points.data.mT).to(one)
    return where, _at(one, where, pool), two


def _at(features: Tensor, where: Tensor, pool: int) -> Tensor:
    """Return features of blocks of `pool` voxels at voxel coordinates `(B, d, …)`, the outermost going on."""
    return sample(features, (where - (pool - 1) / 2) / pool, padding="border")


METHOD = Method(
    about="a U-Net that answers at keypoints with heatmaps, for large motion; it learns from matches or features",
    aligns=("pair",),
    trained=True,
    papers=(
        Paper(
            "heinrich2022voxelmorphplusplus",
            "Heinrich, Mattias P. and Hansen, Lasse",
            "Voxelmorph++: Going Beyond the Cranial Vault with Keypoint Supervision and Multi-channel Instance "
            "Optimisation",
            "Biomedical Image Registration (WBIR)",
            2022,
            "10.1007/978-3-031-11203-4_10",
        ),
    ),
    keys=("voxelmorph++", "voxelmorph++-mind"),
)
