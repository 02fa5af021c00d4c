"""Cross-correlations for all shifts at once, by real FFTs."""

from dataclasses import dataclass

import torch
from scipy.fft import next_fast_len
from torch import Tensor


@dataclass(frozen=True)
class Shifts:
    """The whole shifts at which two arrays overlap enough, and the padding that keeps them from wrapping onto others.

    At shift χ, voxel x of `a` lies on voxel x + χ of `b`. Arrays of n and m voxels that overlap by at least o need
    n + m − o voxels: then only shifts with less overlap wrap onto each other.

    Attributes:
        a: shape of the first array.
        b: shape of the second.
        overlap: the least overlap along each axis, voxels; 1 for all shifts. No more than either array has.

    Raises:
        ValueError: an overlap below 1, or larger than one of the arrays.
    """

    a: tuple[int, ...]
    b: tuple[int, ...]
    overlap: tuple[int, ...]

    def __post_init__(self) -> None:
        if not all(1 <= o <= min(n, m) for n, m, o in zip(self.a, self.b, self.overlap, strict=True)):
            raise ValueError(f"Shifts: {self.a} and {self.b} cannot overlap by {self.overlap}")

    @property
    def first(self) -> tuple[int, ...]:
        """The most negative shift along each axis; the following ones run in steps of one."""
        return tuple(o - n for n, o in zip(self.a, self.overlap, strict=True))

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of shifts along each axis."""
        return tuple(n + m - 2 * o + 1 for n, m, o in zip(self.a, self.b, self.overlap, strict=True))

    @property
    def padded(self) -> tuple[int, ...]:
        """Shape of the zero-padded arrays: large enough, and quick to transform."""
        return tuple(next_fast_len(n + m - o, True) for n, m, o in zip(self.a, self.b, self.overlap, strict=True))


def spectrum(parts: Tensor, shifts: Shifts) -> Tensor:
    """Return real FFTs of `(…, *spatial)` over the spatial axes, zero-padded to `shifts.padded`."""
    return torch.fft.rfftn(parts, s=shifts.padded, dim=_spatial(shifts))


def product(mirrored: Tensor, b: Tensor) -> Tensor:
    """Return the spectrum of a correlation, `(B, *half)`, summed over parts.

    Args:
        mirrored: conjugate spectra of the parts of a, `(K, *half)`.
        b: spectra of the parts of b, `(B, K, *half)`.
    """
    total = mirrored[0] * b[:, 0]
    for k in range(1, len(mirrored)):
        total.addcmul_(mirrored[k].expand_as(total), b[:, k])
    return total


def correlation(spectra: Tensor, shifts: Shifts) -> Tensor:
    """Return correlations at the shifts from `shifts.first` on, `(…, *shifts.shape)`, of their spectra `(…, *half)`."""
    out = torch.fft.irfftn(spectra, s=shifts.padded, dim=_spatial(shifts))
    for axis, (first, count) in enumerate(zip(shifts.first, shifts.shape, strict=True), -len(shifts.a)):
        negative = out.narrow(axis, out.shape[axis] + first, -first)
        out = torch.cat([negative, out.narrow(axis, 0, count + first)], axis)
    return out


def cross_correlation(a: Tensor, b: Tensor, overlap: int | tuple[int, ...] = 1) -> Tensor:
    """Return Σ_k Σ_x a_k(x) b_k(x + χ) at all whole shifts χ, summed over the parts k in the Fourier domain.

    Args:
        a: parts `(K, *spatial)`.
        b: parts `(K, *spatial)`; its shape may be another.
        overlap: the least overlap along each axis, voxels; 1 for all shifts.

    Returns:
        One value per shift; along each axis they run from overlap − n on, where n is the length of `a`.
    """
    least = (overlap,) * (a.ndim - 1) if isinstance(overlap, int) else overlap
    shifts = Shifts(tuple(a.shape[1:]), tuple(b.shape[1:]), least)
    return correlation(product(spectrum(a, shifts).conj(), spectrum(b, shifts)[None]), shifts)[0]


def _spatial(shifts: Shifts) -> tuple[int, ...]:
    return tuple(range(-len(shifts.a), 0))
