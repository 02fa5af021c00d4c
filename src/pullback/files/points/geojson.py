"""Annotations of QuPath as GeoJSON: points, lines and polygons in pixels of a slide, of which all vertices move."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pullback.errors import InputError
from pullback.files.images.nifti import refuse_not_finite
from pullback.files.points.tables import PointTable, known_of_each
from pullback.files.suffixes import GEOJSON, ends, refuse_absent
from pullback.records.atomic import atomic_write
from pullback.space import Points

SHAPES = ("geometry", "nucleusGeometry")  # of a feature; the second of a cell's nucleus
CORNER = 0.5
"""Pixels: coordinates begin at the corner of the first pixel, whose middle is the origin of the slide's world."""


def read_geojson(path: str | Path, pixel: tuple[float, float]) -> PointTable:
    """Read the vertices of all annotations, in their order; those of points alone have the names that they are given.

    Args:
        path: the file; a collection of features, a list of them, or one.
        pixel: mm of a pixel of the slide's finest level, x and y.

    Raises:
        InputError: no GeoJSON with coordinates.
    """
    refuse_absent(path)
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        found = [*_positions(content)]
        flat = np.array([position[:2] for _, position in found], np.float64)
        kinds = {feature["geometry"]["type"] for feature in _features(content)}
        names = tuple(str((feature.get("properties") or {}).get("name") or "") for feature, _ in found)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not GeoJSON of annotations ({error!r}); export them from QuPath anew") from error
    if flat.ndim != 2 or flat.shape[1] != 2:
        raise InputError(f"{path}: no annotation with coordinates x and y; draw one first")
    refuse_not_finite(flat, "coordinates", path)
    named = known_of_each(names if kinds == {"Point"} and any(names) else (), ())
    world = torch.from_numpy(-(flat - CORNER) * pixel)
    return PointTable(Points(world[None], named), "lps", (json.dumps(content),), (), (0, 1), pixel)


def write_geojson(table: PointTable, path: str | Path) -> None:
    """Write the annotations that were read with their vertices where the points are, in pixels of `table.pixel`.

    Raises:
        InputError: the name ends otherwise, or writing fails.
    """
    if not ends(path, GEOJSON):
        raise InputError(f"{path}: points are written as they were read, here as {GEOJSON[0]}")
    content = json.loads(table.head[0])
    where = -table.points.data[0].detach().cpu().double().numpy() / np.array(table.pixel or (1.0, 1.0)) + CORNER
    for (_, position), point in zip(_positions(content), where.tolist(), strict=True):
        position[:2] = point
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _features(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, Mapping) and "features" in content:
        return list(content["features"])
    return list(content) if isinstance(content, list) else [dict(content)]


def _positions(content: Any) -> Iterator[tuple[dict[str, Any], list[float]]]:
    """Yield each feature and position `[x, y]` in it, in order; the position is the one in `content`."""
    for feature in _features(content):
        for shape in SHAPES:
            if feature.get(shape) is not None:
                for position in _vertices(feature[shape]):
                    yield feature, position


def _vertices(geometry: dict[str, Any]) -> Iterator[list[float]]:
    if "geometries" in geometry:
        for each in geometry["geometries"]:
            yield from _vertices(each)
        return
    yield from _leaves(geometry["coordinates"])


def _leaves(coordinates: list[Any]) -> Iterator[list[Any]]:
    if coordinates and not isinstance(coordinates[0], list):
        yield coordinates
        return
    for each in coordinates:
        yield from _leaves(each)
