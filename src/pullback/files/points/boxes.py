"""Bounding boxes of labels in files: tables, and regions of interest of 3D Slicer."""

import csv
import io
import json
import math
import re
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pullback.errors import InputError
from pullback.files.points.tables import SIGNS, agreed
from pullback.files.suffixes import MARKUPS, ends, refuse_absent
from pullback.records.atomic import atomic_write
from pullback.space import Boxes

REGION = "ROI"
STRAIGHT = math.cos(math.radians(1.0))  # of the angle that a region may be turned by
Corners = dict[int, np.ndarray]
"""The two corners of each label's box in RAS mm, `(2, d)`."""


def read_boxes(*paths: str | Path, space: str | None = None) -> Boxes:
    """Read boxes of one image: a table, or regions of interest that Slicer saved (`.mrk.json`), of one file or several.

    A table has a column `label` and two for each axis, in mm: `r0, r1, a0, a1, s0, s1`, or `l0, l1, …` of LPS, or
    `x0, x1, y0, y1, z0, z1` of the space that is told; 2-D ones lack the last two. Slicer writes a file for each
    region. Its label is the whole number at the end of the region's name, or else of the name of the file:
    `liver_6.mrk.json`.

    Args:
        paths: of the files.
        space: `"ras"` or `"lps"`, for tables that do not name theirs.

    Raises:
        InputError: no such file, no boxes, none of whole labels, a label twice, numbers that are not finite, corners in
            the wrong order, regions that are no boxes or are turned.
    """
    found: Corners = {}
    for path in paths:
        refuse_absent(path)
        read = _regions(path, space) if ends(path, MARKUPS) else _table(path, space)
        twice = sorted(found.keys() & read.keys())
        if twice:
            raise InputError(f"{path}: the label {twice[0]} has a box in another file too; give each label one")
        found |= read
    sizes = {corners.shape[1] for corners in found.values()}
    if len(sizes) != 1:
        said = "no boxes" if not sizes else "boxes in 2-D and in 3-D"
        raise InputError(f"{', '.join(map(str, paths)) or 'no file'}: boxes of one image expected, got {said}")
    values = sorted(found)
    corners = torch.from_numpy(np.stack([found[value] for value in values], 1))[:, None]  # (2, 1, N, d)
    return Boxes(torch.tensor(values), corners[0], corners[1])


def write_boxes(boxes: Boxes, path: str | Path) -> None:
    """Write the boxes of one image as a table in RAS mm, those that it has.

    Raises:
        InputError: the name does not end in .csv, there are boxes of several images, or writing fails.
    """
    if not ends(path, ".csv") or boxes.batch != 1:
        raise InputError(f"{path}: boxes of one image are written as .csv; this is a batch of {boxes.batch}")
    letters, out = "ras"[: boxes.low.shape[2]], io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["label", *(f"{letter}{end}" for letter, end in product(letters, (0, 1)))])
    corners = torch.stack([boxes.low[0], boxes.high[0]], -1).flatten(1).cpu()
    for value, row in zip(boxes.values.tolist(), corners, strict=True):
        if row.isfinite().all():
            writer.writerow([value, *map(repr, row.tolist())])
    with atomic_write(path) as temporary:
        temporary.write_text(out.getvalue(), encoding="utf-8")


