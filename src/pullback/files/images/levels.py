"""Levels of resolution of a picture on disk, of which parts are read."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from pullback.errors import InputError


class StoredLevel(ABC):
    """Rows of pixels at one level of resolution.

    Attributes:
        shape: rows and columns.
        coloured: whether pixels are red, green and blue; else they are plain numbers.
    """

    shape: tuple[int, int]
    coloured: bool

    @abstractmethod
    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Return a part that lies within the level.

        Colours are `(height, width, 3)`, bytes or floats 0 … 1, over white where they are transparent; plain numbers
        `(height, width)` as they are stored.
        """


@dataclass(frozen=True)
class Pyramid:
    """A picture at several resolutions, as a format tells it.

    Attributes:
        levels: fine to coarse.
        spacing: mm of a pixel of the finest, x and y; None where the file does not say.
        placed: where the format says it, of each level the mm of a pixel and the place of the middle of its first one,
            x and y, along rows and downwards; None: as follows from the shapes.
        origin: the place of the middle of the first pixel of the finest, in mm, likewise.
    """

    levels: tuple[StoredLevel, ...]
    spacing: tuple[float, float] | None = None
    placed: tuple[tuple[tuple[float, float], tuple[float, float]], ...] | None = None
    origin: tuple[float, float] = (0.0, 0.0)


def library(name: str, path: object) -> Any:
    """Import a library of the extra `slides`.

    Raises:
        InputError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(
            f"{path}: {name} reads such files, and is not installed: pip install 'pullback[slides]'"
        ) from error


def over_white(values: np.ndarray, premultiplied: bool = False) -> np.ndarray:
    """Return colours `(…, 4)` with an alpha channel as they look on glass, `(…, 3)`."""
    if values.dtype == np.uint8 and (values[..., 3] == 255).all():
        return np.ascontiguousarray(values[..., :3])
    known = unit(values)
    alpha = known[..., 3:]
    return known[..., :3] * (1 if premultiplied else alpha) + 1 - alpha


def from_inks(values: np.ndarray) -> np.ndarray:
    """Return cyan, magenta, yellow and black `(…, 4)` as red, green and blue in 0 … 1."""
    inks = unit(values)
    return (1 - inks[..., :3]) * (1 - inks[..., 3:])


def from_ycbcr(values: np.ndarray) -> np.ndarray:
    """Return luma and chroma `(…, 3)` of full range (JFIF) as red, green and blue in 0 … 1."""
    y, cb, cr = np.moveaxis(unit(values), -1, 0)
    cb, cr = cb - 128 / 255, cr - 128 / 255
    return np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1).clip(0, 1)


def unit(values: np.ndarray) -> np.ndarray:
    """Return whole numbers as shares of the greatest of their type, floats as they are; float32."""
    if values.dtype.kind == "f":
        return values.astype(np.float32, copy=False)
    if values.dtype.kind == "b":
        return values.astype(np.float32)
    return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)


def depths(shapes: Sequence[tuple[int, int]]) -> list[tuple[float, float]]:
    """Return by how much pixels of each level are larger than those of the first, along x and y.

    A level of half the size may have lost a pixel, or gained one: where a whole number fits both axes, it is that.
    """
    rows, columns = shapes[0]
    out = []
    for height, width in shapes:
        whole = max(1, round((rows * columns / (height * width)) ** 0.5))
        fits = all(abs(n / whole - m) < 1 for n, m in ((rows, height), (columns, width)))
        out.append((float(whole), float(whole)) if fits else (columns / width, rows / height))
    return out
