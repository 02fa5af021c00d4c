"""Global similarity of intensities."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.alignment import Alignment
from pullback.energies.energy import Energy
from pullback.space import Image


@dataclass(frozen=True)
class MSE(Energy):
    """The mean squared difference of intensities over the masks."""

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        difference = (alignment.moved.data - alignment.pair.fixed.data).square()
        return {"mse": masked_mean(difference, alignment.mask)}


@dataclass(frozen=True)
class NCC(Energy):
    """The squared correlation of intensities over each image and its masks, taken off 1.

    Attributes:
        squared: without, it is the correlation itself that is taken off 1, for images of one contrast: 0 … 2.
    """

    squared: bool = True

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        r = ncc(alignment.pair.fixed.data, alignment.moved.data, alignment.mask)
        return {"ncc": 1 - (r.square() if self.squared else r).mean()}


def ncc(fixed: Tensor, moved: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the Pearson correlation of each image and channel, `(B, C)`; 0 where an image is constant."""
    weight = moved.new_ones(1, 1, *moved.shape[2:]) if mask is None else mask.to(moved.dtype)
    (i, i_norm), (j, j_norm) = (_centred(t, weight) for t in (fixed, moved))
    return (i * j).sum(tuple(range(2, moved.ndim))) / i_norm / j_norm


def _centred(values: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return intensities less their mean, and their norm `(B, C)`: infinite where they are constant but for rounding.

    Both in units of the greatest deviation: float32 does not hold the squares of 1e-23 and 1e20.
    """
    axes = tuple(range(2, values.ndim))
    count = weight.sum(axes, keepdim=True).clamp(min=1)
    mean = (values * weight).sum(axes, keepdim=True) / count
    left = (values - mean) * weight
    size = left.detach().abs().flatten(2).amax(2).view_as(mean)
    size = size.where(size > 0, 1)
    left, mean = left / size, mean / size
    squares = left.square().sum(axes)
    rounding = (16 * torch.finfo(values.dtype).eps * mean).square() * count
    return left, squares.masked_fill(squares <= rounding.view_as(squares), torch.inf).sqrt()


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean of `(B, C, *spatial)` over `mask` `(B, 1, *spatial)`, `()`; 0 where that is empty."""
    if mask is None:
        return values.mean()
    inside = mask.to(values.dtype).expand_as(values)
    return (values * inside).sum() / inside.sum().clamp(min=1)


def intensity_range(image: Image) -> tuple[Tensor, Tensor]:
    """Return the least and the greatest intensity within the mask, `(B, C, 1, …)` each; ±infinity where it is empty."""
    axes, low, high = tuple(range(2, image.data.ndim)), image.data, image.data
    if image.mask is not None:
        low, high = low.masked_fill(~image.mask, torch.inf), high.masked_fill(~image.mask, -torch.inf)
    return low.amin(axes, keepdim=True), high.amax(axes, keepdim=True)
