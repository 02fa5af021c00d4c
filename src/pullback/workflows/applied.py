"""Parts that the application of transforms to points, images and slides shares."""

import re
from dataclasses import dataclass
from pathlib import Path

from pullback.errors import InputError
from pullback.space import Grid, Transform


@dataclass(frozen=True)
class Applied:
    """The account of an application: what was done, in words, and what may be wrong with it (empty: nothing)."""

    what: str
    doubt: str = ""


def refuse_unlike(path: str | Path, ndim: int, transform: Transform) -> None:
    """Refuse a file of other dimensions than a transform's.

    Raises:
        InputError: they differ.
    """
    if ndim != transform.ndim:
        raise InputError(
            f"{path}: is {ndim}-D, and the transform moves points in {transform.ndim} dimensions; give files "
            f"that are alike"
        )


def bracketed(name: str) -> tuple[str, bool]:
    """Parse `NAME`, `[NAME,0]` or `[NAME,1]` into the file and whether it is inverted.

    Raises:
        InputError: brackets with something else in them.
    """
    if not name.startswith("["):
        return name, False
    found = re.fullmatch(r"\[([^,]+?)\s*(?:,\s*([01])\s*)?\]", name)
    if found is None:
        raise InputError(f"-t {name}: NAME, or [NAME,1] for its inverse, is expected")
    return found.group(1), found.group(2) == "1"


def size_of(grid: Grid) -> str:
    """Return the shape of a grid in words."""
    return " × ".join(map(str, grid.shape))
