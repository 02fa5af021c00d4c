"""Files of an aligned stack: the stack, its masks, transforms, tables, and a page to look at."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pullback.errors import InputError
from pullback.files.images.stack import Sections
from pullback.files.images.stack_file import StackShape, stack_ending, write_stack
from pullback.files.transforms.folder import write_transforms
from pullback.methods.group.stack_solution import StackSolution
from pullback.records.csv_records import write_csv
from pullback.report.stack import SectionView, StackPage, write_stack_page
from pullback.space import Affine, Grid, Image, Transform, pull, pull_in_slabs
from pullback.workflows.stack_sections import read_mask, read_pixels, short_names

SPREAD = 16.0  # times the largest section, beyond which maps do not keep a stack together
STRIP = 2**22  # px that are resampled at a time
SMALL = 384  # px along the longer edge of what neighbours are compared by
INSIDE = 0.999
SECTIONS, MATCHES, MATRICES, PAGE = "sections.csv", "matches.csv", "transforms.csv", "index.html"
ShownItems = Callable[[Iterable[Any], str], Iterable[Any]]
"""Shows the progress of items, under a name."""


@dataclass(frozen=True, eq=False)
class Written:
    """A solved stack, of which files are written.

    Attributes:
        sections, masks: the inputs.
        model: of the maps.
        found: the maps.
        keypoints: of each section, how many; a section that could not be used is left out.
        thickness: mm from one section to the next; None is a pixel.
        grids: of the sections.
    """

    sections: Sections
    masks: Sections | None
    model: str
    found: StackSolution
    keypoints: Mapping[int, int]
    thickness: float | None
    grids: Sequence[Grid]


def write_outputs(stack: Written, folder: Path, out: Path, skip: bool, shown: ShownItems) -> dict[str, Any]:
    """Write everything but the record, and return what it tells of it.

    The stack itself is not written where sections match no others and are not to be skipped.

    Raises:
        InputError: maps that spread the sections too far, or a place that cannot be written to.
    """
    sections, found = stack.sections, stack.found
    transforms, names = found.transforms(stack.model), short_names(sections.names)
    first = read_pixels(sections, found.reference)
    plane = plane_of(stack.grids, transforms, first.image.grid)
    whole = skip or not found.unmatched
    shape = StackShape(
        len(sections),
        plane,
        first.dtype,
        first.coloured,
        stack.thickness or float(plane.spacing.mean()),
        sections.measured,
    )
    if whole:
        write_stack(out, _aligned(stack, transforms, shape, shown), shape)
        if stack.masks is not None:
            masks = out.with_name(f"masks{stack_ending(out)}")
            write_stack(folder / masks.name, *_masks(stack, transforms, shape))
    write_transforms(folder / "transforms", transforms, names, on=plane)
    write_csv(_matrices(transforms, names, plane, stack.grids), folder / MATRICES)
    views, overlap = _views(stack, transforms, plane, shown)
    rows = _rows(stack, views, overlap)
    write_csv(rows, folder / SECTIONS)
    write_csv(_pairs(found, sections.names), folder / MATCHES)
    neighbours = {"correlation": _means(rows, "correlation")} | ({"Dice": _means(rows, "Dice")} if overlap else {})
    page = StackPage(sections.names, found, rows, views, neighbours, shape.thickness / float(plane.spacing.mean()))
    write_stack_page(page, folder / PAGE)
    return {"aligned": str(out) if whole else None, "neighbours": neighbours, "plane": list(plane.shape)}


def plane_of(grids: Sequence[Grid], transforms: Sequence[Transform], reference: Grid) -> Grid:
    """Return the grid that holds all corners of all sections, with the pixels of the reference.

    Raises:
        InputError: it is many times larger than a section.
    """
    low, high = torch.full((2,), math.inf), torch.full((2,), -math.inf)
    for grid, transform in zip(grids, transforms, strict=True):
        ends = [torch.tensor([0.0, n - 1.0], dtype=torch.float64) for n in grid.shape]
        corners = grid.to_world(torch.cartesian_prod(*ends).mT[None])
        at = reference.to_voxels(transform.inverse().at(corners))[0]
        low, high = torch.minimum(low, at.amin(1)), torch.maximum(high, at.amax(1))
    low, high = (low + 1e-3).floor(), (high - 1e-3).ceil()
    shape = tuple(int(n) + 1 for n in (high - low).tolist())
    largest = max(math.prod(grid.shape) for grid in grids)
    if math.prod(shape) > SPREAD * largest:
        said = " × ".join(map(str, shape))
        raise InputError(f"the maps spread the sections over {said} px; --set model=rigid keeps them together")
    affine = reference.affine.clone()
    affine[:-1, -1] += affine[:-1, :-1] @ low.double()
    return Grid(shape, affine)


def _aligned(
    stack: Written, transforms: Sequence[Transform], shape: StackShape, shown: ShownItems
) -> Iterator[np.ndarray]:
    """Yield each section in the common plane, resampled once from its file, as it is written."""
    for n, transform in zip(shown(range(shape.count), "writing"), transforms, strict=True):
        pixels = read_pixels(stack.sections, n)
        if pixels.coloured != shape.coloured or pixels.dtype != shape.dtype:
            kinds = [f"{'colour' if each.coloured else 'grey'} of {each.dtype}" for each in (pixels, shape)]
            raise InputError(f"{stack.sections.names[n]}: in {kinds[0]}, and others in {kinds[1]}; save all alike")
        yield _stored(_strips(pixels.image, transform, shape.grid, pixels.outside, shape.dtype), shape.dtype)


def _strips(image: Image, transform: Transform, plane: Grid, outside: float, dtype: np.dtype) -> Tensor:
    """Return a section on the plane, `(C, X, Y)`, made strip by strip; of more than bytes by exact coordinates."""
    how = pull if dtype == np.uint8 else pull_in_slabs
    wide = max(1, STRIP // plane.shape[1])
    parts = []
    for first in range(0, plane.shape[0], wide):
        affine = plane.affine.clone()
        affine[:-1, -1] += first * affine[:-1, 0]
        strip = Grid((min(wide, plane.shape[0] - first), plane.shape[1]), affine)
        parts.append(how(image, transform, strip, outside=outside).data[0])
    return torch.cat(parts, 1)


def _stored(values: Tensor, dtype: np.dtype) -> np.ndarray:
    """Return `(C, X, Y)` as it is written, `(Y, X)` or `(Y, X, 3)`."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = values.round().clamp(limits.min, limits.max)
    turned = values.permute(2, 1, 0).numpy().astype(dtype)
    return turned[..., 0] if turned.shape[-1] == 1 else turned


