"""Points in pixels of a slide: of which one, and whether they can be that."""

import math
from pathlib import Path

from pullback.errors import InputError, refuse
from pullback.files.images.slide import Slide, pixel_of
from pullback.files.points.formats import PIXELS
from pullback.files.suffixes import GEOJSON, ends
from pullback.space import Points

Pixels = tuple[tuple[float, float], tuple[float, float]]
"""Mm of a pixel of the slide that points are given in, and of the one that they are written in."""
BEYOND = 0.02
"""Share of a slide's size that a point may lie beyond it: annotations are drawn by hand."""
FEW = 4
"""Points of which nobody can say that they all lie in a corner."""


def in_pixels(points: str | Path | None, space: str | None) -> bool:
    """Return whether points of a file are in pixels: annotations, or a table with the space px."""
    return points is not None and (ends(points, GEOJSON) or space == PIXELS)


def pixels_of(
    given: str | Path, space: str | None, source: str | Path | None, reference: str | Path | None
) -> Pixels | None:
    """Return the pixels that points are in, where they are in pixels.

    Raises:
        InputError: they are, and one of the two slides is not named; or they are not, and `source` is.
    """
    if not in_pixels(given, space):
        refuse({"--from": source}, "is whose pixels points are in; these are in mm")
        return None
    if source is None or reference is None:
        raise InputError(
            f"{given}: is in pixels of a slide; name it by --from SLIDE, and by -r SLIDE the one in whose pixels the "
            f"answer is wanted"
        )
    return pixel_of(source), pixel_of(reference)


def doubt_of_pixels(points: Points, path: str | Path, slide: str | Path) -> str:
    """Say where points look like pixels of a coarser level of their slide; empty where they do not.

    Raises:
        InputError: a point lies beyond the slide, as of one that is larger.
    """
    grid = Slide.open(slide).levels[0]
    at = grid.to_voxels(points.data.mT.double())[0].T
    shares = at / at.new_tensor(grid.shape)
    reach = float(shares.max())
    size = " × ".join(f"{n:,}" for n in grid.shape)
    if reach > 1 + BEYOND or float(shares.min()) < -BEYOND:
        x, y = at[int((shares - 0.5).abs().amax(1).argmax())].tolist()
        times = 2 ** math.ceil(math.log2(max(reach, 1.0)))
        said = f"; are they pixels of an image {times} times as large?" if times > 1 else ""
        raise InputError(f"{path}: a point lies at {x:.0f}, {y:.0f}, and {slide} has {size} pixels{said}")
    if len(at) >= FEW and reach < 0.25:
        times = 2 ** math.floor(-math.log2(max(reach, 1e-9)))
        return (
            f"{path}: all points lie in the first {times}th of {slide}, {size} pixels, along both axes; are they of "
            f"a level {times} times coarser?"
        )
    return ""
