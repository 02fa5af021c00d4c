"""Landmarks in pixels of a picture."""

from pathlib import Path

from pullback.files.points.tables import read_table
from pullback.space import Points


def read_pixels(path: str | Path) -> Points:
    """Read a CSV of places in a picture, columns X to the right and Y down, in pixels of 1 mm as pictures have them.

    Raises:
        InputError: as of `read_table`.
    """
    return read_table(path, "lps", 2).points