def _table(path: str | Path, space: str | None) -> Corners:
    """Read a table of boxes."""
    try:
        lines = [row for row in csv.reader(io.StringIO(Path(path).read_text(encoding="utf-8-sig"))) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a table of boxes: {error}") from error
    names = [name.strip().lower() for name in lines[0]] if lines else []
    known = [letters for letters in ("ras", "lps", "xyz", "ra", "lp", "xy") if {*_columns(letters)} <= {*names}]
    if not known or names.count("label") != 1:
        raise InputError(
            f"{path}: a table of boxes begins with label,r0,r1,a0,a1,s0,s1 (RAS mm), or l0,l1,p0,p1,s0,s1 (LPS), or "
            f"x0,x1,y0,y1,z0,z1; got {','.join(names)[:80]}"
        )
    named = agreed({"r": "ras", "l": "lps"}.get(known[0][0]), space, path)
    if named is None:
        raise InputError(f"{path}: x, y, z of which space? Name the columns r0,r1,a0,a1,s0,s1 or l0,l1,p0,p1,s0,s1")
    found: Corners = {}
    for number, row in enumerate(lines[1:], 2):
        where = f"{path}: line {number}"
        cells = dict(zip(names, row, strict=False))
        try:
            ends_of = [float(cells[column]) for column in _columns(known[0])]
        except (KeyError, ValueError) as error:
            raise InputError(f"{where}: a number in each column expected, got {','.join(row)[:80]}") from error
        corners = np.array(ends_of).reshape(-1, 2).T
        _add(found, cells["label"].strip(), corners, SIGNS[named], where)
    return found


def _columns(letters: str) -> list[str]:
    """Return the names of the columns of a space's axes."""
    return [f"{letter}{end}" for letter, end in product(letters, (0, 1))]


def _regions(path: str | Path, space: str | None) -> Corners:
    """Read Slicer's regions of interest (markups schema 1.0.3)."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        regions = [markup for markup in content["markups"] if markup["type"] == REGION]
        read = [(*_corners(region, path), region) for region in regions]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not Slicer's regions of interest ({error!r}); save them from Slicer anew") from error
    if len(read) != len(content["markups"]) or not read:
        raise InputError(f"{path}: regions of interest (ROI) alone expected; save points and planes elsewhere")
    found: Corners = {}
    for corners, signs, region in read:
        agreed("ras" if signs == SIGNS["ras"] else "lps", space, path)
        ending = re.search(r"(?:^|[^\d.])(\d+)$", str(region.get("name") or "").strip())
        if ending is None and len(read) == 1:
            ending = re.search(r"(?:^|[^\d.])(\d+)$", Path(path).name[: -len(MARKUPS[0])])
        if ending is None:
            raise InputError(
                f"{path}: which label has the region {region.get('name') or 'without a name'}? Let its name, or that "
                f"of the file, end with the label's number: liver_6.mrk.json"
            )
        _add(found, ending[1], corners, signs, str(path))
    return found


def _corners(region: Mapping[str, Any], path: str | Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """Return the corners of a region `(2, 3)` in its own space, and the signs of that in RAS."""
    unit, name = region.get("coordinateUnits", "mm"), region.get("coordinateSystem", "LPS").lower()
    turn = np.array(region.get("orientation", np.eye(3)), np.float64).reshape(3, 3)
    middle, size = (np.array(region[key], np.float64).reshape(3) for key in ("center", "size"))
    along = np.abs(turn).argmax(0)
    if (
        region.get("roiType", "Box") not in ("Box", "BoundingBox")
        or (unit if isinstance(unit, str) else unit[0]) != "mm"
    ):
        raise InputError(f"{path}: regions that are boxes, in mm, expected; make a box of it in Slicer")
    if name not in SIGNS or np.abs(turn).max(0).min() < STRAIGHT or len({*along.tolist()}) < 3:
        raise InputError(
            f"{path}: a region along the axes of LPS or RAS expected, and it is turned: reset its rotation in Slicer"
        )
    half = np.zeros(3)
    half[along] = size / 2
    return np.stack([middle - half, middle + half]), SIGNS[name]


def _add(found: Corners, label: str, corners: np.ndarray, signs: tuple[float, ...], where: str) -> None:
    """Add a box, in RAS mm, to others.

    Raises:
        InputError: no whole label above background, one that is there already, or corners that bound nothing.
    """
    if not re.fullmatch(r"\d{1,18}", label) or not int(label):
        raise InputError(f"{where}: a label is a whole number from 1, as in the label maps, got {label!r}")
    if int(label) in found:
        raise InputError(f"{where}: the label {label} has two boxes; give the one that holds all of it")
    if not np.isfinite(corners).all() or (corners[1] <= corners[0]).any():
        raise InputError(f"{where}: finite corners expected, the lower before the higher, got {corners.T.tolist()}")
    found[int(label)] = np.sort(corners * np.array(signs[: corners.shape[1]]), 0)
