"""Stacks: sections in a folder, or pages of a TIFF, each on a grid of its own."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import overload

import numpy as np
import torch

from pullback.errors import InputError
from pullback.files.images.image_file import ImageFile
from pullback.files.images.look import Look
from pullback.files.images.nifti import read_labels, read_scalar
from pullback.files.images.slide import LARGEST, Slide, opens_as_slide
from pullback.files.images.tiff import open_tiff, pages_of, read_page
from pullback.files.suffixes import NIFTI, PICTURES, SLIDES, TIFFS, ends
from pullback.space import Grid, Image, Labels

SECTIONS = (*PICTURES, *SLIDES, *NIFTI, ".mha", ".mhd", ".nrrd")
WHOLE = Look(most=LARGEST)


@dataclass(frozen=True)
class Sections(Sequence[Image]):
    """Sections of a stack in their order, each read when it is asked for and not kept.

    Attributes:
        path: the folder, or a TIFF of several pages.
        names: of the sections: of files, or numbers of pages from 1.
        spacing: mm of a pixel, of all.
        given: whether that was said by whoever reads; else by the files, or by nobody: 1 mm.
        measured: whether anybody said it.
    """

    path: str | Path
    names: tuple[str, ...]
    spacing: float
    given: bool
    measured: bool

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, at: int) -> Image: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Image, ...]: ...
    def __getitem__(self, at: int | slice) -> Image | tuple[Image, ...]:
        """Read a section, `(1, 1, x, y)`, or several: plain numbers as they are stored, colours in grey.

        Raises:
            InputError: a file that cannot be read, or is no one section.
        """
        if isinstance(at, slice):
            return tuple(self[n] for n in range(*at.indices(len(self))))
        if Path(self.path).is_dir():
            image = read_scalar(ImageFile(Path(self.path) / self.names[at], WHOLE))
            return Image(image.data, self._scaled(image.grid))
        page = read_page(self.path, at % len(self)).T
        return Image(torch.from_numpy(page.astype(np.float32))[None, None], self._grid(page.shape))

    def labels(self, at: int) -> Labels:
        """Read a section of labels, or of a mask, which any grey picture of whole numbers is.

        Raises:
            InputError: as of `read_labels`.
        """
        if Path(self.path).is_dir():
            labels = read_labels(ImageFile(Path(self.path) / self.names[at], WHOLE))
            return Labels(labels.data, self._scaled(labels.grid))
        page = read_page(self.path, at % len(self)).T
        return Labels(torch.from_numpy(page.astype(np.int64))[None, None], self._grid(page.shape))

    def __iter__(self) -> Iterator[Image]:
        return (self[n] for n in range(len(self)))

    def _grid(self, shape: tuple[int, ...]) -> Grid:
        return Grid((shape[0], shape[1]), torch.diag(torch.tensor([-self.spacing, -self.spacing, 1]).double()))

    def _scaled(self, grid: Grid) -> Grid:
        """Return the grid of a section as read, with the pixels of the stack where it says their size itself."""
        if not self.given:
            return grid
        affine = grid.affine.clone()
        affine[:2] *= self.spacing / float(grid.spacing.mean())
        return Grid(grid.shape, affine)


def read_stack(path: str | Path, spacing: float | None = None) -> Sections:
    """Open the sections in a folder, ordered by the numbers in their names, or the pages of a TIFF.

    Sections may differ in size. Each lies on a grid of its own, as pictures do.

    Args:
        path: the folder, or the file.
        spacing: mm of a pixel, in place of what the files say.

    Raises:
        InputError: no sections, sections of several kinds of file or sizes of pixels, a number twice, or a spacing that
            is no length.
    """
    if spacing is not None and not spacing > 0:
        raise InputError(f"{path}: pixels of {spacing:g} mm; a length above 0 is expected")
    if Path(path).is_dir() and not ends(path, ".zarr"):
        names = section_names(path)
        found = {_spacing_of(Path(path) / name) for name in (names[0], names[-1])}
        if spacing is None and len(found) > 1:
            raise InputError(f"{path}: pixels of {names[0]} and {names[-1]} have several sizes; say one")
        told = next(iter(found))
    else:
        if not ends(path, TIFFS) or not Path(path).is_file():
            raise InputError(f"{path}: a folder of sections, or a TIFF of several pages, is expected")
        names = tuple(str(n + 1) for n in range(pages_of(path)))
        told = _paged_spacing(path)
    size = spacing or told
    return Sections(path, names, size or 1.0, spacing is not None, size is not None)


def section_names(folder: str | Path) -> tuple[str, ...]:
    """Return the names of the sections in a folder in natural order: `s2` before `s10`.

    Raises:
        InputError: there are none, files of several endings, or two of one number.
    """
    files = [file.name for file in Path(folder).iterdir() if ends(file.name, SECTIONS) and file.name[:1] != "."]
    if not files:
        raise InputError(f"{folder}: holds no sections; files of {', '.join(SECTIONS)} are expected")
    endings = sorted({Path(name).suffix.lower() for name in files})
    if len(endings) > 1:
        raise InputError(f"{folder}: holds files of several kinds, {', '.join(endings)}; keep one kind there")
    ordered = sorted(files, key=natural)
    for one, two in pairwise(ordered):
        if natural(one) == natural(two):
            raise InputError(f"{folder}: {one} and {two} have one number; which comes first is not told")
    return tuple(ordered)


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """Return a key to sort names by, in which digits are numbers: `(0, "s")`, `(2, "")`, …."""
    parts = re.split(r"(\d+)", name.lower())
    return tuple((int(part), "") if n % 2 else (-1, part) for n, part in enumerate(parts))


def _spacing_of(path: Path) -> float | None:
    """Return mm of a pixel of a section, rounded to six digits; None where it does not say."""
    if opens_as_slide(path):
        slide = Slide.open(path)
        return float(f"{float(slide.levels[0].spacing.mean()):.6g}") if slide.measured else None
    if ends(path, PICTURES):
        return None
    return float(f"{float(read_scalar(path).grid.spacing.mean()):.6g}")


def _paged_spacing(path: str | Path) -> float | None:
    """Return mm of a pixel of the pages of a TIFF, where it says so."""
    try:
        spacing = open_tiff(path, deep=True).spacing
    except InputError:
        return None
    return None if spacing is None else sum(spacing) / 2
