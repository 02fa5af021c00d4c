"""Pictures and whole slides: colours or plain numbers at one level or several, of which parts are read."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.files.images.colour import LUMINANCE
from pullback.files.images.levels import Pyramid, StoredLevel, depths, unit
from pullback.files.images.ome_zarr import open_ome_zarr
from pullback.files.images.openslide import open_openslide
from pullback.files.images.picture import is_coloured_picture, open_picture
from pullback.files.images.tiff import is_of_bits, open_tiff, opens_as_tiff, pages_of
from pullback.files.suffixes import OME_ZARR, PICTURES, SCANNED, SLIDES, TIFFS, ends, refuse_absent
from pullback.space import Grid, Image

LARGEST = 2**28
"""Pixels that are read into one image: in colour 3 GB."""
AT_ONCE = 2**24
"""Pixels that are decoded at once."""
LOOKED_AT = 2**16
"""Pixels by which glass is told."""


@dataclass(frozen=True)
class Slide:
    """A picture on disk at one level of resolution or several; what is not asked for is not read.

    Its world is as that of other pictures: x runs along rows and y downwards in LPS, and the middle of the first pixel
    of the finest level is the origin, unless it was written here as one level of another slide. A pixel of a coarser
    level covers several of the finest, so that the middle of its first one lies (s − s₀)/2 from there, s being the
    lengths of pixels.

    Attributes:
        path: the file, or the folder of an OME-Zarr image.
        stored: the levels as they are stored, fine to coarse.
        levels: their grids, 2-D, in mm; 1 mm a pixel of the finest where the file does not say.
        measured: whether the file says how large a pixel is.
    """

    path: str | Path
    stored: tuple[StoredLevel, ...]
    levels: tuple[Grid, ...]
    measured: bool

    @classmethod
    def open(cls, path: str | Path) -> "Slide":
        """Open a picture or slide; of TIFF and what is built on it, all levels of its largest picture.

        Raises:
            InputError: no such file, none that is read, several pictures in one, or a library that is not installed.
        """
        pyramid = _opened(path)
        grids = tuple(_grids(pyramid))
        order = sorted(range(len(grids)), key=lambda n: -grids[n].shape[0])
        stored = tuple(pyramid.levels[n] for n in order)
        return cls(path, stored, tuple(grids[n] for n in order), pyramid.spacing is not None)

    @property
    def coloured(self) -> bool:
        """Whether its pixels are red, green and blue."""
        return self.stored[0].coloured

    @cached_property
    def glass(self) -> float:
        """The value beyond it: 1, white, where its border is bright, else 0; 0 too of plain numbers."""
        if not self.coloured:
            return 0.0
        data = self.image(most=LOOKED_AT).data[0]
        rim = torch.cat([data[:, 0], data[:, -1], data[:, :, 0], data[:, :, -1]], 1)
        return float((torch.tensor(LUMINANCE) @ rim).median() > 0.5)

    def image(self, spacing: float | None = None, most: int | None = None) -> Image:
        """Read the whole at one resolution: `(1, 3, x, y)` in 0 … 1, or `(1, 1, x, y)` numbers as they are stored.

        Args:
            spacing: mm of a pixel, at most: of the coarsest level that is as fine, and means of whole pixels of it.
            most: pixels; the finest that has no more is taken.

        Raises:
            InputError: more pixels than fit in memory, or a file that cannot be read.
        """
        level, factor = self.choice(spacing, most)
        values = self._reduced(level, factor)
        return Image(torch.from_numpy(values.astype(np.float32, copy=False))[None], self.reduced(level, factor))

    def plain(self, spacing: float | None = None, most: int | None = None) -> tuple[np.ndarray, Grid]:
        """Read plain numbers `(x, y)` in the type in which they are stored, as far as they are no means.

        Raises:
            InputError: as of `image`.
        """
        level, factor = self.choice(spacing, most)
        return self._reduced(level, factor)[0], self.reduced(level, factor)

    def region(self, level: int, part: tuple[slice, slice], factor: int = 1) -> Image:
        """Read a part of a level, `part` of its first and second axis, as `image` does; its pixels stay in their place.

        Args:
            level: its number.
            part: in pixels of the answer.
            factor: the answer is means over blocks of as many pixels of the level along each axis.

        Raises:
            InputError: a file that cannot be read.
        """
        across, down = part
        width, height = across.stop - across.start, down.stop - down.start
        first = (down.start * factor, across.start * factor)
        values = self.stored[level].read(*first, height * factor, width * factor)
        values = unit(values) if self.coloured else values.astype(np.float32)
        if factor > 1:
            values = values.reshape(height, factor, width, factor, -1).mean((1, 3))
        affine = self.reduced(level, factor).affine.clone()
        affine[:2, 2] += affine[:2, :2] @ torch.tensor([float(across.start), float(down.start)], dtype=torch.float64)
        return Image(torch.from_numpy(_channels(values))[None], Grid((width, height), affine))

    def level_at(self, spacing: float) -> int:
        """Return the number of the coarsest level whose pixels are no larger than `spacing` mm, else of the finest."""
        return max((n for n, grid in enumerate(self.levels) if _edge(grid) <= spacing * 1.001), default=0)

    def choice(self, spacing: float | None = None, most: int | None = None) -> tuple[int, int]:
        """Return the level that `image` reads, and the edge in its pixels of the blocks whose means it takes.

        Raises:
            InputError: a spacing that is no length, or more pixels than fit in memory.
        """
        if spacing is not None and not spacing > 0:
            raise InputError(f"--spacing {spacing:g}: a length in mm above 0 is expected")
        if spacing is not None:
            level = self.level_at(spacing)
            factor = max(1, int(spacing / _edge(self.levels[level]) + 1e-3))
        elif most is not None:
            level, factor = self._within(most)
        else:
            level, factor = 0, 1
        count = _count(self.levels[level]) // factor**2
        if count > LARGEST:
            width, height = (n // factor for n in self.levels[level].shape)
            size = count * (3 if self.coloured else 1) * 4 / 1e9
            raise InputError(
                f"{self.path}: {width:,} × {height:,} pixels would take {size:.0f} GB; take a coarser --spacing than "
                f"{_edge(self.levels[level]) * factor:.4g} mm, such as {_edge(self.levels[-1]):.4g}"
            )
        return level, factor

    def _within(self, most: int) -> tuple[int, int]:
        """Return the level and factor of the finest image of at most so many pixels, from levels that are read fast."""
        found = []
        for level, grid in enumerate(self.levels):
            factor = max(1, int(np.ceil((_count(grid) / most) ** 0.5)))
            if factor <= 4 or level == len(self.levels) - 1:
                found.append((_count(grid) // factor**2, level, factor))
        return max(found)[1:]

    def reduced(self, level: int, factor: int) -> Grid:
        """Return the grid of means over blocks of `factor` × `factor` pixels of a level."""
        return coarser(self.levels[level], factor)

    def _reduced(self, level: int, factor: int) -> np.ndarray:
        """Return a level `(C, x, y)`, colours in 0 … 1, by means over blocks."""
        rows, columns = self.stored[level].shape
        factors = (min(factor, rows), min(factor, columns))
        height, width = rows // factors[0] * factors[0], columns // factors[1] * factors[1]
        strips = []
        for top, tall in _strips(height, width, factors[0]):
            values = self.stored[level].read(top, 0, tall, width)
            values = unit(values) if self.coloured else values
            if factor > 1:
                blocks = values.reshape(tall // factors[0], factors[0], width // factors[1], factors[1], -1)
                values = blocks.mean((1, 3), dtype=np.float32)
            strips.append(_channels(values.reshape(*values.shape[:2], -1)))
        return np.concatenate(strips, 2)


def coarser(grid: Grid, factor: int) -> Grid:
    """Return the grid of blocks of `factor` × `factor` pixels of a 2-D grid; what fills no block is left out."""
    affine = grid.affine.clone()
    affine[:2, 2] += affine[:2, :2] @ torch.full((2,), (factor - 1) / 2, dtype=torch.float64)
    affine[:2, :2] *= factor
    return Grid((max(1, grid.shape[0] // factor), max(1, grid.shape[1] // factor)), affine)


def pixel_of(path: str | Path) -> tuple[float, float]:
    """Return mm of a pixel of the finest level of a picture or slide, x and y; 1 where it does not say.

    Raises:
        InputError: no picture or slide.
    """
    if not ends(path, (*PICTURES, *SLIDES)):
        raise InputError(f"{path}: no picture or slide, and pixels are of one; {', '.join((*PICTURES, *SLIDES))}")
    x, y = Slide.open(path).levels[0].spacing.tolist()
    return x, y


def opens_as_slide(path: str | Path) -> bool:
    """Return whether a file is read as a picture or slide: it is named so, is in colour, or knows its pixels' size.

    Other pictures, in grey, are ITK's, as are volumes in TIFF; but one bit a pixel, which ITK takes for colours.
    """
    if ends(path, SLIDES):
        return True
    if not ends(path, PICTURES) or not Path(path).is_file():
        return False
    if is_coloured_picture(path):
        return True
    try:
        if not ends(path, TIFFS) or not opens_as_tiff(path) or pages_of(path) > 1:
            return False
        pyramid = open_tiff(path)
    except InputError:
        return False
    level = pyramid.levels[0]
    return pyramid.spacing is not None or len(pyramid.levels) > 1 or level.coloured or is_of_bits(path)


def _opened(path: str | Path) -> Pyramid:
    if ends(path, OME_ZARR):
        if not Path(path).is_dir():
            raise InputError(f"{path}: no such folder; OME-Zarr is one")
        return open_ome_zarr(path)
    refuse_absent(path)
    if ends(path, SCANNED):
        return open_openslide(path)
    if ends(path, TIFFS):
        return open_tiff(path) if opens_as_tiff(path) else open_openslide(path)
    return open_picture(path) if ends(path, PICTURES) else open_openslide(path)


def _grids(pyramid: Pyramid) -> Iterator[Grid]:
    """Yield the grid of each level in RAS mm."""
    x, y = pyramid.spacing or (1.0, 1.0)
    factors = depths([level.shape for level in pyramid.levels])
    for n, level in enumerate(pyramid.levels):
        if pyramid.placed is not None:
            (sx, sy), (ox, oy) = pyramid.placed[n]
            ox, oy = ox - pyramid.placed[0][1][0], oy - pyramid.placed[0][1][1]
        else:
            sx, sy = x * factors[n][0], y * factors[n][1]
            ox, oy = (sx - x) / 2, (sy - y) / 2
        ox, oy = ox + pyramid.origin[0], oy + pyramid.origin[1]
        affine = torch.tensor([[-sx, 0, -ox], [0, -sy, -oy], [0, 0, 1]], dtype=torch.float64)
        yield Grid((level.shape[1], level.shape[0]), affine)


def _strips(height: int, width: int, step: int) -> Iterator[tuple[int, int]]:
    """Yield the first row and the number of rows of strips, whole numbers of `step` rows each."""
    tall = max(1, AT_ONCE // width // step) * step
    for top in range(0, height, tall):
        yield top, min(tall, height - top)


def _channels(values: np.ndarray) -> np.ndarray:
    """Return rows, columns and channels as `(C, x, y)`."""
    values = values if values.ndim == 3 else values[..., None]
    return np.ascontiguousarray(values.transpose(2, 1, 0))


def _edge(grid: Grid) -> float:
    return float(grid.spacing.prod()) ** 0.5


def _count(grid: Grid) -> int:
    return grid.shape[0] * grid.shape[1]


def colours_of(image: Image) -> Tensor:
    """Return colours `(1, C, x, y)` in 0 … 1 as bytes `(y, x, C)`."""
    return (image.data[0].permute(2, 1, 0) * 255).round().clamp(0, 255).to(torch.uint8)
