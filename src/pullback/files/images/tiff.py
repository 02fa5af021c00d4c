"""TIFF and what is built on it (OME-TIFF, SVS, NDPI, SCN, QPTIFF), by tifffile and imagecodecs."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pullback.errors import InputError
from pullback.files.images.levels import (
    Pyramid,
    StoredLevel,
    from_inks,
    from_ycbcr,
    library,
    over_white,
    unit,
)

JPEGS = {6, 7, 33003, 33005, 34712, 33007, 34892}  # compressions whose decoders answer with red, green and blue
MICROMETRES = {"nm": 1e-3, "µm": 1.0, "um": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0, "mm": 1e3, "cm": 1e4}
"""Also the micro sign as a Greek letter."""
PRINTED = 25.0
"""Micrometres: pixels that a resolution per inch or centimetre makes larger are those of a print."""
CREATOR = "pullback"
"""As which we name ourselves in what we write."""
ASIDE = ("label", "macro", "thumbnail", "overview")
REFUSED = (OSError, ValueError, TypeError, KeyError, IndexError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class TiffLevel(StoredLevel):
    """A level of a series of pages.

    Attributes:
        path: the file, opened for each part.
        number: of the series, and of the level in it.
        shape: rows and columns.
        coloured: whether pixels have colours.
    """

    path: str | Path
    number: tuple[int, int]
    shape: tuple[int, int]
    coloured: bool

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Return a part of the level.

        Raises:
            InputError: the pixels cannot be decoded.
        """
        tifffile = library("tifffile", self.path)
        part = {"Y": slice(top, top + height), "X": slice(left, left + width)}
        try:
            with tifffile.TiffFile(self.path) as file:
                level = file.series[self.number[0]].levels[self.number[1]]
                axes, page = level.axes, level.keyframe
                if (height, width) == self.shape:
                    values = np.asarray(level.asarray())
                else:
                    opened = library("zarr", self.path).open(level.aszarr(multiscales=False), mode="r")
                    values = np.asarray(opened[tuple(part.get(axis, slice(None)) for axis in axes)])
                return _pixels(values, axes, page)
        except REFUSED as error:
            raise InputError(f"{self.path}: the pixels cannot be decoded ({error}); copy or export it anew") from error


def opens_as_tiff(path: str | Path) -> bool:
    """Return whether tifffile finds pages in a file."""
    tifffile = library("tifffile", path)
    try:
        with tifffile.TiffFile(path) as file:
            return len(file.pages) > 0
    except (*REFUSED, tifffile.TiffFileError):
        return False


