"""Separable window sums and smoothing."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pullback.numerics.separable import apply_along


def box_sum(values: Tensor, window: int) -> Tensor:
    """Return the sum over an odd cubic window about each voxel; beyond the border values are 0.

    Sums of 1, 2, 4, … neighbours are doubled until the window is full: about `2 log2(window)` additions per axis. All
    terms are of one size, so float32 loses nothing to cancellation, as it does in running sums.

    Args:
        values: `(B, C, *spatial)`.
        window: odd edge length in voxels.

    Raises:
        ValueError: an even window.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"box_sum: the window is an odd number of voxels, got {window}")
    for axis in range(values.ndim - 1, 1, -1):
        values = _running(values, axis, window)
    return values


def _running(values: Tensor, axis: int, window: int) -> Tensor:
    n, r = values.shape[axis], window // 2
    pad = [0, 0] * (values.ndim - 1 - axis) + [r, r]
    power, width = F.pad(values, pad), 1  # power[x] is the sum of `width` neighbours from x on
    out, filled = power.narrow(axis, 0, n), 1  # the window is odd: its first neighbour stands alone
    while True:
        if width > 1 and window & width:
            out = out + power.narrow(axis, filled, n)
            filled += width
        if 2 * width > window:
            return out
        length = power.shape[axis] - width
        power = power.narrow(axis, 0, length) + power.narrow(axis, width, length)
        width *= 2


def cross_mean(values: Tensor) -> Tensor:
    """Return the mean of each voxel of `(B, C, *spatial)` and its neighbours along the axes; the border is repeated."""
    total = values
    for axis in range(2, values.ndim):
        first, last = values.narrow(axis, 0, 1), values.narrow(axis, values.shape[axis] - 1, 1)
        n = values.shape[axis]
        total = total + torch.cat([first, values.narrow(axis, 0, n - 1)], axis)
        total = total + torch.cat([values.narrow(axis, 1, n - 1), last], axis)
    return total / (2 * (values.ndim - 2) + 1)


def gaussian_sum(values: Tensor, sigma: float | Sequence[float], reach: int) -> Tensor:
    """Return the sum about each voxel of `(B, C, *spatial)`, weighted by a Gaussian cut off `reach` voxels away.

    The weights of a whole window add up to 1; beyond the border values are 0. `sigma` is in voxels, one for all axes or
    one each.
    """
    for axis, (n, width) in enumerate(zip(values.shape[2:], _each(sigma, values), strict=True)):
        whole = _bells(2 * reach + 1, width, reach)[reach].sum()
        values = apply_along((_bells(n, width, reach) / whole).to(values), values, axis)
    return values


def gaussian(values: Tensor, sigma: float | Sequence[float]) -> Tensor:
    """Smooth `(B, C, *spatial)` by a Gaussian, cut off at 4 sigma and normalised at the border.

    Args:
        values: `(B, C, *spatial)`.
        sigma: in voxels, one for all axes or one each; 0 leaves an axis alone.
    """
    for axis, (n, width) in enumerate(zip(values.shape[2:], _each(sigma, values), strict=True)):
        if width > 0:
            values = apply_along(_gaussian_matrix(n, width).to(values), values, axis)
    return values


def smooth_noise(
    shape: Sequence[int], sigma: float | Sequence[float], generator: torch.Generator, like: Tensor
) -> Tensor:
    """Return Gaussian noise smoothed by a Gaussian, of mean 0 and variance 1 at every voxel, up to the border.

    Args:
        shape: `(B, C, *spatial)`; each channel is drawn by itself.
        sigma: in voxels, one for all axes or one each; 0 leaves an axis alone.
        generator: on the CPU, where the noise is drawn.
        like: gives dtype and device.
    """
    values = torch.randn(tuple(shape), generator=generator, dtype=like.dtype).to(like.device)
    for axis, (n, width) in enumerate(zip(values.shape[2:], _each(sigma, values), strict=True)):
        if width > 0:
            kernel = _gaussian_matrix(n, width)
            values = apply_along((kernel / kernel.norm(dim=1, keepdim=True)).to(values), values, axis)
    return values


def stationary_noise(
    shape: Sequence[int], sigma: float, reach: int, generator: torch.Generator, like: Tensor
) -> Tensor:
    """Return smoothed Gaussian noise of mean 0 and variance 1 that is the same everywhere, up to the border.

    White noise on a grid that is `reach` wider on all sides meets a Gaussian cut off `reach` voxels away, whose squares
    add up to 1 along each axis. So not only the variance but every correlation is that of the interior, such as that of
    neighbours, `neighbour_correlation`; in `smooth_noise` it is another at the border.

    Args:
        shape: `(B, C, *spatial)`; each channel is drawn by itself.
        sigma: in voxels; 0 leaves the noise white.
        reach: of the Gaussian, in voxels.
        generator: on the CPU, where the noise is drawn.
        like: gives dtype and device.
    """
    kernel = _unit_kernel(sigma, reach).to(like)
    wider = (*shape[:2], *(n + len(kernel) - 1 for n in shape[2:]))
    values = torch.randn(wider, generator=generator, dtype=like.dtype).to(like.device)
    for axis, n in enumerate(shape[2:]):
        rows = torch.arange(n)[:, None]
        matrix = kernel.new_zeros(n, n + len(kernel) - 1)
        matrix[rows, rows + torch.arange(len(kernel))] = kernel
        values = apply_along(matrix, values, axis)
    return values


def neighbour_correlation(sigma: float, reach: int) -> float:
    """Return the correlation of two neighbours along an axis in `stationary_noise`.

    Without a cut it would be exp(−1 / 4σ²); cut off at 2 σ, its distance from 1 is larger by half and more.
    """
    kernel = _unit_kernel(sigma, reach)
    return float(kernel[1:] @ kernel[:-1])


def _unit_kernel(sigma: float, reach: int) -> Tensor:
    """Return a Gaussian cut off `reach` voxels away whose squares add up to 1, `(2 reach + 1,)`, or `(1,)` of 0."""
    if sigma == 0:
        return torch.ones(1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / sigma) ** 2)
    return kernel / kernel.norm()


def antialiased(values: Tensor, ratios: Sequence[float]) -> Tensor:
    """Smooth values before their voxels grow by `ratios` along each axis.

    The Gaussian widens a voxel's own width at half height to that of the new voxel; axes whose voxels shrink stay.
    """
    return gaussian(values, [max(ratio * ratio - 1, 0.0) ** 0.5 / 2.355 for ratio in ratios])


def _each(sigma: float | Sequence[float], values: Tensor) -> Sequence[float]:
    """Return one sigma for each spatial axis."""
    return [float(sigma)] * (values.ndim - 2) if isinstance(sigma, int | float) else sigma


def _gaussian_matrix(n: int, sigma: float) -> Tensor:
    kernel = _bells(n, sigma, math.ceil(4 * sigma))
    return kernel / kernel.sum(1, keepdim=True)


def _bells(n: int, sigma: float, reach: int) -> Tensor:
    """Return a Gaussian of height 1 about each of `n` voxels, `(n, n)`, cut off `reach` voxels away."""
    at = torch.arange(n, dtype=torch.float64)
    distance = (at[:, None] - at).abs()
    return torch.exp(-0.5 * (distance / sigma) ** 2) * (distance <= reach)
