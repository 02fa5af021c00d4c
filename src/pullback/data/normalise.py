"""Normalisation of intensities."""

from dataclasses import replace

import torch

from pullback.errors import InputError
from pullback.numerics.smooth import gaussian
from pullback.space import Image

RIM = 3.0
"""Voxels: how far into what a mask hides the image goes on as at its rim."""
FAR = 1e-3
"""The weight of what is far away."""
PLATEAU = 0.05
"""Share of the voxels at or below the `low` percentile, from which on it is no noise but a structure."""


def normalised(image: Image, low: float = 0.5, high: float = 99.5) -> Image:
    """Scale the image's `low` percentile to 0 and its `high` percentile to 1, and cut intensities off there.

    Percentiles are of the voxels above the image's minimum, within its mask where it has one, so that an empty
    background does not decide; each image and channel by itself, since scanners share no unit. Where many voxels have
    the `low` percentile itself, as the darkest level of an image of few levels, that is a structure and not the dark
    end of noise: then the minimum becomes 0, so that it stays apart from the background.

    Raises:
        InputError: the image is constant there.
    """
    data = image.data.clone()
    mask = None if image.mask is None else image.mask.expand(len(data), -1, *image.grid.shape)
    for index in torch.cartesian_prod(torch.arange(data.shape[0]), torch.arange(data.shape[1])):
        values = data[tuple(index)]
        seen = values[mask[index[0], 0]] if mask is not None and mask[index[0]].any() else values
        lit = seen[seen > seen.min()]
        if not len(lit):
            raise InputError("normalised: the image is constant where it may be looked at; look at another part of it")
        ordered = lit.flatten().sort().values  # torch.quantile refuses volumes of more than 2²⁴ voxels
        bottom, top = (ordered[round(q / 100 * (len(ordered) - 1))] for q in (low, high))
        if float((lit <= bottom).double().mean()) > PLATEAU:
            bottom = seen.min()
        if bottom == top:
            bottom, top = seen.min(), seen.max()
        data[tuple(index)] = ((values - bottom) / (top - bottom)).clamp(0, 1)
    return replace(image, data=data)


def preprocessed(image: Image) -> Image:
    """Normalise the image (`normalised`), and fill what its mask hides smoothly.

    Near the rim of the mask the filling is the mean of visible voxels around, far away that of all visible voxels. An
    edge at the rim would be seen from within, by all that smooths or interpolates: where a hole is filled with one
    value, registration shrinks it to a third.

    Raises:
        InputError: the mask is empty, or the image constant within it.
    """
    if image.mask is not None and not image.mask.any():
        raise InputError("the mask is empty, so there is nothing to align; leave it out, or mark where to look")
    bright = normalised(image)
    if image.mask is None:
        return bright
    seen = image.mask.expand_as(bright.data)
    axes = tuple(range(2, bright.data.ndim))
    lit, weight = torch.where(seen, bright.data, 0), seen.to(bright.data)
    mean = lit.sum(axes, keepdim=True) / weight.sum(axes, keepdim=True)
    near = (gaussian(lit, RIM) + FAR * mean) / (gaussian(weight, RIM) + FAR)
    return replace(bright, data=torch.where(seen, bright.data, near))