def _masks(
    stack: Written, transforms: Sequence[Transform], shape: StackShape
) -> tuple[Iterator[np.ndarray], StackShape]:
    """Return the masks in the common plane, from the nearest pixel, and their shape."""
    masks = stack.masks
    assert masks is not None
    known = [int(read_mask(masks, n)[0].data.max()) for n in range(shape.count)]
    dtype = np.dtype(np.uint8 if max(known) < 2**8 else np.uint16 if max(known) < 2**16 else np.int32)

    def pages() -> Iterator[np.ndarray]:
        for n, transform in enumerate(transforms):
            labels = pull_in_slabs(read_mask(masks, n)[0], transform, shape.grid)
            yield labels.data[0, 0].mT.numpy().astype(dtype)

    return pages(), replace(shape, dtype=dtype, coloured=False)


# ---- neighbours, before and after


def _views(
    stack: Written, transforms: Sequence[Transform], plane: Grid, shown: ShownItems
) -> tuple[list[tuple[SectionView, SectionView]], list[tuple[float, float]]]:
    """Return each section as it lies before and after, and the Dice of its mask with that of the one before."""
    still = Affine.identity(2)
    factor = max(1, math.ceil(max(plane.shape) / SMALL))
    coarse = _coarser(plane, factor)
    views: list[tuple[SectionView, SectionView]] = []
    overlap: list[tuple[float, float]] = []
    last: list[Tensor] = []
    for n, transform in zip(shown(range(len(transforms)), "looking"), transforms, strict=True):
        image = _grey(read_pixels(stack.sections, n).image)
        small = _halved(image, factor)
        before, after = (_view(image, small, one, plane, coarse) for one in (still, transform))
        views.append((before, after))
        if stack.masks is not None:
            labels = read_mask(stack.masks, n)[0]
            now = [pull(labels, one, plane).data != 0 for one in (still, transform)]
            if last:
                overlap.append((_dice(last[0], now[0]), _dice(last[1], now[1])))
            last = now
    return views, overlap


