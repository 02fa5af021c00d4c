"""Tables of landmarks: CSV and 3D Slicer's `.fcsv`. Points are RAS; the file's own space is kept."""

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from pullback.errors import InputError
from pullback.files.suffixes import ends, refuse_absent
from pullback.records.atomic import atomic_write
from pullback.space import PointColumn, Points

SIGNS = {"ras": (1.0, 1.0, 1.0), "lps": (-1.0, -1.0, 1.0)}  # of a file's coordinates in RAS
SLICER = {"0": "ras", "1": "lps", "ras": "ras", "lps": "lps"}
NAMES = ("label", "name", "n", "id")  # of columns that say which point is which, the first that says anything
COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"  # columns of Slicer's markups


@dataclass(frozen=True, eq=False)
class PointTable:
    """Points, with the table they were read from: its other columns stay as they are when the points move.

    Attributes:
        points: `(1, N, d)` RAS mm, float64. They have a column `name` where the file has names, of which some may be
            empty, and `label` where a column of that title holds whole numbers alone.
        space: of the file's coordinates, `"ras"` or `"lps"`.
        head: lines above the rows, as they were: comments, then the names of the columns, if they are named. Of
            markups in JSON, all of it.
        rows: N rows of text; none for markups in JSON.
        columns: positions of the d coordinates in a row.
        pixel: mm of a pixel, x and y, where the file tells pixels of a slide; None where it tells mm.
    """

    points: Points
    space: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    columns: tuple[int, ...]
    pixel: tuple[float, float] | None = None

    def moved(self, points: Points) -> "PointTable":
        """Return the table with its points elsewhere, in the same order.

        Raises:
            ValueError: another number of points, or of dimensions.
        """
        if points.data.shape[1:] != self.points.data.shape[1:]:
            raise ValueError(f"PointTable: {tuple(self.points.data.shape)} expected, got {tuple(points.data.shape)}")
        return replace(self, points=replace(self.points, data=points.data))

    def told_in(self, pixel: tuple[float, float]) -> "PointTable":
        """Return the same points, told in pixels of another slide, of which each is so many mm, x and y."""
        return replace(self, pixel=pixel)


def read_table(path: str | Path, space: str | None = None, ndim: int | None = None) -> PointTable:
    """Read a CSV with columns named R, A, S or L, P, S or x, y, z (2-D: the first two), or Slicer's `.fcsv`.

    Points have names where a column is named label, name, n or id, or the first has no name and holds whole numbers.

    Args:
        space: `"ras"` or `"lps"`, the space of x, y, z; ANTs' and ITK's are LPS. Files that name theirs need none.
        ndim: 2 reads three coordinates, of which the last is 0 throughout, as points of a plane.

    Raises:
        InputError: no such table, a space that is not named or named twice differently, or coordinates that are no
            finite numbers.
    """
    refuse_absent(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a table of points: {error}") from error
    read = _slicer if ends(path, ".fcsv") else _named
    head, named, titles, columns = read(text, path)
    known = agreed(named, space, path)
    if known is None:
        raise InputError(
            f"{path}: x, y, z of which space? Name it in the header (R,A,S or L,P,S), or pass --space lps (as ANTs "
            f"and ITK have them) or --space ras"
        )
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if n > len(head) and line.strip()]
    rows = [(n, next(csv.reader([line]))) for n, line in lines]
    if not rows:
        raise InputError(f"{path}: no points below the header")
    data = [[_number(row, column, n, path) for column in columns] for n, row in rows]
    if ndim == 2 and len(columns) == 3 and not any(point[2] for point in data):
        columns, data = columns[:2], [point[:2] for point in data]
    world = torch.tensor([data], dtype=torch.float64) * torch.tensor(SIGNS[known][: len(columns)], dtype=torch.float64)
    cells = tuple(tuple(row) for _, row in rows)
    known_of = known_of_each(_names(titles, cells), _cells(titles, "label", cells))
    return PointTable(Points(world, known_of), known, head, cells, columns)


def read_pixels(path: str | Path, pixel: tuple[float, float]) -> PointTable:
    """Read a table of x and y in pixels of a slide's finest level, from the middle of its first one, as of ANHIR.

    Args:
        path: the table.
        pixel: mm of a pixel, x and y.

    Raises:
        InputError: as of `read_table`, or points in 3-D.
    """
    table = read_table(path, "lps", 2)
    if len(table.columns) != 2:
        raise InputError(f"{path}: points in 3-D, and pixels of a slide have x and y alone")
    data = table.points.data * torch.tensor(pixel, dtype=torch.float64)
    return replace(table, points=replace(table.points, data=data), pixel=pixel)


def made_table(points: Points) -> PointTable:
    """Make a table of points that come from no file: `R,A,S`, after `label` and `name` where these are known.

    Of a batch the first cloud is taken.
    """
    label, name, data = points.label, points.name, points.data[:1].detach().cpu().double()
    known = ([] if label is None else [[str(n) for n in label[0].tolist()]]) + ([list(name)] if name else [])
    titles = ([] if label is None else ["label"]) + (["name"] if name else [])
    axes = "RAS"[: data.shape[2]]
    rows = tuple((*cells, *axes) for cells in zip(*known, strict=True)) if known else (tuple(axes),) * data.shape[1]
    columns = tuple(range(len(titles), len(titles) + len(axes)))
    return PointTable(replace(points, data=data), "ras", (",".join((*titles, *axes)),), rows, columns)


