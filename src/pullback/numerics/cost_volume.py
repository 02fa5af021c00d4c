"""Cost volumes: what many whole-voxel displacements would leave, by differences or by products of features."""

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pullback.numerics.sample import sample
from pullback.numerics.smooth import box_sum


def offsets(half_width: int, ndim: int, like: Tensor, nearest_first: bool = True) -> Tensor:
    """Return all displacements of up to `half_width` voxels along each axis, `(K, d)`.

    The shortest come first; or they stand as on their lattice, the last axis running fastest.
    """
    steps = itertools.product(range(-half_width, half_width + 1), repeat=ndim)
    ordered = sorted(steps, key=lambda step: sum(n * n for n in step)) if nearest_first else list(steps)
    return torch.tensor(ordered, dtype=like.dtype, device=like.device)


def cost_volume(fixed: Tensor, moving: Tensor, displacements: Tensor, padding: str = "zeros", power: int = 2) -> Tensor:
    """Return the differences of `fixed` at x and `moving` at x + d, summed over channels: `(B, K, *spatial)`.

    The answer takes `cost_volume_bytes` of memory, and twice that while it is put together.

    Args:
        fixed, moving: features `(B, C, *spatial)` on one grid.
        displacements: `(K, d)`, whole voxels.
        padding: of `moving` beyond its border, `"zeros"` or `"border"`, as in `sample`.
        power: 2 squares the differences, 1 takes them as absolute.
    """
    unlike = (fixed - there for there in _moved(moving, displacements, padding))
    return torch.cat([(u.abs() if power == 1 else u.square()).sum(1, keepdim=True) for u in unlike], 1)


def lattice_costs(fixed: Tensor, moving: Tensor, half_width: int) -> Tensor:
    """Return the costs of all displacements of a lattice, `(B, K, *spatial)`: `cost_volume` with its border going on.

    They stand as `offsets(half_width, d, …, nearest_first=False)` has them, and are added up channel by channel: of
    many displacements and few channels, as of small features, this is quicker.
    """
    ndim = fixed.ndim - 2
    windows = F.pad(moving, [half_width] * (2 * ndim), mode="replicate")
    for axis, n in enumerate(fixed.shape[2:], start=2):
        windows = windows.unfold(axis, n, 1)  # (B, C, …, *spatial) in the end, displacements before places
    each = (fixed[(slice(None), c, *[None] * ndim)] - windows[:, c] for c in range(fixed.shape[1]))
    total = next(each).square()
    for difference in each:
        total = total + difference.square()
    return total.flatten(1, ndim)


def correlation(fixed: Tensor, moving: Tensor, displacements: Tensor) -> Tensor:
    """Return products of `fixed` at x and `moving` at x + d, averaged over channels, as `cost_volume` does its squares.

    Beyond its border `moving` is 0.
    """
    return torch.cat([(fixed * there).mean(1, keepdim=True) for there in _moved(moving, displacements, "zeros")], 1)


def lower_envelope(costs: Tensor, half_width: int) -> Tensor:
    """Return about min_e c(e) + w |d − e|² for each displacement d of a lattice: the min-convolution, made cheap.

    The least of each 3ᵈ neighbours of d, averaged twice over 3ᵈ; the lattice goes on by its border (Heinrich 2019,
    PDD-Net). One cheap displacement makes 7ᵈ cheaper.

    Args:
        costs: `(B, K, *spatial)`, of the displacements of `offsets(half_width, d, …, nearest_first=False)`.
        half_width: of that lattice.
    """
    ndim = costs.ndim - 2
    least, mean = (F.max_pool2d, F.avg_pool2d) if ndim == 2 else (F.max_pool3d, F.avg_pool3d)
    lattices = costs.movedim(1, -1).unflatten(-1, [2 * half_width + 1] * ndim)  # (B, *spatial, …)
    cells = F.pad(lattices.flatten(0, ndim)[:, None], [3] * (2 * ndim), mode="replicate")
    found = mean(mean(-least(-cells, 3, 1), 3, 1), 3, 1)
    return found.reshape(lattices.shape).flatten(ndim + 1).movedim(-1, 1)


def twice_averaged(values: Tensor) -> Tensor:
    """Return means over 3ᵈ neighbours of `(B, C, *spatial)`, and again of these; values go on by their border."""
    mean = F.avg_pool2d if values.ndim == 4 else F.avg_pool3d
    around = F.pad(values, [2] * (2 * (values.ndim - 2)), mode="replicate")
    return mean(mean(around, 3, 1), 3, 1)


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


def _moved(moving: Tensor, displacements: Tensor, padding: str) -> Iterator[Tensor]:
    """Yield `moving` at x + d, `(B, C, *spatial)`, for each displacement."""
    whole = displacements.round().long().tolist()
    reach = max((abs(step) for each in whole for step in each), default=0)
    mode = "replicate" if padding == "border" else "constant"
    padded = F.pad(moving, [reach] * (2 * (moving.ndim - 2)), mode=mode)
    for each in whole:
        there = padded
        for axis, (step, n) in enumerate(zip(each, moving.shape[2:], strict=True), start=2):
            there = there.narrow(axis, reach + step, n)
        yield there
