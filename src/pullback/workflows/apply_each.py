"""Application of a folder of transforms: one image through each of them, or each frame of a series through its own."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from pathlib import Path

import torch

from pullback.errors import InputError, refuse
from pullback.files import is_points, read_grid, read_transforms, write
from pullback.files.images.nifti import refuse_other_names, refuse_sheared
from pullback.records.atomic import refuse_unwritable
from pullback.space import Image, Labels, Series, Transform
from pullback.workflows.applied import Applied, bracketed, refuse_unlike, size_of
from pullback.workflows.apply import MODES, frames_of, in_frames, read_in_order, read_movable
from pullback.workflows.outputs import refuse_overwrite


def folder_in(names: Sequence[str]) -> int | None:
    """Return which of the names of transforms, as in `read_in_order`, is a folder; None where all are files.

    Raises:
        InputError: several are folders.
    """
    found = [n for n, name in enumerate(names) if Path(bracketed(name)[0]).is_dir()]
    if len(found) > 1:
        raise InputError(f"-t {names[found[1]]}: one folder of transforms at most; {names[found[0]]} is one already")
    return found[0] if found else None


def apply_each(
    given: str | Path,
    names: Sequence[str],
    out: str | Path,
    reference: str | Path | None = None,
    mode: str | None = None,
    labels: bool = False,
    outside: float | None = None,
    invert: bool = False,
) -> Applied:
    """Move an image by each transform of a folder, or each frame of a series by its own, and write the frames.

    Args:
        given: an image, which is seen through each of the transforms in the order of the numbers in their names, or a
            4-D one, whose frames are as many.
        names: of transforms as in `read_in_order`, of which one is a folder.
        out: a 4-D image to write, on the grid of `reference`.
        reference: an image.
        mode, labels, outside: as in `apply_files`; labels are nearest.
        invert: each of the compositions is inverted.

    Raises:
        InputError: a file that cannot be read or written, points, no reference, an unknown mode, another number of
            frames than of transforms, or dimensions that differ.
    """
    at = folder_in(names)
    folder, turned = bracketed(names[at or 0])
    paths = read_transforms(folder).paths
    read = [bracketed(name)[0] for name in names if name != names[at or 0]]
    refuse_overwrite([out], [given, reference or given, *read, *paths.values()])
    refuse_unwritable(out)
    if is_points(given):
        raise InputError(f"{given}: points go through one transform; name a file of {folder}")
    if reference is None:
        raise InputError(f"{given}: an image needs a grid to be resampled on; give the fixed image with -r")
    if mode not in (None, *MODES):
        raise InputError(f"-n {mode}: choose one of {', '.join(MODES)}")
    refuse({f"-n {mode}": None if mode in (None, "nearest") else labels or None}, "labels of frames are nearest")
    refuse_other_names(out)
    mode = mode or ("nearest" if labels else "linear")

    def each() -> Iterator[Transform]:
        for path in paths.values():
            one = f"[{path},1]" if turned else str(path)
            yield read_in_order([one if n == at else name for n, name in enumerate(names)], invert)

    first = next(each())
    onto = read_grid(reference, first.ndim)
    refuse_unlike(reference, onto.ndim, first)
    refuse_sheared(onto, reference)
    thing = read_movable(given, labels, first.ndim, mode)
    refuse_unlike(given, thing.grid.ndim, first)
    frames: Iterable[Image | Labels] = repeat(thing) if not isinstance(thing, Series) else frames_of(thing, mode, given)
    if isinstance(thing, Series) and len(thing) != len(paths):
        raise InputError(
            f"{given}: {len(thing)} frames, and {len(paths)} transforms in {folder}; each frame goes through its own, "
            f"or one image through all"
        )
    moved = in_frames(zip(frames, each(), strict=False), len(paths), onto, mode, 0 if labels else outside)
    times = thing.times if isinstance(thing, Series) else torch.arange(len(paths), dtype=torch.float64)
    write(Series(moved, onto, times, thing.unit if isinstance(thing, Series) else ""), out, like=reference)
    what = "its own of" if isinstance(thing, Series) else "each of"
    return Applied(
        f"{out}: {len(paths)} frames, {given} through {what} {len(paths)} transforms of {folder}, on the grid of "
        f"{reference}, {size_of(onto)}, {mode} between voxels"
    )
