"""Many frames of one place: a 4-D NIfTI image."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from pullback.errors import InputError
from pullback.files.nifti import (
    affine3,
    grid_of,
    load,
    refuse_not_finite,
    refuse_sheared,
    save,
    spatial,
    stored_voxels,
)
from pullback.space import Grid, Image


@dataclass(frozen=True, eq=False)
class Series:
    """Frames on one grid, in their order.

    Attributes:
        data: `(X, Y, Z, T)`.
        grid: of each frame.
        step: from one frame to the next, in the unit of time of `units`.
        units: NIfTI's code, `xyzt_units`.
    """

    data: np.ndarray
    grid: Grid
    step: float
    units: int

    def __len__(self) -> int:
        return self.data.shape[-1]

    def frames(self) -> Iterator[Image]:
        """Each as an image `(1, 1, X, Y, Z)`, float32."""
        for n in range(len(self)):
            yield Image(torch.from_numpy(np.ascontiguousarray(self.data[..., n], np.float32))[None, None], self.grid)


def is_series(path: str | Path) -> bool:
    """Whether a file holds more than one frame."""
    return len(spatial(load(path))) == 4


def read_series(path: str | Path) -> Series:
    """The frames of a file, placed as `read_image` places images.

    Raises:
        InputError: not frames of one number a voxel, nowhere in the world, or not finite.
    """
    image = load(path)
    shape = spatial(image)
    if len(shape) != 4:
        raise InputError(f"{path}: shape {tuple(image.shape)}; frames of a 3-D image, 4-D in all, are expected")
    values = stored_voxels(image, path).reshape(shape)
    refuse_not_finite(values, "voxels", path)
    return Series(values, grid_of(image, path), float(image.header["pixdim"][4]), int(image.header["xyzt_units"]))


def write_series(series: Series, path: str | Path) -> None:
    """As float32.

    Raises:
        InputError: the name is not NIfTI's, the grid is sheared, or writing fails.
    """
    refuse_sheared(series.grid, path)
    image = nib.Nifti1Image(series.data.astype(np.float32, copy=False), affine3(series.grid.affine))
    image.header["pixdim"][4], image.header["xyzt_units"] = series.step, series.units
    save(image, path)
