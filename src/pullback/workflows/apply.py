"""Application of transform files to files: images are pulled, points are pushed, each resampled once."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pullback.errors import InputError, refuse
from pullback.files import (
    is_points,
    is_series,
    read_chain,
    read_grid,
    read_labels,
    read_points,
    read_scalar,
    read_series,
    write,
)
from pullback.files.images.series import StoredFrames
from pullback.files.suffixes import POINTS
from pullback.space import Displacement, Grid, Image, Labels, Points, Series, Transform, inverted, pull, push
from pullback.workflows.outputs import refuse_overwrite

MODES = ("linear", "cubic", "nearest")
FEW = 64  # whole numbers: an image with no more of them is likely one of labels


@dataclass(frozen=True)
class Applied:
    """The account of an application: what was done, in words, and what may be wrong with it (empty: nothing)."""

    what: str
    doubt: str = ""


def read_transforms(names: Sequence[str], invert: bool = False) -> Transform:
    """Read transform files in the order of `antsApplyTransforms -t`: points of the reference meet the first one first.

    Args:
        names: of transform files; `[NAME,1]` is the inverse of one.
        invert: the inverse of all of them together.

    Raises:
        InputError: none, one that cannot be read, or dimensions that differ.
    """
    pieces, marks = zip(*(_bracketed(name) for name in names), strict=True) if names else ((), ())
    transform = read_chain(pieces, marks)
    return inverted(transform) if invert else transform


def apply_files(
    given: str | Path,
    transform: Transform,
    out: str | Path,
    reference: str | Path | None = None,
    mode: str = "linear",
    labels: bool = False,
    space: str | None = None,
    outside: float | None = None,
    read: Sequence[str] = (),
    inverse: bool = False,
) -> Applied:
    """Move the image or the points of a file and write them.

    An image is pulled onto the grid of `reference`, by `mode`, with `outside` or the default of `pull` beyond it; of a
    4-D one each frame; labels by nearest neighbours, as integers. Points and surfaces, known by the file's ending, are
    pushed; `space` is theirs, where the file does not say. So the transform that brings a moving image onto the fixed
    grid carries points of the fixed image to the moving one. `read` are the transform's files, and `inverse` says
    whether it is the inverse of them all, as in `read_transforms`: they are named in the account, and like all files
    that are read they are not overwritten.

    Raises:
        InputError: a file that cannot be read or written, one to write that is read, no reference for an image, an
            unknown mode, an argument for another kind of file, or dimensions that differ.
    """
    refuse_overwrite([out], [given, reference or given, *(_bracketed(name)[0] for name in read)])
    if mode not in MODES:
        raise InputError(f"-n {mode}: choose one of {', '.join(MODES)}")
    if is_points(given):
        idle = {f"-n {mode}": None if mode == "linear" else mode, "--outside": outside, "--labels": labels or None}
        refuse(idle, "points are pushed, and need none")
        return _push(given, transform, out, space, _way(read, inverse))
    if reference is None:
        raise InputError(
            f"{given}: an image needs a grid to be resampled on; give the fixed image with -r (points are read from "
            f"{', '.join(POINTS)})"
        )
    refuse({"--space": space}, "is of points; an image says where it is")
    if labels:
        refuse({"-n cubic": None if mode != "cubic" else mode}, "labels come from the nearest voxel")
        refuse({"--outside": outside}, "labels are 0 beyond their image")
    return _pull(given, transform, out, reference, labels, mode, outside)


def _push(given: str | Path, transform: Transform, out: str | Path, space: str | None, way: str) -> Applied:
    thing = read_points(given, space, transform.ndim)
    _alike(given, thing.points.data.shape[-1], transform)
    with torch.no_grad():
        moved = push(thing.points, transform)
    write(thing.moved(moved), out)
    count, beyond = moved.data.shape[1], _beyond(thing.points, transform)
    return Applied(
        f"{out}: {count} points of {given}, pushed through {way}",
        f"{beyond} of {count} points of {given} lie outside the field of the transform; are they in mm, and of the "
        f"right --space?"
        if beyond
        else "",
    )


def _way(read: Sequence[str], inverse: bool) -> str:
    """Name the transforms that points meet, in order."""
    steps = [(path, turned != inverse) for path, turned in map(_bracketed, read)]
    named = [f"the inverse of {path}" if turned else path for path, turned in (steps[::-1] if inverse else steps)]
    return ", then ".join(named) or ("the inverse of the transform" if inverse else "the transform")


@torch.no_grad()
def _beyond(points: Points, transform: Transform) -> int:
    """Return the number of points that, on their way, are further than half a voxel outside the grid of a field."""
    _, inside = transform.followed(points.data.mT, margin=0.5)
    return int((~inside).sum())


def _pull(
    given: str | Path,
    transform: Transform,
    out: str | Path,
    reference: str | Path,
    labels: bool,
    mode: str,
    outside: float | None,
) -> Applied:
    thing = _read(given, labels, transform.ndim)
    onto = read_grid(reference, transform.ndim)
    _alike(given, thing.grid.ndim, transform)
    _alike(reference, onto.ndim, transform)
    with torch.no_grad():
        moved = _moved(thing, transform, onto, mode, outside)
    write(moved, out, like=reference)
    how = "labels, by nearest neighbours" if labels else f"{mode} between voxels"
    frames = f"{len(thing)} frames of " if isinstance(thing, Series) else ""
    what = f"{out}: {frames}{given} on the grid of {reference}, {_size(onto)}, {how}"
    value, most = _extremes(moved)
    if value < most or {value} == {*_extremes(thing)}:
        return Applied(what, _blended(given, thing, mode))
    return Applied(
        what,
        f"{out} is {value:g} everywhere: nothing of {given} lies within the view of {reference}. Check "
        f"which image the transforms lead to (--invert) and their order",
    )


def _extremes(thing: Image | Labels | Series) -> tuple[float, float]:
    """Return the least and the largest value."""
    ends = [frame.data.aminmax() for frame in (thing if isinstance(thing, Series) else (thing,))]
    return min(float(end.min) for end in ends), max(float(end.max) for end in ends)


def _blended(given: str | Path, thing: Image | Labels | Series, mode: str) -> str:
    """Say what is wrong with interpolation, where an image holds few numbers and all of them whole; else return "".

    Of a large image a million voxels are looked at.
    """
    if mode == "nearest" or isinstance(thing, Labels):
        return ""
    frames, count = (thing, len(thing)) if isinstance(thing, Series) else ((thing,), 1)
    every = 1 + count * math.prod(thing.grid.shape) // 1_000_000
    few = torch.cat([frame.data.flatten()[::every] for frame in frames]).unique()
    if not 1 < len(few) <= FEW or bool((few != few.round()).any()):
        return ""
    remedy = "-n nearest" if isinstance(thing, Series) else "--labels"
    return (
        f"{given} holds {len(few)} different whole numbers, as labels do, and -n {mode} blends them; if they are "
        f"labels, say {remedy}"
    )


def _read(given: str | Path, labels: bool, ndim: int) -> Image | Labels | Series:
    if labels:
        return read_labels(given, ndim=ndim)
    return read_series(given, ndim) if is_series(given) else read_scalar(given, ndim)


def _moved(
    thing: Image | Labels | Series, transform: Transform, onto: Grid, mode: str, outside: float | None
) -> Image | Labels | Series:
    if isinstance(thing, Labels):
        return pull(thing, transform, onto)
    if isinstance(thing, Image):
        return pull(thing, transform, onto, mode, outside)
    return _each(thing, transform, onto, mode, outside)


def _each(series: Series, transform: Transform, onto: Grid, mode: str, outside: float | None) -> Series:
    """Pull every frame, by a transform that is evaluated once."""
    there = Displacement(transform.displacement(onto), onto)
    values = np.empty((*onto.shape, len(series)), np.float32)
    for n, frame in enumerate(series):
        values[..., n] = pull(frame, there, onto, mode, outside).data[0, 0].numpy()
    return replace(series, frames=StoredFrames(values, onto), grid=onto)


def _alike(path: str | Path, ndim: int, transform: Transform) -> None:
    if ndim != transform.ndim:
        raise InputError(
            f"{path}: is {ndim}-D, and the transform moves points in {transform.ndim} dimensions; give files "
            f"that are alike"
        )


def _bracketed(name: str) -> tuple[str, bool]:
    """Parse `NAME`, `[NAME,0]` or `[NAME,1]` into the file and whether it is inverted."""
    if not name.startswith("["):
        return name, False
    found = re.fullmatch(r"\[([^,]+?)\s*(?:,\s*([01])\s*)?\]", name)
    if found is None:
        raise InputError(f"-t {name}: NAME, or [NAME,1] for its inverse, is expected")
    return found.group(1), found.group(2) == "1"


def _size(grid: Grid) -> str:
    return " × ".join(map(str, grid.shape))
