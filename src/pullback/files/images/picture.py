"""Pictures of one level, PNG and JPEG, as they look."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image as Picture

from pullback.errors import InputError
from pullback.files.images.levels import Pyramid, StoredLevel, from_inks, over_white

COLOURED = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")


@dataclass(frozen=True)
class PictureLevel(StoredLevel):
    """A picture, which is decoded whole.

    Attributes:
        path: the file.
        shape: rows and columns.
        coloured: whether pixels have colours.
    """

    path: str | Path
    shape: tuple[int, int]
    coloured: bool

    @cached_property
    def pixels(self) -> np.ndarray:
        """All pixels.

        Raises:
            InputError: the file is cut short.
        """
        try:
            with _allowed(self.path) as picture:
                return _colours(picture) if self.coloured else np.asarray(picture)
        except (OSError, ValueError, SyntaxError) as error:
            raise InputError(f"{self.path}: the picture cannot be read ({error}); copy it anew") from error

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        return self.pixels[top : top + height, left : left + width]


def is_coloured_picture(path: str | Path) -> bool:
    """Return whether a file is a picture with colours; False also for what is no picture at all."""
    try:
        with _allowed(path) as picture:
            return picture.mode in COLOURED
    except (OSError, ValueError, SyntaxError):
        return False


def open_picture(path: str | Path) -> Pyramid:
    """Open a picture as the one level that it has. Dots per inch are of a print, and no size of a pixel.

    Raises:
        InputError: no picture that can be read.
    """
    try:
        with _allowed(path) as picture:
            level = PictureLevel(path, (picture.height, picture.width), picture.mode in COLOURED)
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{path}: not a readable picture ({error}); copy it anew") from error
    return Pyramid((level,))


def _allowed(path: str | Path) -> Picture.Image:
    """Open a picture of any size: the limit is of pages from the web."""
    limit, Picture.MAX_IMAGE_PIXELS = Picture.MAX_IMAGE_PIXELS, None
    try:
        return Picture.open(path)
    finally:
        Picture.MAX_IMAGE_PIXELS = limit


def _colours(picture: Picture.Image) -> np.ndarray:
    if picture.mode == "CMYK":
        values = np.asarray(picture)
        return from_inks(values)
    clear = picture.mode in ("RGBA", "PA") or "transparency" in picture.info
    return over_white(np.asarray(picture.convert("RGBA"))) if clear else np.asarray(picture.convert("RGB"))
