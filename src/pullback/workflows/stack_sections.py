"""Sections of a stack and their masks, as their files hold them."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pullback.errors import InputError
from pullback.files.images.image_file import load
from pullback.files.images.slide import Slide, opens_as_slide
from pullback.files.images.stack import Sections
from pullback.files.images.tiff import read_page
from pullback.files.suffixes import ends
from pullback.space import Grid, Image, Labels

LARGEST_GAP = 20  # numbers that may lack between two sections and are named


@dataclass(frozen=True, eq=False)
class StoredSection:
    """The pixels of a section.

    Attributes:
        image: `(1, 1, X, Y)`, or `(1, 3, X, Y)` of colours 0 … 255.
        dtype: in which they are stored.
        outside: the value beyond the section.
    """

    image: Image
    dtype: np.dtype
    outside: float = 0.0

    @property
    def coloured(self) -> bool:
        """Whether pixels are red, green and blue."""
        return self.image.data.shape[1] == 3


def read_pixels(sections: Sections, n: int) -> StoredSection:
    """Read the n-th section with all its colours, in the world of `sections[n]`.

    Raises:
        InputError: a file that cannot be read, or is no one section.
    """
    path = Path(sections.path)
    if not path.is_dir():
        return StoredSection(sections[n], _stored(read_page(path, n).dtype))
    path = path / sections.names[n]
    if not opens_as_slide(path):
        return StoredSection(sections[n], _stored(load(path).get_data_dtype()))
    slide = Slide.open(path)
    if not slide.coloured:
        return StoredSection(sections[n], _stored(slide.plain()[0].dtype))
    seen = slide.image()
    grid = seen.grid
    if sections.given:
        affine = grid.affine.clone()
        affine[:2] *= sections.spacing / float(grid.spacing.mean())
        grid = Grid(grid.shape, affine)
    return StoredSection(Image(255 * seen.data, grid), np.dtype(np.uint8), 255 * slide.glass)


def read_mask(masks: Sections, n: int) -> tuple[Labels, str]:
    """Read the n-th mask, and say what was made of it, or "".

    Grey or coloured pictures whose smooth edges lie between 0 and 255 are cut at half.

    Raises:
        InputError: a file that cannot be read, or numbers that are no labels.
    """
    pixels = read_pixels(masks, n)
    values = pixels.image.data.mean(1, keepdim=True)
    between = (values > 0) & (values < 255)
    smooth = float(values.max()) == 255 and bool(between.any())
    if smooth and int(between.sum()) < int((values == 255).sum()):
        labels = Labels((values >= 127.5).to(torch.uint8), pixels.image.grid)
        return labels, f"{masks.names[n]}: values between 0 and 255, as of smooth edges, were cut at half"
    whole = values.round()
    if float((values - whole).abs().max()) > 1e-3 or float(whole.min()) < 0:
        raise InputError(f"{masks.names[n]}: whole numbers from 0 on are expected of a mask, and it has others")
    return Labels(whole.to(torch.int32), pixels.image.grid), ""


def missing_numbers(names: Sequence[str]) -> list[int]:
    """Return the numbers that lack between those of the sections; none where names are not numbered."""
    found = [re.findall(r"\d+", _stem(name)) for name in names]
    if not all(found):
        return []
    numbers = [int(each[-1]) for each in found]
    gaps = [n for one, two in itertools.pairwise(numbers) for n in range(one + 1, two)]
    steps = {two - one for one, two in itertools.pairwise(numbers)}
    return gaps if len(steps) > 1 and len(gaps) <= LARGEST_GAP else []


def refuse_unlike(sections: Sections, masks: Sections) -> None:
    """Refuse masks that are not as many as sections.

    Raises:
        InputError: another number of them; it says which have none, where names are numbered.
    """
    if len(sections) == len(masks):
        return
    ours, theirs = ({tuple(re.findall(r"\d+", _stem(name)))[-1:] for name in each.names} for each in (sections, masks))
    lacking = sorted(number for (number,) in ours - theirs - {()})
    said = f"; numbers without a mask: {', '.join(lacking)}" if 0 < len(lacking) <= LARGEST_GAP else ""
    raise InputError(f"{masks.path}: {len(masks)} masks of {len(sections)} sections; one of each is expected{said}")


def short_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of sections without the endings of files; numbers of pages with zeros in front."""
    width = len(str(len(names)))
    return tuple(name.zfill(width) if name.isdigit() else _stem(name) for name in names)


def _stem(name: str) -> str:
    for ending in (".ome.tif", ".ome.tiff", ".nii.gz"):
        if ends(name, ending):
            return name[: -len(ending)]
    return Path(name).stem


def _stored(dtype: np.dtype) -> np.dtype:
    """Return the type in which a section is written again."""
    if dtype.kind == "b" or dtype.itemsize == 1:
        return np.dtype(np.uint8)
    if dtype.kind in "iu" and dtype.itemsize <= 2:
        return np.dtype(np.uint16 if dtype.kind == "u" else np.int16)
    return np.dtype(np.float32)
