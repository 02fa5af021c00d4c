"""Pictures and slides seen through a transform, part by part, so that a whole slide is never in memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pullback.alignment import Alignment
from pullback.errors import InputError
from pullback.files import read_grid
from pullback.files.images.slide import Slide, colours_of, pixel_of
from pullback.files.images.write_slide import Canvas, write_slide
from pullback.files.suffixes import PICTURES, SLIDES, ends
from pullback.space import Grid, Image, Transform, displacement_in_slabs, pull
from pullback.space.pull import coordinates
from pullback.workflows.applied import Applied, refuse_unlike, size_of
from pullback.workflows.inputs import ImageFiles
from pullback.workflows.pixels import in_pixels

MARGIN = 12
"""Pixels about what is needed of the moving slide: of a cubic spline, what lies further off is below 1e-6."""
DECODED = 2**25
"""Pixels of the moving slide that are decoded for one part."""


@dataclass
class SeenSlide:
    """A slide seen through a transform, drawn part by part.

    Attributes:
        slide: the moving one.
        transform: takes points of the parts to points of it.
        mode: between pixels, as in `pull`.
        outside: the value beyond it; in colour 0 … 1.
        dtype: of the pixels that are drawn.
        seen: pixels so far that lie within the slide.
    """

    slide: Slide
    transform: Transform
    mode: str
    outside: float
    dtype: np.dtype
    seen: int = 0

    @torch.no_grad()
    def __call__(self, part: Grid) -> np.ndarray:
        """Return the pixels of a part, `(y, x)` or in colour `(y, x, 3)`.

        Raises:
            InputError: the slide cannot be read.
        """
        image = self._drawn(part)
        if self.slide.coloured:
            return colours_of(image).numpy()
        values = image.data[0, 0].T.numpy()
        if self.dtype.kind in "iu":
            held = np.iinfo(self.dtype)
            values = np.clip(np.rint(values), held.min, held.max)
        return values.astype(self.dtype)

    def _drawn(self, part: Grid) -> Image:
        finest = self.slide.levels[0]
        there = self.transform.as_affine or displacement_in_slabs(self.transform, part)
        where = coordinates(finest, there, part, torch.empty(0, dtype=torch.float64))[0]
        level, factor = self._resolution(where)
        grid = self.slide.reduced(level, factor)
        box = _box(grid, grid.to_voxels(finest.to_world(where[None]))[0])
        if box is None:
            channels = 3 if self.slide.coloured else 1
            return Image(torch.full((1, channels, *part.shape), self.outside), part)
        if (box[0].stop - box[0].start) * (box[1].stop - box[1].start) * factor**2 > DECODED and max(part.shape) > 1:
            return self._halves(part)
        last = torch.tensor(finest.shape, dtype=torch.float64).view(2, 1, 1) - 0.5
        self.seen += int(((where > -0.5) & (where < last)).all(0).sum())
        return pull(self.slide.region(level, box, factor), there, part, self.mode, self.outside)

    def _halves(self, part: Grid) -> Image:
        """Draw the two halves of a part along its longer axis."""
        axis = int(part.shape[1] > part.shape[0])
        first = part.shape[axis] // 2
        images = []
        for start, count in ((0, first), (first, part.shape[axis] - first)):
            affine = part.affine.clone()
            affine[:2, 2] += affine[:2, axis] * start
            shape = tuple(count if n == axis else size for n, size in enumerate(part.shape))
            images.append(self._drawn(Grid(shape, affine)).data)
        return Image(torch.cat(images, 2 + axis), part)

    def _resolution(self, where: Tensor) -> tuple[int, int]:
        """Return the level, and the edge of its blocks, whose pixels are as large as those of a part in the slide."""
        steps = [where.diff(dim=axis).norm(dim=0).flatten() for axis in (1, 2) if where.shape[axis] > 1]
        if self.mode == "nearest" or not steps:
            return 0, 1
        wanted = float(torch.cat(steps).median())
        edge = float(self.slide.levels[0].spacing.prod()) ** 0.5
        level = self.slide.level_at(wanted * edge)
        own = float(self.slide.levels[level].spacing.prod()) ** 0.5
        return level, max(1, int(wanted * edge / own + 1e-3))


def _box(grid: Grid, where: Tensor) -> tuple[slice, slice] | None:
    """Return the part of a grid that holds places `where` `(2, …)`, in its voxels, with a margin; None: none does."""
    ends_of = []
    for axis, count in enumerate(grid.shape):
        low, high = int(where[axis].min().floor()) - MARGIN, int(where[axis].max().ceil()) + MARGIN + 1
        if high <= 0 or low >= count:
            return None
        ends_of.append(slice(max(0, low), min(count, high)))
    return ends_of[0], ends_of[1]


def reference_of(path: str | Path, spacing: float | None = None) -> tuple[Grid, bool]:
    """Return the grid of the finest level of a slide, or of pixels of `spacing` mm, and whether its mm are true.

    Another image gives its own grid, 2-D.

    Raises:
        InputError: the file cannot be read, is a volume, or has a grid already while `spacing` asks for another.
    """
    if ends(path, (*PICTURES, *SLIDES)):
        slide = Slide.open(path)
        grid = slide.levels[0] if spacing is None else slide.reduced(*slide.choice(spacing))
        return grid, slide.measured
    if spacing is not None:
        raise InputError(f"--spacing {spacing:g}: is of a slide with levels, and {path} has one grid; leave it out")
    return read_grid(path, 2), True


def pixel_in(points: str | Path | None, space: str | None, image: ImageFiles) -> tuple[float, float] | None:
    """Return mm of a pixel of an image, x and y, where points are in its pixels; None where they are in mm.

    Raises:
        InputError: they are in pixels, and the image is no picture or slide.
    """
    if not in_pixels(points, space):
        return None
    return pixel_of(str(image.images[0]))


def moved_names(fixed: ImageFiles, moving: ImageFiles) -> dict[str, str]:
    """Return the names of the moving images in colour as they are written in colour, and their files by them.

    They are `moved.ome.tif`, `moved_channel_2.ome.tif`, … where the fixed image is a slide that says how large a pixel
    is, else `moved.png`, ….
    """
    measured = any(slide.measured for slide in fixed.slides)
    ending = ".ome.tif" if measured else ".png"
    names = ["moved", *(f"moved_channel_{n}" for n in range(2, len(moving.images) + 1))]
    coloured = {str(slide.path) for slide in moving.slides if slide.coloured}
    paths = zip(names, map(str, moving.images), strict=True)
    return {f"{name}{ending}": path for name, path in paths if path in coloured}


def write_colours(names: Mapping[str, str], after: Alignment, folder: Path, fixed: ImageFiles) -> None:
    """Write moving images in colour, by the names of `moved_names`: on the fixed grid, or on all pixels of a picture.

    Raises:
        InputError: as of `write_moved`.
    """
    measured = any(slide.measured for slide in fixed.slides)
    for name, path in names.items():
        transform = after.transform.to(torch.device("cpu"))
        onto = after.pair.fixed.grid if measured or not fixed.slides else fixed.slides[0].levels[0]
        write_moved(path, transform, folder / name, onto, measured)


def write_moved(
    given: str | Path,
    transform: Transform,
    out: str | Path,
    onto: Grid,
    measured: bool,
    mode: str = "linear",
    outside: float | None = None,
    lossless: bool = False,
) -> int:
    """Write a picture or slide as it is seen through a transform, `.png` or `.ome.tif`, with glass around.

    Parts of 2,048 × 2,048 pixels are drawn one by one, each from the level of the slide that is as fine.

    Args:
        given: the moving picture or slide.
        transform: takes points of `onto` to points of it.
        out: the file to write.
        onto: the grid of its finest level.
        measured: whether the mm of that are true.
        mode: between pixels.
        outside: the value beyond a picture that is not in colour; by default 0.
        lossless: colours are not compressed by JPEG.

    Returns:
        How many pixels of the answer, at all levels, lie within the picture.

    Raises:
        InputError: a file that cannot be read or written, or a value beyond colours.
    """
    slide = Slide.open(given)
    if slide.coloured and outside is not None:
        raise InputError(f"--outside {outside:g}: {given} is in colour, and glass is around it; leave it out")
    dtype = np.dtype(np.uint8) if slide.coloured else _dtype(slide)
    moved = SeenSlide(slide, transform, mode, slide.glass if slide.coloured else outside or 0.0, dtype)
    write_slide(moved, Canvas(onto, dtype, slide.coloured, measured, lossless), out)
    return moved.seen


def _dtype(slide: Slide) -> np.dtype:
    """Return the type of the pixels of a picture that is not in colour; of those that float32 does not hold, that."""
    dtype = slide.stored[0].read(0, 0, 1, 1).dtype
    return dtype if dtype in (np.uint8, np.uint16, np.int16, np.int8) else np.dtype(np.float32)


def pull_slide(
    given: str | Path,
    transform: Transform,
    out: str | Path,
    reference: str | Path,
    mode: str,
    outside: float | None,
    spacing: float | None,
) -> Applied:
    """Write a picture or slide as it is seen through a transform on the pixels of a reference, as `write_moved` does.

    Raises:
        InputError: as of `write_moved` and `reference_of`, and an image that is no picture.
    """
    if not ends(given, (*PICTURES, *SLIDES)):
        raise InputError(f"{out}: pictures and slides are written so, and {given} is none; name it .nii.gz")
    refuse_unlike(reference, 2, transform)
    onto, measured = reference_of(reference, spacing)
    seen = write_moved(given, transform, out, onto, measured, mode, outside)
    what = f"{out}: {given} on {size_of(onto)} pixels of {reference}, {mode} between pixels"
    if seen:
        return Applied(what)
    return Applied(
        what,
        f"{out} is empty: nothing of {given} lies within the view of {reference}. Check which image the transforms "
        f"lead to (--invert) and their order",
    )
