"""Colours of bright-field microscopy: grey, optical density, and stains apart."""

from dataclasses import replace

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.space import Image

LUMINANCE = (0.2126, 0.7152, 0.0722)
"""Shares of red, green and blue in the luminance of a screen (ITU-R BT.709)."""
STAINS = {"haematoxylin": (0.65, 0.70, 0.29), "eosin": (0.07, 0.99, 0.11), "dab": (0.27, 0.57, 0.78)}
"""Optical densities of red, green and blue of each stain (Ruifrok and Johnston 2001, table 2)."""
GREY = "grey"
LOOKS = (GREY, *STAINS)
DARKEST = 1 / 510
"""What an 8-bit zero is taken for, half a step: the density of black is finite, 2.7."""


def grey(image: Image) -> Image:
    """Return 1 − luminance of colours `(B, 3, …)` in 0 … 1, `(B, 1, …)`: glass is 0, and tissue is bright.

    It is linear in the colours, so that it may be taken before an image is moved or after.

    Raises:
        InputError: other than three channels.
    """
    _refuse_uncoloured(image)
    return replace(image, data=1 - _weighed(image.data, LUMINANCE))


def density(image: Image) -> Image:
    """Return the optical densities −log₁₀ I of colours `(B, 3, …)`, to which stains add up (Beer and Lambert).

    Raises:
        InputError: other than three channels.
    """
    _refuse_uncoloured(image)
    return replace(image, data=-image.data.clamp(min=DARKEST).log10())


def stain(image: Image, name: str) -> Image:
    """Return how much of one of three stains there is in colours `(B, 3, …)`: `(B, 1, …)`, 0 where there is none.

    The three, haematoxylin, eosin and DAB, are unmixed together (Ruifrok and Johnston, Quantification of
    histochemical staining by color deconvolution, 2001); `"grey"` is as in `grey`.

    Raises:
        InputError: another name, or other than three channels.
    """
    if name not in LOOKS:
        raise InputError(f"stain {name}: choose one of {', '.join(LOOKS)}")
    if name == GREY:
        return grey(image)
    apart = torch.linalg.inv(torch.tensor([*STAINS.values()], dtype=torch.float64))
    column = apart[:, [*STAINS].index(name)].tolist()
    return replace(image, data=_weighed(density(image).data, column).clamp(min=0))


def _weighed(data: Tensor, weights: tuple[float, ...] | list[float]) -> Tensor:
    """Return the weighted sum of channels, `(B, 1, …)`."""
    shape = (1, -1, *[1] * (data.ndim - 2))
    return (data * torch.tensor(weights, dtype=data.dtype, device=data.device).view(shape)).sum(1, keepdim=True)


def _refuse_uncoloured(image: Image) -> None:
    if image.data.shape[1] != 3:
        raise InputError(f"colours: red, green and blue expected, got {image.data.shape[1]} channels")
