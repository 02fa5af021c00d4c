"""Structural similarity: level, contrast and structure in a window."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pullback.alignment import Alignment
from pullback.energies.energy import Energy
from pullback.energies.similarity import intensity_range
from pullback.errors import InputError
from pullback.numerics.autograd import value_with_gradient
from pullback.numerics.smooth import box_sum, gaussian_sum

LEVEL, CONTRAST = 0.01, 0.03  # K₁ and K₂ of Wang et al.: shares of the fixed image's range


@dataclass(frozen=True)
class SSIM(Energy):
    """The mean structural similarity of both images in a window about each voxel, taken off 1.

    Wang et al. 2004, eq. 13, with the range of the fixed image within its mask as dynamic range. Windows are cut off at
    the border and at masks (only voxels inside both count); the range of a flat image counts as 1. Expects images of
    one contrast and intensities from 0 on. Only the moved image receives a gradient.

    Attributes:
        window: odd edge length in voxels.
        sigma: voxels within a window count by a Gaussian of so many voxels (Wang et al.: 1.5, in windows of 11); None
            counts them equally.

    Raises:
        InputError: the window is even or smaller than 3, or sigma not above 0.
    """

    window: int = 7
    sigma: float | None = None

    def __post_init__(self) -> None:
        if self.window < 3 or self.window % 2 == 0:
            raise InputError(f"SSIM: the window is an odd number of voxels from 3 on, got {self.window}")
        if self.sigma is not None and not self.sigma > 0:
            raise InputError(f"SSIM: sigma is a number of voxels above 0, or None, got {self.sigma}")

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        fixed, moved, mask = alignment.pair.fixed, alignment.moved.data, alignment.mask
        low, high = intensity_range(fixed)
        extent = torch.where(high > low, high - low, 1)
        inside = moved.new_ones(1, 1, *moved.shape[2:]) if mask is None else mask.to(moved.dtype)
        sweep = partial(_similarity, fixed=fixed.data, sum_up=self._sum, inside=inside, extent=extent)
        return {"ssim": 1 - value_with_gradient(sweep, moved)}

    def _sum(self, values: Tensor) -> Tensor:
        if self.sigma is None:
            return box_sum(values, self.window)
        return gaussian_sum(values, self.sigma, self.window // 2)


def _similarity(
    wanted: tuple[bool],
    moved: Tensor,
    fixed: Tensor,
    sum_up: Callable[[Tensor], Tensor],
    inside: Tensor,
    extent: Tensor,
) -> tuple[Tensor, tuple[Tensor | None]]:
    """Return the mean structural similarity of `(B, C, *spatial)`, and its gradient by the moved image where `wanted`.

    The images i and j are less m, the mean of the fixed one. `sum_up` sums over windows, of which n voxels are within
    the mask.

    1. With A = sum_up / n: μ = A i + m, ν = A j + m, c = A(ij) − A i A j, v = A(i²) − (A i)², w = A(j²) − (A j)².
    2. A voxel's similarity is LT: L = (2μν + C₁) / B, B = μ² + ν² + C₁; T = (2c + C₂) / V, V = v + w + C₂. All voxels
       within the mask have the same share in the mean.
    3. Its slopes are twice a by ν, twice b by c, and −d by w: a = (μ − Lν) T / B, b = L / V, d = bT.
    4. In a window of x, j(y) moves ν by 1 / n, c by (i(y) − A i(x)) / n, and w by 2 (j(y) − A j(x)) / n.
    5. The gradient adds this up over the windows that hold y, which is `sum_up` again, for that is symmetric:
       2 sum_up((a − b A i + d A j) / n) + 2i sum_up(b / n) − 2j sum_up(d / n).
    """
    n = sum_up(inside)
    n = n.masked_fill_(n <= 0, 1)
    axes = tuple(range(2, fixed.ndim))
    middle = (fixed * inside).sum(axes, keepdim=True) / inside.sum(axes, keepdim=True).clamp(min=1)
    i, j = (fixed - middle) * inside, (moved - middle) * inside  # small numbers, before they are squared
    i_mean, j_mean = sum_up(i).div_(n), sum_up(j).div_(n)  # 1
    c = sum_up(i * j).div_(n).addcmul_(i_mean, j_mean, value=-1)
    spread = sum_up(i * i + j * j).div_(n)
    spread = spread.addcmul_(i_mean, i_mean, value=-1).addcmul_(j_mean, j_mean, value=-1)
    spread = spread.clamp_(min=0).add_((CONTRAST * extent).square())  # 2: V
    structure = c.mul_(2).add_((CONTRAST * extent).square()).div_(spread)
    mu, nu, c1 = i_mean + middle, j_mean + middle, (LEVEL * extent).square()
    brightness = (mu.square() + nu.square()).add_(c1)
    level = (2 * mu * nu).add_(c1).div_(brightness)
    share = inside / inside.expand_as(level).sum().clamp(min=1)
    value = (level * structure * share).sum()
    if not wanted[0]:
        return value, (None,)
    share = share / n
    a = mu.addcmul(level, nu, value=-1).mul_(structure).div_(brightness).mul_(share)  # 3
    b = level.div_(spread).mul_(share)
    d = structure.mul_(b)
    a.addcmul_(b, i_mean, value=-1).addcmul_(d, j_mean)  # 5
    gradient = sum_up(a).addcmul_(sum_up(b), i).addcmul_(sum_up(d), j, value=-1)
    return value, (gradient.mul_(2 * inside),)
