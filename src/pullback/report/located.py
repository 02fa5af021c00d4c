"""The page of slices that were found on plates of an atlas: each beside its candidates."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from pullback.records.manifest import known_version
from pullback.report import pictures
from pullback.report.page import write_page

FIXED, MOVED = (tuple(int(tone[at : at + 2], 16) for at in (1, 3, 5)) for tone in (pictures.FIXED, pictures.MOVED))


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """A picture of the page: `(S, S)` values 0 … 1 along R and A, or `(S, S, 3)`, with what stands below it."""

    values: np.ndarray
    words: str


@dataclass(frozen=True, eq=False)
class LocatedSlice:
    """A slice on the page.

    Attributes:
        name: of the slice.
        words: what was found, in a sentence.
        pictures: the slice, then its candidates, then where it was laid on the first.
        sure: whether it is believed.
    """

    name: str
    words: str
    pictures: Sequence[Thumbnail]
    sure: bool


def write_located(slices: Sequence[LocatedSlice], path: str | Path, title: str, notes: Sequence[str] = ()) -> None:
    """Write one self-contained HTML file with the pictures of all slices."""
    rows = [
        {
            "name": one.name,
            "words": one.words,
            "sure": one.sure,
            "pictures": [{"source": pictures.png(_upright(each.values)), "words": each.words} for each in one.pictures],
        }
        for one in slices
    ]
    write_page(path, "located", title=title, rows=rows, notes=notes, version=known_version("pullback"))


def _upright(values: np.ndarray) -> np.ndarray:
    """Return values along R and A as rows from above and columns from the left, uint8; as flat pictures are shown."""
    return pictures.grey(np.ascontiguousarray(values.swapaxes(0, 1)[::-1, ::-1]))


def overlaid(fixed: Tensor, moved: Tensor) -> np.ndarray:
    """Return two images `(S, S)`, 0 … 1, in the colours of fixed and moved, `(S, S, 3)`: what agrees is white."""
    seen = ((fixed, FIXED), (moved, MOVED))
    return sum(np.clip(each.numpy(), 0, 1)[..., None] * np.array(tone) / 255 for each, tone in seen).clip(0, 1)
