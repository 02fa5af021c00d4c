"""Series of frames as 4-D NIfTI images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import nibabel as nib
import numpy as np
import torch

from pullback.errors import InputError
from pullback.files.images.image_file import load, spatial, stored_voxels
from pullback.files.images.nifti import (
    TIME,
    affine3,
    grid_of,
    narrowest,
    read_scalar,
    refuse_not_finite,
    refuse_sheared,
    save,
)
from pullback.files.suffixes import FORMATS, NIFTI, by_numbers, ends
from pullback.space import Grid, Image, Series

UNITS = {0: "", 8: "s", 16: "ms", 24: "us", 32: "Hz", 40: "ppm", 48: "rad/s"}  # by the bits of xyzt_units


@dataclass(frozen=True, eq=False)
class StoredFrames(Sequence[Image]):
    """The frames of a file, each converted to a float32 image when asked for.

    Attributes:
        data: `(*grid.shape, T)` as stored; still on disk where the file is not compressed.
        grid: of each frame.
    """

    data: np.ndarray
    grid: Grid

    def __len__(self) -> int:
        return self.data.shape[-1]

    @overload
    def __getitem__(self, index: int) -> Image: ...
    @overload
    def __getitem__(self, index: slice) -> "StoredFrames": ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return StoredFrames(self.data[..., index], self.grid)
        values = np.ascontiguousarray(self.data[..., index], np.float32)
        return Image(torch.from_numpy(values)[None, None], self.grid)


@dataclass(frozen=True, eq=False)
class FileFrames(Sequence[Image]):
    """The frames of a folder, each read when asked for.

    Attributes:
        paths: one file a frame.
        grid: on which all of them must lie.
    """

    paths: Sequence[Path]
    grid: Grid

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Image: ...
    @overload
    def __getitem__(self, index: slice) -> "FileFrames": ...
    def __getitem__(self, index):
        """Return a frame, or some.

        Raises:
            InputError: a frame that cannot be read, or on another grid than the first.
        """
        if isinstance(index, slice):
            return FileFrames(self.paths[index], self.grid)
        frame = read_scalar(self.paths[index])
        if frame.grid != self.grid:
            raise InputError(
                f"{self.paths[index]}: {frame.grid}, and {self.paths[0]}: {self.grid}; frames lie on one grid: crop or "
                f"resample them first"
            )
        return frame


def frames_in(folder: str | Path) -> list[Path]:
    """Return the images in a folder in the order of the numbers in their names, hidden files left out.

    Raises:
        InputError: there are none.
    """
    listed = [path for path in Path(folder).iterdir() if ends(path, (*NIFTI, *FORMATS)) and path.name[0] != "."]
    if not listed:
        raise InputError(f"{folder}: no frames in it; images end in {', '.join((*NIFTI, *FORMATS))}")
    return sorted(listed, key=by_numbers)


def read_frames(paths: Sequence[Path]) -> Series:
    """Read images of one place as frames, numbered from 0 in their order in place of times.

    Raises:
        InputError: the first cannot be read; of the others it is raised where they are asked for.
    """
    grid = read_scalar(paths[0]).grid
    return Series(FileFrames(paths, grid), grid, torch.arange(len(paths), dtype=torch.float64), "")


def is_series(path: str | Path) -> bool:
    """Return whether a file holds more than one frame."""
    return len(spatial(load(path))) == 4


def read_series(path: str | Path, ndim: int | None = None) -> Series:
    """Read the frames of a file, placed as `read_image` places images; 2-D ones where one axis in space has one
    voxel, which with `ndim` 3 keep their plane in the world, as in `read_scalar`.

    Raises:
        InputError: not frames of one number a voxel, nowhere in the world, or not finite.
    """
    image = load(path)
    shape = spatial(image)
    if len(shape) != 4:
        raise InputError(f"{path}: shape {tuple(image.shape)}; frames of a 3-D image, 4-D in all, are expected")
    grid = grid_of(image, path, ndim)
    values = stored_voxels(image, path).reshape(*grid.shape, shape[3])
    refuse_not_finite(values, "voxels", path)
    first, step = float(image.header["toffset"]), float(image.header["pixdim"][4])
    times = first + step * torch.arange(shape[3], dtype=torch.float64)
    return Series(StoredFrames(values, grid), grid, times, UNITS.get(int(image.header["xyzt_units"]) & TIME, ""))


def write_series(series: Series, path: str | Path, like: str | Path | None = None) -> None:
    """Write a series with its time step and unit; 2-D frames are placed as `write_image` places slices.

    Numbers are float32, or of the file that the frames are of: whole ones in the smallest type that holds them.

    Raises:
        InputError: the name is not NIfTI's, the grid is sheared, frames have several channels, times are not evenly
            spaced, the unit is none of NIfTI's, or writing fails.
    """
    refuse_sheared(series.grid, path)
    codes = {unit: code for code, unit in UNITS.items()}
    if series.unit not in codes:
        raise InputError(f"{path}: times in {series.unit!r}; NIfTI knows {', '.join(filter(None, codes))}")
    affine, shape = affine3(series.grid.affine), (*series.grid.shape, 1)[:3]
    if like is not None and series.grid.ndim == 2:
        lent = load(like)
        affine, shape = lent.affine, lent.shape[:3]
    image = nib.Nifti1Image(_values(series, path).reshape(*shape, len(series)), affine)
    image.header["pixdim"][4], image.header["toffset"] = _step(series.times, path), float(series.times[0])
    image.header["xyzt_units"] = codes[series.unit]
    save(image, path)


def _values(series: Series, path: str | Path) -> np.ndarray:
    """Return the frames as one array, `(*grid.shape, T)`."""
    if isinstance(series.frames, StoredFrames):
        data = series.frames.data
        if data.dtype.kind == "f":
            return data
        kept = narrowest(int(data.min()), int(data.max()))
        return data.astype(np.float32 if kept.itemsize > 4 else kept, copy=False)
    data = np.empty((*series.grid.shape, len(series)), np.float32)
    for n, frame in enumerate(series):
        if frame.data.shape[:2] != (1, 1):
            raise InputError(f"{path}: frames (1, 1, …) are written, not {tuple(frame.data.shape)}; one file for each")
        data[..., n] = frame.data[0, 0].detach().cpu().numpy()
    return data


def _step(times: torch.Tensor, path: str | Path) -> float:
    steps = times.double().diff()
    if not len(steps):
        return 0.0
    if float((steps - steps[0]).abs().max()) > 1e-5 * float(steps.abs().max()):
        raise InputError(
            f"{path}: NIfTI holds evenly spaced times alone, here {[round(t, 6) for t in times.tolist()]:}"
        )
    return float((times[-1] - times[0]) / len(steps))
