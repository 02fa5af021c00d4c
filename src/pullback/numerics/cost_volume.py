"""Cost volumes: the differences that many whole-voxel displacements would leave."""

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pullback.numerics.sample import sample
from pullback.numerics.smooth import box_sum


def offsets(half_width: int, ndim: int, like: Tensor) -> Tensor:
    """Return all displacements of up to `half_width` voxels along each axis, the shortest first: `(K, d)`."""
    steps = itertools.product(range(-half_width, half_width + 1), repeat=ndim)
    nearest = sorted(steps, key=lambda step: sum(n * n for n in step))
    return torch.tensor(nearest, dtype=like.dtype, device=like.device)


def cost_volume(fixed: Tensor, moving: Tensor, displacements: Tensor, power: int = 2) -> Tensor:
    """Return the differences of `fixed` at x and `moving` at x + d, summed over channels: `(B, K, *spatial)`.

    The answer takes `cost_volume_bytes` of memory, and twice that while it is put together. Beyond its border `moving`
    is 0.

    Args:
        fixed, moving: features `(B, C, *spatial)` on one grid.
        displacements: `(K, d)`, whole voxels.
        power: 2 squares the differences, 1 takes them as absolute.
    """
    return torch.cat(list(_costs(fixed, moving, displacements, power)), 1)


def cost_volume_bytes(fixed: Tensor, displacements: Tensor) -> int:
    """Return the size in bytes of the answer of `cost_volume`."""
    return len(fixed) * len(displacements) * math.prod(fixed.shape[2:]) * fixed.element_size()


def box_mean(values: Tensor, window: int) -> Tensor:
    """Return the mean over an odd cubic window about each voxel; windows are cut off at the border."""
    return box_sum(values, window) / box_sum(torch.ones_like(values[:1, :1]), window)


def pooled(values: Tensor, factor: int) -> Tensor:
    """Return the means of blocks of `factor` voxels along each axis, without an incomplete block at its end."""
    return (F.avg_pool2d if values.ndim == 4 else F.avg_pool3d)(values, factor)


def unpooled(field: Tensor, factor: int, shape: Sequence[int], finer: int = 1, strided: bool = False) -> Tensor:
    """Interpolate a displacement from the grid of blocks of `factor` voxels to the grid of blocks of `finer` voxels.

    Args:
        field: `(B, d, …)` in voxels of the coarse grid, as `pooled` makes it from an image.
        factor: voxels of the image per block of `field`.
        shape: of the answer.
        finer: voxels of the image per block of the answer.
        strided: `field` belongs to every factor-th voxel, the first among them, as after strided convolutions, in place
            of the means of blocks.

    Returns:
        `(B, d, *shape)` in voxels of the finer grid; beyond the outermost blocks the last value goes on.
    """
    first, middle = (0.0, 0.0) if strided else ((factor - 1) / 2, (finer - 1) / 2)
    axes = [(torch.arange(n, dtype=field.dtype, device=field.device) * finer + middle - first) / factor for n in shape]
    where = torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]
    return sample(field, where, padding="border") * (factor / finer)


def _costs(fixed: Tensor, moving: Tensor, displacements: Tensor, power: int) -> Iterator[Tensor]:
    whole = displacements.round().long().tolist()
    reach = max((abs(step) for each in whole for step in each), default=0)
    padded = F.pad(moving, [reach] * (2 * (moving.ndim - 2)))
    for each in whole:
        there = padded
        for axis, (step, n) in enumerate(zip(each, fixed.shape[2:], strict=True), start=2):
            there = there.narrow(axis, reach + step, n)
        unlike = fixed - there
        yield (unlike.abs() if power == 1 else unlike.square()).sum(1, keepdim=True)
