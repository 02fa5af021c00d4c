"""Slides written: pyramids of tiles as OME-TIFF, of which some tiles are in memory at a time, and small ones as PNG."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Picture

from pullback.errors import InputError
from pullback.files.images.levels import library
from pullback.files.images.slide import LARGEST, coarser
from pullback.files.images.tiff import CREATOR
from pullback.files.suffixes import OME_TIFF, ends
from pullback.records.atomic import atomic_write
from pullback.space import Grid

TILE = 512
BLOCK = 2048
"""Pixels along an edge of what is drawn at once: 4 × 4 tiles."""
QUALITY = 85
PICTURE = (".png",)

Draw = Callable[[Grid], np.ndarray]
"""Returns the pixels of a part of a picture, `(y, x)` or `(y, x, 3)`, on a grid of any resolution."""


@dataclass(frozen=True)
class Canvas:
    """A picture to be written: where its pixels are, and of which kind.

    Attributes:
        grid: 2-D, of the finest level, in mm.
        dtype: of the pixels.
        coloured: whether they are red, green and blue, bytes each.
        measured: whether the grid's mm are those of the world; else they are pixels, and no size is written.
        lossless: nothing is lost to JPEG, which is of bytes in colour alone.
    """

    grid: Grid
    dtype: np.dtype
    coloured: bool
    measured: bool
    lossless: bool = False


def is_slide_name(path: str | Path) -> bool:
    """Return whether a file of this name is written as a picture or slide."""
    return ends(path, (*PICTURE, *OME_TIFF))


def write_slide(draw: Draw, canvas: Canvas, path: str | Path) -> None:
    """Write a picture, which is drawn part by part, as `.ome.tif` of all levels, tiled and compressed, or as `.png`.

    Levels halve the resolution until one tile holds all. Each is drawn by itself: pixels of a coarser one are asked
    for on its own grid, half a pixel of it from the rim of the finest.

    Raises:
        InputError: the name ends otherwise, a PNG of more pixels than fit in memory, a library that is missing, or
            writing fails.
    """
    if not is_slide_name(path):
        raise InputError(f"{path}: pictures are written as .png, slides as .ome.tif")
    with atomic_write(path) as temporary:
        if ends(path, PICTURE):
            _write_png(draw, canvas, path, temporary)
        else:
            _write_ome_tiff(draw, canvas, path, temporary)


def _write_png(draw: Draw, canvas: Canvas, path: str | Path, temporary: Path) -> None:
    width, height = canvas.grid.shape
    if width * height > LARGEST:
        raise InputError(f"{path}: {width:,} × {height:,} pixels are too many for a picture; name it .ome.tif")
    if canvas.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: a picture holds bytes or 16 bits, no {canvas.dtype}; name it .ome.tif")
    out = np.empty((height, width, *([3] if canvas.coloured else [])), canvas.dtype)
    for top, left, part in _blocks(canvas.grid):
        out[top : top + part.shape[1], left : left + part.shape[0]] = draw(part)
    Picture.fromarray(out).save(temporary)


def _write_ome_tiff(draw: Draw, canvas: Canvas, path: str | Path, temporary: Path) -> None:
    tifffile = library("tifffile", path)
    library("imagecodecs", path)
    grids = [canvas.grid]
    while max(grids[-1].shape) > TILE and min(grids[-1].shape) > 1:
        grids.append(coarser(canvas.grid, 2 ** len(grids)))
    jpeg = canvas.coloured and not canvas.lossless
    how: dict[str, Any] = {
        "dtype": canvas.dtype,
        "tile": (TILE, TILE),
        "photometric": "rgb" if canvas.coloured else "minisblack",
        "compression": "jpeg" if jpeg else "adobe_deflate",
        "compressionargs": {"level": QUALITY} if jpeg else None,
    }
    micrometres = [float(f"{float(edge) * 1000:.9g}") for edge in canvas.grid.spacing]
    sizes = {f"PhysicalSize{axis}": size for axis, size in zip("XY", micrometres, strict=True)}
    first = [0.0 - float(n) * 1000 for n in canvas.grid.affine[:2, 2]]
    place = {f"Position{axis}": [float(f"{n:.9g}")] for axis, n in zip("XY", first, strict=True)}
    about: dict[str, Any] = {"axes": "YXS" if canvas.coloured else "YX", **(sizes if canvas.measured else {})}
    about |= {"Creator": CREATOR, "Plane": place | {f"{name}Unit": ["µm"] for name in place}}
    with tifffile.TiffWriter(temporary, bigtiff=True, ome=True) as file:
        for n, grid in enumerate(grids):
            file.write(
                _tiles(draw, canvas, grid, jpeg),
                shape=(grid.shape[1], grid.shape[0], *([3] if canvas.coloured else [])),
                subifds=len(grids) - 1 if n == 0 else None,
                subfiletype=min(n, 1),
                metadata=about if n == 0 else None,
                **how,
            )


def _tiles(draw: Draw, canvas: Canvas, grid: Grid, jpeg: bool) -> Iterator[bytes]:
    """Yield the tiles of a level row by row, compressed; blocks of tiles are drawn at a time."""
    width = grid.shape[0]
    rows: dict[int, list[bytes]] = {}
    for top, left, part in _blocks(grid):
        pixels = draw(part)
        for down in range(0, pixels.shape[0], TILE):
            row = rows.setdefault(top + down, [])
            row += [
                _encoded(pixels[down : down + TILE, across : across + TILE], canvas, jpeg)
                for across in range(0, pixels.shape[1], TILE)
            ]
        if left + part.shape[0] == width:
            for first in sorted(rows):
                yield from rows.pop(first)


def _encoded(tile: np.ndarray, canvas: Canvas, jpeg: bool) -> bytes:
    """Return a tile, filled up by its last pixels, as the bytes that the file holds."""
    codecs = library("imagecodecs", "a slide")
    missing = [(0, TILE - n) for n in tile.shape[:2]] + [(0, 0)] * (tile.ndim - 2)
    whole = np.ascontiguousarray(np.pad(tile.astype(canvas.dtype, copy=False), missing, mode="edge"))
    if jpeg:
        return bytes(codecs.jpeg8_encode(whole, level=QUALITY, colorspace="rgb", outcolorspace="ycbcr"))
    return bytes(codecs.zlib_encode(whole.tobytes(), level=6))


def _blocks(grid: Grid) -> Iterator[tuple[int, int, Grid]]:
    """Yield the parts of a grid, row by row, with the row and column at which each begins."""
    width, height = grid.shape
    for top in range(0, height, BLOCK):
        for left in range(0, width, BLOCK):
            affine = grid.affine.clone()
            affine[:2, 2] += affine[:2, :2] @ torch.tensor([float(left), float(top)], dtype=torch.float64)
            yield top, left, Grid((min(BLOCK, width - left), min(BLOCK, height - top)), affine)
