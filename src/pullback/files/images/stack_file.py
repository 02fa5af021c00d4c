"""Stacks of sections written as one file, section by section: OME-TIFF, plain TIFF and NIfTI."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pullback.errors import InputError
from pullback.files.images.levels import library
from pullback.files.images.nifti import write_image
from pullback.files.suffixes import NIFTI, TIFFS, ends
from pullback.records.atomic import atomic_write
from pullback.space import Grid, Image, Labels

MICROMETRES = 1e3  # of a mm
LARGE = 2**31
"""Bytes, from which a TIFF needs 64 bits of address."""


@dataclass(frozen=True)
class StackShape:
    """The shape of a stack of sections on one grid.

    Attributes:
        count: of sections.
        grid: of each, 2-D.
        dtype: of its pixels.
        coloured: whether a section is `(Y, X, 3)`, else `(Y, X)`.
        thickness: mm from one section to the next.
        measured: whether anybody said how large a pixel is; else an OME-TIFF does not say either.
    """

    count: int
    grid: Grid
    dtype: np.dtype
    coloured: bool = False
    thickness: float = 1.0
    measured: bool = True

    @property
    def volume(self) -> Grid:
        """The grid of all sections as a volume: their own axes, and the world's third from the first section on."""
        affine = torch.eye(4, dtype=torch.float64)
        affine[:2, :2], affine[:2, 3] = self.grid.affine[:2, :2], self.grid.affine[:2, 2]
        affine[2, 2] = self.thickness
        return Grid((*self.grid.shape, self.count), affine)


def stack_ending(path: str | Path) -> str:
    """Return the ending of a file that `write_stack` writes, such as `.ome.tif`.

    Raises:
        InputError: it is of another kind.
    """
    for ending in (".ome.tif", ".ome.tiff", *TIFFS, *NIFTI):
        if ends(path, ending):
            return ending
    raise InputError(f"{path}: a stack is written as .ome.tif, .tif or .nii.gz; name a file that ends so")


def write_stack(path: str | Path, sections: Iterable[np.ndarray], shape: StackShape) -> None:
    """Write sections, `(Y, X)` or `(Y, X, 3)` each, as one file.

    Of TIFF they are taken one after the other and never held together. Pixel sizes stand in an OME-TIFF in micrometres;
    to NIfTI sections go as a volume, with the axes of their grid.

    Raises:
        InputError: a file of another kind, colours for NIfTI, or a place that cannot be written to.
    """
    if stack_ending(path) in NIFTI:
        _write_volume(path, sections, shape)
        return
    tifffile = library("tifffile", path)
    size = (shape.count, shape.grid.shape[1], shape.grid.shape[0], *((3,) if shape.coloured else ()))
    large = int(np.prod(size, dtype=np.int64)) * shape.dtype.itemsize > LARGE
    ome = ".ome." in Path(path).name.lower()
    about: dict[str, object] = {"axes": "ZYXS" if shape.coloured else "ZYX"}
    if shape.measured and ome:
        x, y = (MICROMETRES * edge for edge in shape.grid.spacing.tolist())
        steps = {"X": x, "Y": y, "Z": MICROMETRES * shape.thickness}
        about |= {f"PhysicalSize{axis}": float(f"{step:.9g}") for axis, step in steps.items()}
        about |= {f"PhysicalSize{axis}Unit": "µm" for axis in steps}
    with atomic_write(path) as temporary, tifffile.TiffWriter(temporary, bigtiff=large, ome=ome) as file:
        file.write(
            _checked(sections, size[1:], shape),
            shape=size,
            dtype=shape.dtype,
            photometric="rgb" if shape.coloured else "minisblack",
            compression="zlib",
            metadata=about,
        )


def _checked(sections: Iterable[np.ndarray], size: tuple[int, ...], shape: StackShape) -> Iterator[np.ndarray]:
    """Yield sections, as many and as large as was said."""
    count = 0
    for section in sections:
        if section.shape != size or section.dtype != shape.dtype:
            raise ValueError(f"write_stack: {size} of {shape.dtype} expected, got {section.shape} of {section.dtype}")
        count += 1
        yield np.ascontiguousarray(section)
    if count != shape.count:
        raise ValueError(f"write_stack: {shape.count} sections expected, got {count}")


def _write_volume(path: str | Path, sections: Iterable[np.ndarray], shape: StackShape) -> None:
    if shape.coloured:
        raise InputError(f"{path}: sections are in colour, which a volume of NIfTI is not; write .ome.tif")
    values = np.stack([section.T for section in _checked(sections, shape.grid.shape[::-1], shape)], -1)  # (X, Y, Z)
    if values.dtype.kind == "f":
        write_image(Image(torch.from_numpy(values.astype(np.float32))[None, None], shape.volume), path)
        return
    wide = values.astype({1: np.uint8, 2: np.int32}.get(values.dtype.itemsize, np.int64))
    write_image(Labels(torch.from_numpy(wide)[None, None], shape.volume), path)
