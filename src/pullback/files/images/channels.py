"""Multi-channel images from scalar files of one scene."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from pullback.errors import InputError
from pullback.files.images.image_file import ImageSource
from pullback.files.images.nifti import read_image
from pullback.space import Image


def read_channels(paths: Sequence[ImageSource], mask: str | Path | None = None) -> Image:
    """Read scalar images on one grid as the channels of one, `(1, C, *shape)` float32 in the order of `paths`.

    `mask` is as in `read_image`.

    Raises:
        InputError: no files, one that is no image, or one on another grid than the first.
    """
    if not paths:
        raise InputError("channels: no files; name at least one image")
    first = read_image(paths[0], mask)
    others = [read_image(path) for path in paths[1:]]
    for path, other in zip(paths[1:], others, strict=True):
        if other.grid != first.grid:
            raise InputError(
                f"{path}: lies on another grid than {paths[0]}: shape {other.grid.shape} against {first.grid.shape}; "
                f"align and resample it onto that image first"
            )
    return replace(first, data=torch.cat([image.data for image in (first, *others)], 1))
