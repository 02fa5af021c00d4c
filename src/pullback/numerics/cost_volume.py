"""What each of many whole-voxel displacements would cost."""

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pullback.numerics.sample import sample
from pullback.numerics.smooth import box_sum


def offsets(half_width: int, ndim: int, like: Tensor) -> Tensor:
    """All displacements of up to `half_width` voxels along each axis, short first: `(K, d)`."""
    steps = itertools.product(range(-half_width, half_width + 1), repeat=ndim)
    nearest = sorted(steps, key=lambda step: sum(n * n for n in step))
    return torch.tensor(nearest, dtype=like.dtype, device=like.device)


def cost_volume(fixed: Tensor, moving: Tensor, displacements: Tensor) -> Tensor:
    """Squared differences, summed over channels, of `fixed` at x and `moving` at x + d: `(B, K, *spatial)`.

    Holds `cost_volume_bytes` when it is done, and twice that while it is put together. Beyond its border `moving` is 0.

    Args:
        fixed, moving: features `(B, C, *spatial)` on one grid.
        displacements: `(K, d)`, whole voxels.
    """
    return torch.cat(list(_costs(fixed, moving, displacements)), 1)


def cost_volume_bytes(fixed: Tensor, displacements: Tensor) -> int:
    """What `cost_volume` holds when it is done."""
    return len(fixed) * len(displacements) * math.prod(fixed.shape[2:]) * fixed.element_size()


def box_mean(values: Tensor, window: int) -> Tensor:
    """The mean over an odd cubic window about each voxel, cut off at the border."""
    return box_sum(values, window) / box_sum(torch.ones_like(values[:1, :1]), window)


def pooled(values: Tensor, factor: int) -> Tensor:
    """Means of blocks of `factor` voxels along each axis; what is left at the end of an axis is dropped."""
    return (F.avg_pool2d if values.ndim == 4 else F.avg_pool3d)(values, factor)


def unpooled(field: Tensor, factor: int, shape: Sequence[int], finer: int = 1, strided: bool = False) -> Tensor:
    """A displacement `(B, d, …)` on what `pooled` makes by `factor`, on what it makes by `finer` of the same image.

    Interpolated, in the voxels of the answer, `(B, d, *shape)`; beyond the outermost blocks the last value goes on.
    `strided`: of an image whose every factor-th voxel was kept, the first among them, as strided convolutions do.
    """
    first, middle = (0.0, 0.0) if strided else ((factor - 1) / 2, (finer - 1) / 2)
    axes = [(torch.arange(n, dtype=field.dtype, device=field.device) * finer + middle - first) / factor for n in shape]
    where = torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]
    return sample(field, where, padding="border") * (factor / finer)


def _costs(fixed: Tensor, moving: Tensor, displacements: Tensor) -> Iterator[Tensor]:
    whole = displacements.round().long().tolist()
    reach = max((abs(step) for each in whole for step in each), default=0)
    padded = F.pad(moving, [reach] * (2 * (moving.ndim - 2)))
    for each in whole:
        there = padded
        for axis, (step, n) in enumerate(zip(each, fixed.shape[2:], strict=True), start=2):
            there = there.narrow(axis, reach + step, n)
        yield (fixed - there).square().sum(1, keepdim=True)