def open_tiff(path: str | Path, deep: bool = False) -> Pyramid:
    """Open the largest picture in a file, with all its levels; `deep` allows for several sections behind each other.

    Raises:
        InputError: no TIFF, a volume, times or channels instead of one picture, or no picture that can be read.
    """
    tifffile = library("tifffile", path)
    try:
        with tifffile.TiffFile(path) as file:
            number, series = _slide_of(file)
            page = series.keyframe
            coloured = _is_coloured(page)
            if not deep:
                _refuse_more(series, coloured, path)
            levels = tuple(
                TiffLevel(path, (number, n), _rows_columns(level), coloured) for n, level in enumerate(series.levels)
            )
            spacing, origin = _spacing(file, number, series), _origin(file)
    except (*REFUSED, tifffile.TiffFileError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a readable TIFF ({error}); copy or export it anew") from error
    return Pyramid(levels, spacing, origin=origin)


def is_of_bits(path: str | Path) -> bool:
    """Return whether pixels of a TIFF are one bit each."""
    with library("tifffile", path).TiffFile(path) as file:
        return file.pages.first.bitspersample == 1


def pages_of(path: str | Path) -> int:
    """Return how many sections lie behind each other in a TIFF; 1 of a picture.

    Raises:
        InputError: no TIFF.
    """
    tifffile = library("tifffile", path)
    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            deep = [n for axis, n in zip(series.axes, series.shape, strict=True) if axis not in "YXS"]
            return int(np.prod(deep, dtype=int))
    except (*REFUSED, tifffile.TiffFileError) as error:
        raise InputError(f"{path}: not a readable TIFF ({error}); copy or export it anew") from error


def read_page(path: str | Path, number: int) -> np.ndarray:
    """Return one of the sections that lie behind each other in a TIFF, rows and columns.

    Raises:
        InputError: it cannot be decoded, or is not one grey picture.
    """
    tifffile = library("tifffile", path)
    try:
        with tifffile.TiffFile(path) as file:
            page = file.series[0].pages[number]
            values = _pixels(np.asarray(page.asarray()), page.axes, page.keyframe)
    except (*REFUSED, tifffile.TiffFileError) as error:
        raise InputError(f"{path}: page {number + 1} cannot be decoded ({error}); copy or export it anew") from error
    if values.ndim != 2:
        raise InputError(f"{path}: page {number + 1} is not one grey picture; save the sections in grey")
    return values


def _slide_of(file: Any) -> tuple[int, Any]:
    """Return the largest series, with its number, of those that are not called a label, macro or thumbnail."""
    every = [*enumerate(file.series)]
    if not every:
        raise ValueError("it has no pages")
    named = [one for one in every if not any(word in str(one[1].name).lower() for word in ASIDE)]
    return max(named or every, key=lambda one: int(np.prod(_rows_columns(one[1]))))


def _rows_columns(series: Any) -> tuple[int, int]:
    sizes = dict(zip(series.axes, series.shape, strict=True))
    if "Y" not in sizes or "X" not in sizes:
        raise ValueError(f"it has axes {series.axes}, and rows and columns are expected")
    return int(sizes["Y"]), int(sizes["X"])


def _is_coloured(page: Any) -> bool:
    return int(page.photometric) in (2, 3, 5, 6) or page.samplesperpixel in (3, 4)


def _refuse_more(series: Any, coloured: bool, path: str | Path) -> None:
    """Refuse a file of several pictures in one, with what to do."""
    deep = {axis: n for axis, n in zip(series.axes, series.shape, strict=True) if axis not in "YXS" and n > 1}
    if not coloured and series.keyframe.samplesperpixel > 1:
        deep["C"] = series.keyframe.samplesperpixel
    if deep:
        said = ", ".join(f"{n} along {axis}" for axis, n in deep.items())
        raise InputError(
            f"{path}: holds several pictures ({said}: times, channels or sections), and one is expected; save one of "
            f"them as a file of its own. Sections are taken by commands that read stacks"
        )


def _pixels(values: np.ndarray, axes: str, page: Any) -> np.ndarray:
    """Return rows and columns, and behind them red, green and blue where there are colours."""
    kept = [n for n, axis in enumerate(axes) if axis not in "YXS"]
    values, axes = np.squeeze(values, tuple(kept)), "".join(axis for axis in axes if axis in "YXS")
    values = np.transpose(values, [axes.index(axis) for axis in "YXS" if axis in axes])
    how = int(page.photometric)
    if how == 3:
        table = np.asarray(page.colormap).T  # (2ⁿ, 3) of 16 bits
        return (table[values] >> 8).astype(np.uint8)
    if how == 0 and values.dtype.kind in "bu":
        values = ~values if values.dtype.kind == "b" else np.iinfo(values.dtype).max - values
    if values.ndim == 2:
        return values.astype(np.uint8) if values.dtype.kind == "b" else values
    if how == 5:
        return from_inks(values[..., :4])
    if how == 6 and int(page.compression) not in JPEGS:
        return from_ycbcr(values[..., :3])
    if values.shape[-1] == 4:
        return over_white(values, bool(page.extrasamples) and int(page.extrasamples[0]) == 1)
    return values[..., :3] if values.dtype == np.uint8 else unit(values[..., :3])


# ---- the size of a pixel


def _spacing(file: Any, number: int, series: Any) -> tuple[float, float] | None:
    """Return mm of a pixel of the finest level along x and y, or None where nothing tells."""
    found = _of_ome(file, number) or _of_aperio(series) or _of_imagej(file, series) or _of_resolution(series)
    return None if found is None else (found[0] / 1000, found[1] / 1000)


def _of_ome(file: Any, number: int) -> tuple[float, float] | None:
    if not file.is_ome:
        return None
    images = re.split(r"<Image\b", file.ome_metadata or "")[1:]
    said = images[number] if number < len(images) else (file.ome_metadata or "")
    sizes = []
    for axis in "XY":
        size = re.search(rf'PhysicalSize{axis}="([^"]+)"', said)
        named = re.search(rf'PhysicalSize{axis}Unit="([^"]+)"', said)
        scale = MICROMETRES.get(named[1].strip() if named else "µm")
        if size is None or scale is None or not _is_size(float(size[1]) * scale):
            return None
        sizes.append(float(size[1]) * scale)
    return sizes[0], sizes[1]


def _origin(file: Any) -> tuple[float, float]:
    """Return where the first pixel of a file lies that was written here, in mm; stages of microscopes are no place."""
    said = file.ome_metadata or "" if file.is_ome else ""
    places = [re.search(rf'Position{axis}="([^"]+)"', said) for axis in "XY"]
    if CREATOR not in said or places[0] is None or places[1] is None:
        return 0.0, 0.0
    return float(places[0][1]) / 1000, float(places[1][1]) / 1000


def _of_aperio(series: Any) -> tuple[float, float] | None:
    told = re.search(r"\bMPP\s*=\s*([0-9.eE+-]+)", str(series.keyframe.description))
    return (float(told[1]),) * 2 if told and _is_size(float(told[1])) else None


def _of_imagej(file: Any, series: Any) -> tuple[float, float] | None:
    told = (file.imagej_metadata or {}).get("unit", "") if file.is_imagej else ""
    scale = MICROMETRES.get(str(told).replace("\\u00B5", "µ").strip())
    sizes = None if scale is None else _per_pixel(series.keyframe, scale)
    return sizes if sizes is not None and all(map(_is_size, sizes)) else None


def _of_resolution(series: Any) -> tuple[float, float] | None:
    scale = {2: 25400.0, 3: 10000.0}.get(_tag(series.keyframe, "ResolutionUnit"))
    sizes = None if scale is None else _per_pixel(series.keyframe, scale)
    return sizes if sizes is not None and all(_is_size(size) and size <= PRINTED for size in sizes) else None


def _per_pixel(page: Any, scale: float) -> tuple[float, float] | None:
    """Return the lengths of a pixel from the number of pixels in a unit of `scale` micrometres."""
    ratios = [_tag(page, name) for name in ("XResolution", "YResolution")]
    if any(not isinstance(ratio, tuple) or not ratio[0] or not ratio[1] for ratio in ratios):
        return None
    return scale * ratios[0][1] / ratios[0][0], scale * ratios[1][1] / ratios[1][0]


def _tag(page: Any, name: str) -> Any:
    tag = page.tags.get(name)
    return None if tag is None else tag.value


def _is_size(micrometres: float) -> bool:
    return 0 < micrometres < float("inf")
