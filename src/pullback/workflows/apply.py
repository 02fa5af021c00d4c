"""Application of transform files to files: images are pulled, points are pushed, each resampled once."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import repeat
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
    read_scalar,
    read_series,
    write,
)
from pullback.files.images.nifti import exact, read_exact, refuse_other_names, refuse_sheared, refuse_wide
from pullback.files.images.series import StoredFrames
from pullback.files.images.slide import Slide, opens_as_slide
from pullback.files.images.write_slide import is_slide_name
from pullback.files.suffixes import POINTS
from pullback.records.atomic import refuse_unwritable
from pullback.space import (
    Grid,
    Image,
    Labels,
    Series,
    Transform,
    displacement_in_slabs,
    inverted,
    least_at_border,
    pull_in_slabs,
    pull_smooth_labels,
)
from pullback.workflows.applied import Applied, bracketed, refuse_unlike, size_of
from pullback.workflows.blending import blended
from pullback.workflows.outputs import refuse_overwrite
from pullback.workflows.pixels import pixels_of
from pullback.workflows.pushing import push_file, way_of
from pullback.workflows.slides import pull_slide

MODES = ("linear", "cubic", "nearest")
WIDEST = 2**31  # of whole numbers that are written


def read_in_order(names: Sequence[str], invert: bool = False) -> Transform:
    """Read transform files in the order of `antsApplyTransforms -t`: points of the reference meet the first one first.

    Args:
        names: of transform files; `[NAME,1]` is the inverse of one.
        invert: the inverse of all of them together.

    Raises:
        InputError: none, one that cannot be read, or dimensions that differ.
    """
    pieces, marks = zip(*(bracketed(name) for name in names), strict=True) if names else ((), ())
    transform = read_chain(pieces, marks)
    return inverted(transform) if invert else transform


def apply_files(
    given: str | Path,
    transform: Transform,
    out: str | Path,
    reference: str | Path | None = None,
    mode: str | None = None,
    labels: bool = False,
    space: str | None = None,
    outside: float | None = None,
    read: Sequence[str] = (),
    inverse: bool = False,
    spacing: float | None = None,
    source: str | Path | None = None,
) -> Applied:
    """Move the image or the points of a file and write them.

    An image is pulled onto the grid of `reference`, by `mode`, linear if there is none, with `outside` or the default
    of `pull` beyond it; of a 4-D one each frame. Labels stay integers, by nearest neighbours, or with the mode linear
    each by itself, of which the greatest wins. Nearest neighbours copy the file's own numbers, whole
    ones as such. What cannot be written is refused before anything is moved. Points and surfaces, known by the file's
    ending, are pushed; `space` is theirs, where the file does not say. So the transform that brings a moving image onto
    the fixed grid carries points of the fixed image to the moving one. `read` are the transform's files, and `inverse`
    says whether it is the inverse of them all, as in `read_in_order`: they are named in the account, and like all
    files that are read they are not overwritten.

    A picture or slide is written as `.png` or `.ome.tif`, in colour with glass around, part by part, on the finest
    level of a `reference` that is one, or on pixels of `spacing` mm. Annotations, and with `space` px tables, are in
    pixels of the slide `source`, and written in those of the slide `reference`.

    Raises:
        InputError: a file that cannot be read or written, one to write that is read, no reference for an image, an
            unknown mode, an argument for another kind of file, or dimensions that differ.
    """
    refuse_overwrite([out], [given, reference or given, *(bracketed(name)[0] for name in read)])
    refuse_unwritable(out)
    if mode not in (None, *MODES):
        raise InputError(f"-n {mode}: choose one of {', '.join(MODES)}")
    if is_points(given):
        idle = {f"-n {mode}": mode, "--outside": outside, "--labels": labels or None}
        refuse(idle | {"--spacing": spacing}, "points are pushed, and need none")
        pixels = pixels_of(given, space, source, reference)
        return push_file(given, transform, out, space, way_of(read, inverse), pixels, source)
    refuse({"--from": source}, "is whose pixels points are in, and this is an image")
    if reference is None:
        raise InputError(
            f"{given}: an image needs a grid to be resampled on; give the fixed image with -r (points are read from "
            f"{', '.join(POINTS)})"
        )
    refuse({"--space": space}, "is of points; an image says where it is")
    if is_slide_name(out):
        return pull_slide(
            given, transform, out, reference, mode or ("nearest" if labels else "linear"), outside, spacing
        )
    refuse({"--spacing": spacing}, "is of slides, which are written as .png or .ome.tif")
    refuse_other_names(out)
    if opens_as_slide(given) and Slide.open(given).coloured:
        raise InputError(
            f"{given}: voxels are colours, and NIfTI is of grey here; give an output called .png or .ome.tif"
        )
    if labels:
        refuse({"-n cubic": None if mode != "cubic" else mode}, "labels are nearest, or linear one by one")
        refuse({"--outside": outside}, "labels are 0 beyond their image")
    return _pull(given, transform, out, reference, labels, mode or ("nearest" if labels else "linear"), outside)


def _pull(
    given: str | Path,
    transform: Transform,
    out: str | Path,
    reference: str | Path,
    labels: bool,
    mode: str,
    outside: float | None,
) -> Applied:
    onto = read_grid(reference, transform.ndim)
    refuse_unlike(reference, onto.ndim, transform)
    refuse_sheared(onto, reference)
    thing = read_movable(given, labels, transform.ndim, mode)
    refuse_unlike(given, thing.grid.ndim, transform)
    smooth = labels and mode == "linear"
    if smooth and isinstance(thing, Labels):
        moved: Image | Labels | Series = pull_smooth_labels(thing, transform, onto)
    else:
        moved = _moved(thing, transform, onto, mode, 0 if labels else outside, given)
    write(moved, out, like=reference)
    by = "each linearly, the greatest wins" if smooth else "by nearest neighbours"
    how = f"labels, {by}" if labels else f"{mode} between voxels"
    frames = f"{len(thing)} frames of " if isinstance(thing, Series) else ""
    what = f"{out}: {frames}{given} on the grid of {reference}, {size_of(onto)}, {how}"
    value, most = _extremes(moved)
    if value < most or {value} == {*_extremes(thing)}:
        return Applied(what, blended(given, thing, mode))
    return Applied(
        what,
        f"{out} is {value:g} everywhere: nothing of {given} lies within the view of {reference}. Check "
        f"which image the transforms lead to (--invert) and their order",
    )


def _extremes(thing: Image | Labels | Series) -> tuple[float, float]:
    """Return the least and the largest value."""
    ends = [frame.data.aminmax() for frame in (thing if isinstance(thing, Series) else (thing,))]
    return min(float(end.min) for end in ends), max(float(end.max) for end in ends)


def read_movable(given: str | Path, labels: bool, ndim: int, mode: str) -> Image | Labels | Series:
    """Read what is to be moved, and refuse what could not be written.

    Raises:
        InputError: it cannot be read, or numbers that are wider than those of files.
    """
    if not labels and is_series(given):
        series = read_series(given, ndim)
        if mode == "nearest":
            for frame in _whole_frames(series, given):
                refuse_wide(frame, given)
        return series
    thing: Image | Labels
    if labels:
        thing = read_labels(given, ndim=ndim)
    else:
        thing = read_exact(given, ndim) if mode == "nearest" else read_scalar(given, ndim)
    refuse_wide(thing, given)
    return thing


def _whole_frames(series: Series, given: str | Path) -> Iterator[Image | Labels]:
    """Yield frames with the file's own numbers."""
    frames = series.frames
    return (
        (exact(frames.data[..., n], series.grid, given) for n in range(len(frames)))
        if isinstance(frames, StoredFrames)
        else iter(frames)
    )