def _view(image: Image, small: Image, transform: Transform, plane: Grid, coarse: Grid) -> SectionView:
    lines = []
    for axis in (0, 1):
        affine = plane.affine.clone()
        other = 1 - axis
        affine[:-1, -1] += (plane.shape[other] // 2) * affine[:-1, other]
        shape = (plane.shape[0], 1) if axis == 0 else (1, plane.shape[1])
        lines.append(pull(image, transform, Grid(shape, affine), outside=math.nan).data.flatten().numpy())
    seen = pull(small, transform, coarse, outside=0.0).data[0, 0]
    inside = pull(Image(torch.ones_like(small.data), small.grid), transform, coarse, outside=0.0).data[0, 0] > INSIDE
    return SectionView(lines[0], lines[1], seen.numpy(), inside.numpy())


def _rows(
    stack: Written, views: Sequence[tuple[SectionView, SectionView]], overlap: Sequence[tuple[float, float]]
) -> list[dict[str, object]]:
    """Return a row for each section: its keypoints, how it matches the one before, and how like it that is."""
    found, names = stack.found, stack.sections.names
    rows: list[dict[str, object]] = []
    for n, name in enumerate(names):
        match = found.matches.get((n - 1, n))
        loops = sorted(found.loop_errors(n))
        row: dict[str, object] = {"section": name, "keypoints": stack.keypoints.get(n, 0)}
        row |= {"matches": match.matches if match else "", "agree": match.agree if match else ""}
        row["loop error px"] = round(loops[len(loops) // 2], 3) if loops else ""
        for when, said in enumerate(("before", "after")):
            here = views[n][when].correlation(views[n - 1][when]) if n else math.nan
            row[f"correlation {said}"] = round(here, 4) if math.isfinite(here) else ""
            if overlap:
                row[f"Dice {said}"] = round(overlap[n - 1][when], 4) if n else ""
        rows.append(row | {"placed": "between its neighbours" if n in found.unmatched else "by matches"})
    return rows


def _means(rows: Sequence[Mapping[str, object]], name: str) -> tuple[float, float]:
    """Return the means of a number before and after."""
    every = [[row[f"{name} {when}"] for row in rows] for when in ("before", "after")]
    before, after = (fmean([value for value in each if isinstance(value, float)] or [0.0]) for each in every)
    return round(before, 4), round(after, 4)


def _pairs(found: StackSolution, names: Sequence[str]) -> list[dict[str, object]]:
    """Return a row for each pair that was compared."""
    return [
        {
            "first": names[i],
            "second": names[j],
            "matches": match.matches,
            "agree": match.agree,
            "off px": round(match.off, 3),
            "used": int((i, j) in found.misses),
            "misses px": round(found.misses[i, j], 3) if (i, j) in found.misses else "",
        }
        for (i, j), match in found.matches.items()
    ]


def _matrices(
    transforms: Sequence[Transform], names: Sequence[str], plane: Grid, grids: Sequence[Grid]
) -> list[dict[str, object]]:
    """Return a row for each section: the matrix from pixels of the plane to its own, column first, then row."""
    rows: list[dict[str, object]] = []
    for n, (transform, name) in enumerate(zip(transforms, names, strict=True)):
        linear = transform.as_affine
        matrix = transform.params[0] if linear is None else linear.matrix
        inner = torch.linalg.inv(grids[n].affine) @ matrix @ plane.affine
        entries = {f"m{a}{b}": repr(float(inner[a, b] / inner[2, 2])) for a in range(3) for b in range(3)}
        rows.append({"section": name, **entries})
    return rows


def _dice(one: Tensor, other: Tensor) -> float:
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0


def _grey(image: Image) -> Image:
    return Image(image.data.mean(1, keepdim=True), image.grid)


def _coarser(grid: Grid, factor: int) -> Grid:
    """Return the grid of means over blocks of `factor` × `factor` pixels."""
    affine = grid.affine.clone()
    affine[:-1, -1] += affine[:-1, :-1] @ torch.full((2,), (factor - 1) / 2, dtype=torch.float64)
    affine[:-1, :-1] *= factor
    return Grid(tuple(max(1, n // factor) for n in grid.shape), affine)


def _halved(image: Image, factor: int) -> Image:
    """Return the means over blocks of pixels."""
    if factor == 1 or min(image.grid.shape) < factor:
        return image
    return Image(F.avg_pool2d(image.data, factor), _coarser(image.grid, factor))
