"""Points of files, pushed through transforms of files."""

from collections.abc import Sequence
from pathlib import Path

import torch

from pullback.files import PointTable, read_points, write
from pullback.space import Points, Transform, push
from pullback.workflows.applied import Applied, bracketed, refuse_unlike
from pullback.workflows.pixels import Pixels, doubt_of_pixels


def push_file(
    given: str | Path,
    transform: Transform,
    out: str | Path,
    space: str | None,
    way: str,
    pixels: Pixels | None = None,
    source: str | Path | None = None,
) -> Applied:
    """Push the points of a file and write them in its format; `way` says in words what they meet.

    Where they are in pixels, `pixels` says of which size, and `source` is the slide.

    Raises:
        InputError: a file that cannot be read or written, or points of other dimensions than the transform's.
    """
    thing = read_points(given, space, transform.ndim, None if pixels is None else pixels[0])
    refuse_unlike(given, thing.points.data.shape[-1], transform)
    with torch.no_grad():
        moved = push(thing.points, transform)
    answer = thing.moved(moved)
    write(answer.told_in(pixels[1]) if pixels is not None and isinstance(answer, PointTable) else answer, out)
    doubt = "" if pixels is None or source is None else doubt_of_pixels(thing.points, given, source)
    count, beyond = moved.data.shape[1], _beyond(thing.points, transform)
    return Applied(
        f"{out}: {count} points of {given}, pushed through {way}",
        f"{beyond} of {count} points of {given} lie outside the field of the transform; are they in mm, and of the "
        f"right --space?"
        if beyond
        else doubt,
    )


def way_of(read: Sequence[str], inverse: bool) -> str:
    """Name the transforms that points meet, in order."""
    steps = [(path, turned != inverse) for path, turned in map(bracketed, read)]
    named = [f"the inverse of {path}" if turned else path for path, turned in (steps[::-1] if inverse else steps)]
    return ", then ".join(named) or ("the inverse of the transform" if inverse else "the transform")


@torch.no_grad()
def _beyond(points: Points, transform: Transform) -> int:
    """Return the number of points that, on their way, are further than half a voxel outside the grid of a field."""
    _, inside = transform.followed(points.data.mT, margin=0.5)
    return int((~inside).sum())
