"""Structural similarity: level, contrast and structure in a window."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pullback.alignment import Alignment
from pullback.energies.energy import Energy
from pullback.energies.similarity import intensity_range
from pullback.errors import InputError
from pullback.numerics.smooth import box_sum, gaussian_sum

LEVEL, CONTRAST = 0.01, 0.03  # K₁ and K₂ of Wang et al.: shares of the fixed image's range


@dataclass(frozen=True)
class SSIM(Energy):
    """1 − the mean over voxels of the structural similarity of both images in a window about the voxel.

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
        return {"ssim": 1 - _SSIM.apply(fixed.data, moved, self._sum, mask, extent)}

    def _sum(self, values: Tensor) -> Tensor:
        if self.sigma is None:
            return box_sum(values, self.window)
        return gaussian_sum(values, self.sigma, self.window // 2)


class _SSIM(torch.autograd.Function):
    """The mean similarity and, made in the same sweep, its gradient: all that is kept.

    With means μ, variances v, w and covariance c over a window, a voxel's similarity is level × structure,
    (2μᵢμⱼ + C₁) / (μᵢ² + μⱼ² + C₁) × (2c + C₂) / (v + w + C₂).
    """

    @staticmethod
    def forward(ctx, fixed, moved, sum_up, mask, extent):
        inside = moved.new_ones(1, 1, *moved.shape[2:]) if mask is None else mask.to(moved.dtype)
        n = sum_up(inside)
        n = n.masked_fill_(n <= 0, 1)
        axes = tuple(range(2, fixed.ndim))
        middle = (fixed * inside).sum(axes, keepdim=True) / inside.sum(axes, keepdim=True).clamp(min=1)
        i, j = (fixed - middle) * inside, (moved - middle) * inside  # small numbers, before they are squared
        i_mean, j_mean = sum_up(i).div_(n), sum_up(j).div_(n)
        c = sum_up(i * j).div_(n).addcmul_(i_mean, j_mean, value=-1)
        spread = sum_up(i * i + j * j).div_(n)
        spread = spread.addcmul_(i_mean, i_mean, value=-1).addcmul_(j_mean, j_mean, value=-1)
        spread = spread.clamp_(min=0).add_((CONTRAST * extent).square())
        structure = c.mul_(2).add_((CONTRAST * extent).square()).div_(spread)
        mu, nu, c1 = i_mean + middle, j_mean + middle, (LEVEL * extent).square()
        brightness = (mu.square() + nu.square()).add_(c1)
        level = (2 * mu * nu).add_(c1).div_(brightness)
        share = inside / inside.expand_as(level).sum().clamp(min=1)
        value = (level * structure * share).sum()
        gradient = None
        if ctx.needs_input_grad[1]:
            share = share / n
            a = mu.addcmul(level, nu, value=-1).mul_(structure).div_(brightness).mul_(share)
            b = level.div_(spread).mul_(share)
            d = structure.mul_(b)  # each half the slope: by the mean, by the covariance, by the variance, less
            a.addcmul_(b, i_mean, value=-1).addcmul_(d, j_mean)
            gradient = sum_up(a).addcmul_(sum_up(b), i).addcmul_(sum_up(d), j, value=-1)
            gradient = gradient.mul_(2 * inside).sum_to_size(moved.shape)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        (gradient,) = ctx.saved_tensors
        return None, upstream * gradient, None, None, None
