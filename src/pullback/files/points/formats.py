"""Points in files of any format: tables, markups and surfaces."""

from pathlib import Path

from pullback.files.points.markups import read_markups, write_markups
from pullback.files.points.surfaces import Surface, read_surface, write_surface
from pullback.files.points.tables import PointTable, read_table, write_table
from pullback.files.suffixes import GIFTI, MARKUPS, VTK, ends


def read_points(path: str | Path, space: str | None = None) -> PointTable | Surface:
    """Read points from `.csv`, `.fcsv` or `.mrk.json`, or the vertices of a GIFTI or VTK surface, by the name's ending.

    Their `points` are in the world; `moved(points)` is the same file with its points elsewhere, for `write_points`.

    Args:
        space: `"ras"` or `"lps"`, for files that do not name theirs.

    Raises:
        InputError: not such a file, or a space that nothing names.
    """
    if ends(path, GIFTI + VTK):
        return read_surface(path, space)
    return read_markups(path, space) if ends(path, MARKUPS) else read_table(path, space)


def write_points(thing: PointTable | Surface, path: str | Path) -> None:
    """Write points in the format and the space of the file that was read.

    Raises:
        InputError: the name ends otherwise, or writing fails.
    """
    if isinstance(thing, Surface):
        write_surface(thing, path)
    elif thing.head[0].startswith("{"):
        write_markups(thing, path)
    else:
        write_table(thing, path)
