"""Points in files of any format: tables, markups and surfaces."""

from pathlib import Path

from pullback.files.points.freesurfer import is_freesurfer
from pullback.files.points.markups import read_markups, write_markups
from pullback.files.points.surfaces import Surface, read_surface, write_surface
from pullback.files.points.tables import PointTable, read_table, write_table
from pullback.files.suffixes import GIFTI, MARKUPS, POINTS, VTK, ends


def is_points(path: str | Path) -> bool:
    """Return whether a file holds points: by its name's ending, or as a surface of FreeSurfer by its first bytes."""
    return ends(path, POINTS) or is_freesurfer(path)


def read_points(path: str | Path, space: str | None = None, ndim: int | None = None) -> PointTable | Surface:
    """Read points: a `.csv` or `.fcsv` table, `.mrk.json`, or the vertices of a surface of GIFTI, VTK or FreeSurfer.

    Their `points` are in the world; `moved(points)` is the same file with its points elsewhere, for `write_points`.

    Args:
        space: `"ras"` or `"lps"`, for files that do not name theirs.
        ndim: dimensions of the points that are wanted; 2 reads a table of x, y, z, as ANTs writes them for slices, as
            points of the plane where z is 0 throughout.

    Raises:
        InputError: not such a file, or a space that nothing names.
    """
    if ends(path, GIFTI + VTK) or is_freesurfer(path):
        return read_surface(path, space)
    if ends(path, MARKUPS):
        return read_markups(path, space)
    return read_table(path, space, ndim)


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