def known_of_each(names: tuple[str, ...], labels: Sequence[str]) -> dict[str, PointColumn]:
    """Return the columns of points with these names, and with labels where all these words are whole numbers."""
    known: dict[str, PointColumn] = {"name": names} if names else {}
    if labels and all(re.fullmatch(r"\s*[+-]?\d{1,18}\s*", label) for label in labels):
        known["label"] = torch.tensor([[int(label) for label in labels]])
    return known


def stripped(names: Iterable[str]) -> tuple[str, ...]:
    """Return names without spaces around them, or none where all are empty."""
    found = tuple(name.strip() for name in names)
    return found if any(found) else ()


def _cells(titles: Sequence[str], title: str, rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a column of text by its title, empty where a row ends before it; nothing where there is no such column."""
    column = titles.index(title) if title in titles else -1
    return [] if column < 0 else [row[column] if column < len(row) else "" for row in rows]


def _names(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return the names of points, from the first column that holds any; a column `label` of numbers comes last."""
    named = "name" in titles and "label" in known_of_each((), _cells(titles, "label", rows))
    for title in (*(NAMES if not named else ("name", *NAMES)), ""):
        if not title and titles[0]:
            continue
        found = stripped(_cells(titles, title, rows))
        if found and (title or all(re.fullmatch(r"[+-]?\d+", name) for name in found)):
            return found
    return ()


def agreed(named: str | None, space: str | None, path: str | Path) -> str | None:
    """Return the space that a file names, or `space`; None where neither is known.

    Raises:
        InputError: another than RAS and LPS, or two that differ.
    """
    said = space.lower() if space else None
    if said not in (None, *SIGNS):
        raise InputError(f"{path}: the space of points is ras or lps, not {space}")
    if named and said and named != said:
        raise InputError(f"{path}: the file says {named.upper()}, --space says {said}; leave --space out")
    return named or said


def write_table(table: PointTable, path: str | Path) -> None:
    """Write a table in the space of the file that was read, its other columns unchanged, as `.fcsv` or `.csv`.

    Raises:
        InputError: the name ends otherwise, or writing fails.
    """
    ending = ".fcsv" if table.head[0].startswith("#") else ".csv"
    if not ends(path, ending):
        raise InputError(f"{path}: points are written as they were read, here as {ending}")
    signs = torch.tensor(SIGNS[table.space][: len(table.columns)], dtype=torch.float64)
    if table.pixel is not None:
        signs = signs / torch.tensor(table.pixel, dtype=torch.float64)
    out = io.StringIO()
    out.writelines(f"{line}\n" for line in table.head)
    writer = csv.writer(out, lineterminator="\n")
    for row, point in zip(table.rows, (table.points.data[0].detach().cpu().double() * signs).tolist(), strict=True):
        cells = list(row)
        for column, value in zip(table.columns, point, strict=True):
            cells[column] = repr(value)
        writer.writerow(cells)
    with atomic_write(path) as temporary:
        temporary.write_text(out.getvalue(), encoding="utf-8")


def _named(text: str, path: str | Path) -> tuple[tuple[str, ...], str | None, list[str], tuple[int, ...]]:
    """Read a CSV's header line; return it, the space it names, its columns' names, and the places of coordinates."""
    first = text.split("\n", 1)[0].rstrip("\r")
    names = [name.strip().lower() for name in next(csv.reader([first]), [])]
    for letters in ("ras", "lps", "xyz", "ra", "lp", "xy"):
        if set(letters) <= set(names):
            if any(names.count(letter) > 1 for letter in letters):
                raise InputError(f"{path}: a column is named twice: {first}")
            space = {"r": "ras", "l": "lps"}.get(letters[0])
            return (first,), space, names, tuple(names.index(letter) for letter in letters)
    raise InputError(f"{path}: the first line names the columns; R,A,S or L,P,S (or x,y,z) expected, got: {first[:80]}")


def _slicer(text: str, path: str | Path) -> tuple[tuple[str, ...], str | None, list[str], tuple[int, ...]]:
    """Read Slicer's comments; return them, their space, their columns' names, and the places of coordinates."""
    lines = text.splitlines()
    head = tuple(lines[: next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))])
    said = {key.strip(" #").lower(): value.strip() for key, _, value in (line.partition("=") for line in head)}
    space = said.get("coordinatesystem")
    if not head or (space is not None and space.lower() not in SLICER):
        raise InputError(f"{path}: expected Slicer's markups with '# CoordinateSystem = LPS' (or RAS), got {space}")
    names = [name.strip() for name in said.get("columns", COLUMNS).split(",")]
    if not {"x", "y", "z"} <= set(names):
        raise InputError(f"{path}: no columns x, y and z among {', '.join(names)}")
    known = None if space is None else SLICER[space.lower()]
    return head, known, names, tuple(names.index(letter) for letter in "xyz")


def _number(row: list[str], column: int, line: int, path: str | Path) -> float:
    try:
        value = float(row[column])
    except (IndexError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{path}: line {line} has no finite number in column {column + 1}: {','.join(row)[:80]}")
    return value