def _moved(
    thing: Image | Labels | Series,
    transform: Transform,
    onto: Grid,
    mode: str,
    outside: float | None,
    given: str | Path,
) -> Image | Labels | Series:
    if isinstance(thing, Series):
        return _each(thing, transform, onto, mode, outside, given)
    thing, outside = _with_beyond(thing, outside)
    return pull_in_slabs(thing, transform, onto, mode, outside)


def _each(
    series: Series, transform: Transform, onto: Grid, mode: str, outside: float | None, given: str | Path
) -> Series:
    """Pull every frame, by a transform that is evaluated once."""
    there = transform.as_affine or displacement_in_slabs(transform, onto)
    frames = frames_of(series, mode, given)
    return replace(series, frames=in_frames(zip(frames, repeat(there)), len(series), onto, mode, outside), grid=onto)


def frames_of(series: Series, mode: str, given: str | Path) -> Iterable[Image | Labels]:
    """Return the frames as `mode` wants them: by nearest neighbours with the file's own numbers."""
    return _whole_frames(series, given) if mode == "nearest" else series


def in_frames(
    seen: Iterable[tuple[Image | Labels, Transform]], count: int, onto: Grid, mode: str, outside: float | None
) -> StoredFrames:
    """Return `count` images or labels as frames on `onto`, each pulled through its transform."""
    values: np.ndarray | None = None
    for n, (frame, there) in enumerate(seen):
        thing, beyond = _with_beyond(frame, outside)
        data = pull_in_slabs(thing, there, onto, mode, beyond).data[0, 0].numpy()
        kept = data.dtype if values is None else np.promote_types(values.dtype, data.dtype)
        if values is None:
            values = np.empty((*onto.shape, count), kept)
        elif values.dtype != kept:  # of a frame whose value beyond needs a wider type
            values = values.astype(kept)
        values[..., n] = data
    assert values is not None
    return StoredFrames(values, onto)


def _with_beyond(thing: Image | Labels, outside: float | None) -> tuple[Image | Labels, float | None]:
    """Return whole numbers in a type that holds the value beyond their image too, and that value."""
    if isinstance(thing, Image):
        return thing, outside
    value = float(least_at_border(thing.data)) if outside is None else float(outside)
    if not value.is_integer() or abs(value) > WIDEST:
        return Image(thing.data.double(), thing.grid), value
    held = torch.iinfo(thing.data.dtype)
    return (thing if held.min <= value <= held.max else replace(thing, data=thing.data.long())), value
