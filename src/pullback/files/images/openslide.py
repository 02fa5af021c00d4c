"""Slides of scanners by OpenSlide: MRXS, VMS, Ventana, and what tifffile does not know."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pullback.errors import InputError
from pullback.files.images.levels import Pyramid, StoredLevel, library, over_white


@dataclass(frozen=True)
class OpenSlideLevel(StoredLevel):
    """A level of a slide.

    Attributes:
        path: the file, opened for each part.
        number: of the level.
        shape: rows and columns.
        downsample: by which its pixels are larger than those of the finest level.
        coloured: True, always.
    """

    path: str | Path
    number: int
    shape: tuple[int, int]
    downsample: float
    coloured: bool = True

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Return a part of the level; where the scanner saw nothing is glass.

        Raises:
            InputError: the pixels cannot be decoded.
        """
        openslide = library("openslide", self.path)
        corner = (round(left * self.downsample), round(top * self.downsample))
        try:
            with openslide.OpenSlide(str(self.path)) as slide:
                return over_white(np.asarray(slide.read_region(corner, self.number, (width, height))))
        except (openslide.OpenSlideError, OSError) as error:
            raise InputError(f"{self.path}: the pixels cannot be decoded ({error}); copy it anew") from error


def open_openslide(path: str | Path) -> Pyramid:
    """Open a slide.

    Raises:
        InputError: OpenSlide does not read it, as where the folder of an MRXS file is not beside it.
    """
    openslide = library("openslide", path)
    try:
        with openslide.OpenSlide(str(path)) as slide:
            told, factors = dict(slide.properties), slide.level_downsamples
            shapes = [(height, width) for width, height in slide.level_dimensions]
    except (openslide.OpenSlideError, OSError) as error:
        beside = f"; the folder {Path(path).stem} must lie beside it" if str(path).lower().endswith(".mrxs") else ""
        raise InputError(f"{path}: no slide that OpenSlide reads ({error}){beside}; copy or export it anew") from error
    levels = tuple(
        OpenSlideLevel(path, n, shape, factor) for n, (shape, factor) in enumerate(zip(shapes, factors, strict=True))
    )
    sizes = [told.get(f"openslide.mpp-{axis}") for axis in "xy"]
    if any(size is None or not float(size) > 0 for size in sizes):
        return Pyramid(levels)
    return Pyramid(levels, (float(sizes[0] or 0) / 1000, float(sizes[1] or 0) / 1000))
