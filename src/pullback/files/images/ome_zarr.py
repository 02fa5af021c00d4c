"""OME-Zarr, versions 0.4 and 0.5, by zarr."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pullback.errors import InputError
from pullback.files.images.levels import Pyramid, StoredLevel, library, unit

MILLIMETRES = {"nanometer": 1e-6, "micrometer": 1e-3, "millimeter": 1.0, "centimeter": 10.0, "meter": 1e3}
"""Of the units of space that UDUNITS-2 has; an ångström or an inch is refused by nobody, but told by no microscope."""


@dataclass(frozen=True)
class ZarrLevel(StoredLevel):
    """A level of a multiscale image.

    Attributes:
        path: the folder.
        name: of the array in it.
        axes: names of its axes.
        shape: rows and columns.
        coloured: whether its three channels are red, green and blue.
    """

    path: str | Path
    name: str
    axes: str
    shape: tuple[int, int]
    coloured: bool

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        part = {"y": slice(top, top + height), "x": slice(left, left + width), "c": slice(None)}
        array = library("zarr", self.path).open_group(str(self.path), mode="r")[self.name]
        values = np.asarray(array[tuple(part.get(axis, 0) for axis in self.axes)])
        if not self.coloured:
            return values.reshape(height, width)
        colours = np.moveaxis(values, [axis for axis in self.axes if axis in "cyx"].index("c"), -1)
        return colours if colours.dtype == np.uint8 else unit(colours)


def open_ome_zarr(path: str | Path) -> Pyramid:
    """Open the first multiscale image of a folder; three channels of bytes are red, green and blue.

    Raises:
        InputError: no OME-Zarr, a level that is missing, or times, sections or channels instead of one picture.
    """
    zarr = library("zarr", path)
    try:
        group = zarr.open_group(str(path), mode="r")
        told = dict(group.attrs)
        scales = told.get("ome", told)["multiscales"][0]
        axes = "".join(axis["name"] if isinstance(axis, Mapping) else axis for axis in scales["axes"])
        arrays = [group[each["path"]] for each in scales["datasets"]]
    except (KeyError, IndexError, TypeError, ValueError, OSError) as error:
        raise InputError(
            f"{path}: not an OME-Zarr image whose levels are all there ({error}); export it anew"
        ) from error
    count = _refuse_more(axes, arrays[0].shape, path)
    shapes = [tuple(array.shape[axes.index(axis)] for axis in "yx") for array in arrays]
    levels = tuple(
        ZarrLevel(path, each["path"], axes, (shape[0], shape[1]), count == 3)
        for each, shape in zip(scales["datasets"], shapes, strict=True)
    )
    sizes = [_placed(axes, each.get("coordinateTransformations", ()), scales) for each in scales["datasets"]]
    known = [one for one in sizes if one is not None]
    if len(known) < len(sizes):
        return Pyramid(levels)
    told_places = any(place != (0.0, 0.0) for _, place in known)
    return Pyramid(levels, known[0][0], tuple(known) if told_places else None)


def _refuse_more(axes: str, shape: Sequence[int], path: str | Path) -> int:
    """Return the number of channels, of which there may be one or three, in one picture."""
    sizes = dict(zip(axes, shape, strict=True))
    count = int(sizes.get("c", 1))
    deep = {axis: n for axis, n in sizes.items() if axis not in "yxc" and n > 1}
    if not {"y", "x"} <= sizes.keys() or deep or count not in (1, 3):
        said = ", ".join(f"{n} along {axis}" for axis, n in sizes.items())
        raise InputError(f"{path}: one picture, in colour or grey, is expected, got {said}; save one as its own")
    return count


def _placed(
    axes: str, steps: Sequence[Mapping[str, Any]], scales: Mapping[str, Any]
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Return mm of a pixel and the place of the first one, x and y; None where a unit is not told."""
    size, place = dict.fromkeys("xy", 1.0), dict.fromkeys("xy", 0.0)
    units = {
        axis["name"]: MILLIMETRES.get(axis.get("unit", "")) if isinstance(axis, Mapping) else None
        for axis in scales["axes"]
        if isinstance(axis, Mapping)
    }
    for step in (*steps, *scales.get("coordinateTransformations", ())):
        for axis in "xy":
            if step["type"] == "scale":
                factor = float(step["scale"][axes.index(axis)])
                size[axis], place[axis] = size[axis] * factor, place[axis] * factor
            elif step["type"] == "translation":
                place[axis] += float(step["translation"][axes.index(axis)])
    if any(units.get(axis) is None for axis in "xy"):
        return None
    x, y = float(units["x"] or 0), float(units["y"] or 0)
    return (size["x"] * x, size["y"] * y), (place["x"] * x, place["y"] * y)
