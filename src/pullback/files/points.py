"""Points of the world in files: tables and surfaces."""

from pathlib import Path

from pullback.files.surfaces import GIFTI, VTK, Surface, read_surface, write_surface
from pullback.files.tables import PointTable, read_table, write_table


def read_points(path: str | Path, space: str | None = None) -> PointTable | Surface:
    """The points of a `.csv` or `.fcsv` table or the vertices of a GIFTI or VTK surface, by the name's ending.

    Its `points` are in the world; `moved(points)` is the same file with its points elsewhere, for `write_points`.

    Args:
        space: `"ras"` or `"lps"`, for files that do not name theirs.

    Raises:
        InputError: not such a file, or a space that nothing names.
    """
    surface = str(path).endswith(GIFTI + VTK)
    return read_surface(path, space) if surface else read_table(path, space)


def write_points(thing: PointTable | Surface, path: str | Path) -> None:
    """In the format and the space of the file that was read.

    Raises:
        InputError: the name ends otherwise, or writing fails.
    """
    if isinstance(thing, Surface):
        write_surface(thing, path)
    else:
        write_table(thing, path)
