"""Normalisation of intensities."""

from dataclasses import replace

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.numerics.smooth import gaussian
from pullback.space import Image

RIM = 3.0
"""Voxels: how far into what a mask hides the image goes on as at its rim."""
FAR = 1e-3
"""The weight of what is far away."""
APART = 0.1
"""Of the window: how far below the darkest structure the background lies, where that structure is one flat level."""


def normalised(image: Image, low: float = 0.5, high: float = 99.5) -> Image:
    """Scale the image's `low` percentile to 0 and its `high` percentile to 1, and cut intensities off there.

    Percentiles are of the voxels above the image's minimum, within its mask where it has one, so that an empty
    background does not decide; each image and channel by itself, since scanners share no unit. Where the low percentile
    is a flat level, as of a drawing or a label map, the window begins a little below it: otherwise the darkest
    structure would become background.

    Raises:
        InputError: the image is constant there.
    """
    bottom, top = window(image, low, high)
    return replace(image, data=((image.data - bottom) / (top - bottom)).clamp(0, 1))


def window(image: Image, low: float = 0.5, high: float = 99.5) -> tuple[Tensor, Tensor]:
    """Return the intensities that `normalised` takes to 0 and 1, `(B, C, 1, …)` each.

    Raises:
        InputError: the image is constant there.
    """
    data, ends = image.data, []
    mask = None if image.mask is None else image.mask.expand(len(data), -1, *image.grid.shape)
    for index in torch.cartesian_prod(torch.arange(data.shape[0]), torch.arange(data.shape[1])):
        values = data[tuple(index)]
        seen = values[mask[index[0], 0]] if mask is not None and mask[index[0]].any() else values
        lit = seen[seen > seen.min()]
        if not len(lit):
            raise InputError("normalised: the image is constant where it may be looked at; look at another part of it")
        ordered = lit.flatten().sort().values  # torch.quantile refuses volumes of more than 2²⁴ voxels
        bottom, top = (ordered[round(q / 100 * (len(ordered) - 1))] for q in (low, high))
        if (ordered == bottom).sum() > 2 * low / 100 * len(ordered):
            bottom = torch.maximum(seen.min(), bottom - APART * (top - bottom))
        ends.append(torch.stack([seen.min(), seen.max()] if bottom == top else [bottom, top]))
    shape = (*data.shape[:2], *[1] * image.grid.ndim)
    bottoms, tops = torch.stack(ends, 1)
    return bottoms.view(shape), tops.view(shape)


def preprocessed(image: Image, scale: float | None = None) -> Image:
    """Normalise the image (`normalised`), and fill what its mask hides (`filled`).

    With a `scale` its intensities are divided by that, and nothing is cut off, for scanners that share a unit, as CT.

    Raises:
        InputError: the mask is empty, or, without a scale, the image constant within it.
    """
    if image.mask is not None and not image.mask.any():
        raise InputError("the mask is empty, so there is nothing to align; leave it out, or mark where to look")
    return filled(normalised(image) if scale is None else replace(image, data=image.data / scale))


def filled(image: Image) -> Image:
    """Fill what the image's mask hides smoothly.

    Near the rim of the mask the filling is the mean of visible voxels around, far away that of all visible voxels. An
    edge at the rim would be seen from within, by all that smooths or interpolates: where a hole is filled with one
    value, registration shrinks it to a third. The mask must not be empty.
    """
    if image.mask is None:
        return image
    seen = image.mask.expand_as(image.data)
    axes = tuple(range(2, image.data.ndim))
    lit, weight = torch.where(seen, image.data, 0), seen.to(image.data)
    mean = lit.sum(axes, keepdim=True) / weight.sum(axes, keepdim=True)
    near = (gaussian(lit, RIM) + FAR * mean) / (gaussian(weight, RIM) + FAR)
    return replace(image, data=torch.where(seen, image.data, near))
