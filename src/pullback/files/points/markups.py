"""Control points of 3D Slicer's markups as JSON, `.mrk.json`: they move, all else stays as it was read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pullback.errors import InputError
from pullback.files.images.nifti import refuse_not_finite
from pullback.files.points.tables import SIGNS, PointTable, agreed, known_of_each, stripped
from pullback.files.suffixes import MARKUPS, ends, refuse_absent
from pullback.records.atomic import atomic_write
from pullback.space import Points

PLACED = ("Plane", "ROI")  # by a centre and axes too


def read_markups(path: str | Path, space: str | None = None) -> PointTable:
    """Read the control points that are set, of lists, lines and curves (Slicer's markups schema 1.0.3).

    Raises:
        InputError: no such file, planes or boxes, no points, other units than mm, or a space that is not its one.
    """
    refuse_absent(path)
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        lists = content["markups"]
        spaces = {markup.get("coordinateSystem", "LPS").lower() for markup in lists}
        stated = [markup.get("coordinateUnits", "mm") for markup in lists]
        units = {unit if isinstance(unit, str) else unit[0] for unit in stated}  # the name, or DICOM's term
        placed = [markup["type"] for markup in lists if markup["type"] in PLACED]
        controls = _controls(content)
        positions = np.array([control["position"] for control in controls], np.float64)
        labels, ids = (stripped(str(control.get(key, "")) for control in controls) for key in ("label", "id"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not Slicer's markups ({error!r}); save the points from Slicer anew") from error
    if placed or len(spaces) != 1 or not spaces <= {*SIGNS} or units != {"mm"}:
        raise InputError(
            f"{path}: points in mm of one space, LPS or RAS, are read, no {' or '.join(PLACED)}; here are "
            f"{', '.join(sorted({*placed, *spaces, *units}))}; save the points as a list of their own"
        )
    if positions.ndim != 2 or positions.shape[1] != 3:
        raise InputError(f"{path}: no control points with three coordinates; set them in Slicer")
    refuse_not_finite(positions, "coordinates", path)
    (named,) = spaces
    agreed(named, space, path)
    world = torch.from_numpy(positions) * torch.tensor(SIGNS[named], dtype=torch.float64)
    points = Points(world[None], known_of_each(labels or ids, labels))
    return PointTable(points, named, (json.dumps(content, indent=4),), (), (0, 1, 2))


def write_markups(table: PointTable, path: str | Path) -> None:
    """Write markups in the space of the file that was read; the axes of points are not rotated.

    Raises:
        InputError: the name ends otherwise, or writing fails.
    """
    if not ends(path, MARKUPS):
        raise InputError(f"{path}: points are written as they were read, here as {MARKUPS[0]}")
    content = json.loads(table.head[0])
    signs = torch.tensor(SIGNS[table.space], dtype=torch.float64)
    positions = (table.points.data[0].detach().cpu().double() * signs).tolist()
    for control, position in zip(_controls(content), positions, strict=True):
        control["position"] = position
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def _controls(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the control points whose position is defined."""
    every = [control for markup in content["markups"] for control in markup.get("controlPoints", [])]
    return [control for control in every if control.get("positionStatus", "defined") == "defined"]
