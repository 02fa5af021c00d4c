"""Points in files of any format: tables, markups and surfaces."""

from pathlib import Path

from pullback.errors import InputError
from pullback.files.points.freesurfer import is_freesurfer
from pullback.files.points.geojson import read_geojson, write_geojson
from pullback.files.points.markups import read_markups, write_markups
from pullback.files.points.surfaces import Surface, read_surface, write_surface
from pullback.files.points.tables import PointTable, read_pixels, read_table, write_table
from pullback.files.suffixes import GEOJSON, GIFTI, MARKUPS, POINTS, VTK, ends

PIXELS = "px"
"""The space of tables in pixels of a slide."""


def is_points(path: str | Path) -> bool:
    """Return whether a file holds points: by its name's ending, or as a surface of FreeSurfer by its first bytes."""
    return ends(path, POINTS) or is_freesurfer(path)


def read_points(
    path: str | Path, space: str | None = None, ndim: int | None = None, pixel: tuple[float, float] | None = None
) -> PointTable | Surface:
    """Read points: a table, `.mrk.json`, the vertices of a surface, or those of annotations in `.geojson`.

    Tables are `.csv` or `.fcsv`, surfaces those of GIFTI, VTK or FreeSurfer.

    Their `points` are in the world; `moved(points)` is the same file with its points elsewhere, for `write_points`.

    Args:
        space: `"ras"` or `"lps"`, for files that do not name theirs; `"px"` of a table in pixels of a slide.
        ndim: dimensions of the points that are wanted; 2 reads a table of x, y, z, as ANTs writes them for slices, as
            points of the plane where z is 0 throughout.
        pixel: mm of a pixel of their slide, x and y, for annotations and `"px"`.

    Raises:
        InputError: not such a file, a space that nothing names, or pixels of a slide that is not told.
    """
    if ends(path, GEOJSON) or space == PIXELS:
        if pixel is None:
            raise InputError(
                f"{path}: is in pixels, and whose is not told; name its slide: match --fixed-slide, apply --from"
            )
        if not ends(path, GEOJSON):
            return read_pixels(path, pixel)
        if space not in (None, PIXELS):
            raise InputError(f"{path}: annotations are in pixels; leave --space {space} out")
        return read_geojson(path, pixel)
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
    elif thing.head[0][:1] in "{[":
        (write_geojson if thing.pixel is not None else write_markups)(thing, path)
    else:
        write_table(thing, path)
