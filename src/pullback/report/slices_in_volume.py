"""Slices in a volume as pictures: each beside what the volume shows in its place, and where they lie."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from pullback.data import normalised
from pullback.errors import InputError
from pullback.records.manifest import known_version
from pullback.report.figures import COLOURS
from pullback.report.page import write_page
from pullback.space import Affine, Grid, Image, emulated, pull, through_axis

GROUND, TEXT = "#14171b", "#d9dde2"
SHOWN = 12  # slices that are drawn
SIDE = 220  # pixels of a plane of the volume
BOARD = 6  # fields along a slice
VIEWS = (("axial", 0, 1), ("coronal", 0, 2), ("sagittal", 1, 2))
HEADINGS = ("slice", "volume, at the start", "volume, as found", "both, in fields")


@dataclass(frozen=True, eq=False)
class ShownSlice:
    """A slice that was located.

    Attributes:
        name: of its file.
        image: `(1, 1, X, Y, 1)`.
        start, pose: points of the slice → points of the volume, at first and as found.
    """

    name: str
    image: Image
    start: Affine
    pose: Affine


def draw_slices(slices: Sequence[ShownSlice], volume: Image) -> Figure:
    """Draw slices beside what a volume shows in their place, a row each, and three planes of the volume with them."""
    rows = slices[:SHOWN]
    figure = Figure((9.6, 2.45 * len(rows) + 3.6), layout="constrained", facecolor=GROUND)
    parts: Any = figure.subfigures(2, 1, height_ratios=[2.45 * len(rows), 3.4])
    for part in parts:
        part.set_facecolor(GROUND)
    axes = np.atleast_2d(parts[0].subplots(len(rows), len(HEADINGS)))
    for n, (row, one) in enumerate(zip(axes, rows, strict=True)):
        pictures = _pictures(one, volume)
        for axis, picture, heading in zip(row, pictures, HEADINGS, strict=True):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=1, origin="lower", aspect=_aspect(one.image.grid))
            axis.set_title(heading if n == 0 else "", color=TEXT, fontsize=9)
            axis.set_axis_off()
        row[0].text(
            0.03, 0.97, one.name, color=COLOURS[n % len(COLOURS)], fontsize=8, va="top", transform=row[0].transAxes
        )
    outlines = [Affine(one.pose.matrix).at(_corners(one.image.grid).T[None])[0].T for one in rows]
    for axis, view in zip(parts[1].subplots(1, len(VIEWS)), VIEWS, strict=True):
        _draw_view(axis, view, volume, outlines)
    return figure


def _pictures(one: ShownSlice, volume: Image) -> list[np.ndarray]:
    """Return the slice, the volume in its place before and after, and slice and volume in a chequered pattern."""
    own, start, found = (
        _flat(image) for image in (one.image, *(emulated(volume, pose, one.image) for pose in (one.start, one.pose)))
    )
    rows, columns = (torch.arange(n) * BOARD // n for n in own.shape)
    board = ((rows[:, None] + columns) % 2 == 0).numpy()
    return [own, start, found, np.where(board, own, found)]


def _flat(image: Image) -> np.ndarray:
    """Return the pixels of a slice, 0 … 1, rows along its second axis; a slice that shows nothing is black."""
    keep = [n for axis, n in enumerate(image.grid.shape) if axis != through_axis(image.grid)]
    try:
        data = normalised(image).data
    except InputError:
        data = torch.zeros_like(image.data)
    return data[0, 0].reshape(keep).T.numpy()


def _aspect(grid: Grid) -> float:
    one, two = (s for axis, s in enumerate(grid.spacing.tolist()) if axis != through_axis(grid))
    return two / one


def _corners(grid: Grid) -> Tensor:
    """Return the corners of a slice in turn, `(4, 3)` mm, the rims of its outermost pixels."""
    across = through_axis(grid)
    one, two = (axis for axis in range(3) if axis != across)
    corners = torch.zeros(4, 3).double()
    corners[:, one] = torch.tensor([-0.5, grid.shape[one] - 0.5, grid.shape[one] - 0.5, -0.5])
    corners[:, two] = torch.tensor([-0.5, -0.5, grid.shape[two] - 0.5, grid.shape[two] - 0.5])
    return grid.to_world(corners.T[None])[0].T


def _draw_view(axis: Axes, view: tuple[str, int, int], volume: Image, outlines: Sequence[Tensor]) -> None:
    """Draw a plane of the world through the middle of the slices, their outlines, and where they cross it."""
    name, right, up = view
    normal = 3 - right - up
    middle = torch.cat([*outlines]).mean(0)
    grid = _plane(volume.grid, middle, normal)
    seen = pull(volume, Affine.identity(3), onto=grid)
    data = seen.data[0, 0].movedim(normal, 0)[0].numpy()
    low, high = np.percentile(data, (1, 99.5))
    first = grid.affine[:3, 3].tolist()
    last = [float(a + s * (n - 1)) for a, s, n in zip(first, grid.spacing, grid.shape, strict=True)]
    extent = (first[right], last[right], first[up], last[up])
    axis.imshow(data.T, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), origin="lower", extent=extent)
    for n, outline in enumerate(outlines):
        colour = COLOURS[n % len(COLOURS)]
        closed = torch.cat([outline, outline[:1]])
        axis.plot(closed[:, right], closed[:, up], color=colour, linewidth=0.6, alpha=0.5)
        crossed = _crossing(closed, normal, float(middle[normal]))
        if len(crossed) == 2:
            axis.plot(crossed[:, right], crossed[:, up], color=colour, linewidth=1.8)
    axis.set_xlim(extent[:2])
    axis.set_ylim(extent[2:])
    axis.set_title(name, color=TEXT, fontsize=9)
    axis.set_axis_off()


def _plane(grid: Grid, middle: Tensor, normal: int) -> Grid:
    """Return a plane of the world across one of its axes, through a point, as large as the volume."""
    ends = torch.cartesian_prod(*[torch.tensor([0.0, n - 1.0]).double() for n in grid.shape])
    corners = grid.to_world(ends.T[None])[0]
    low, high = corners.amin(1), corners.amax(1)
    edge = float((high - low).max()) / SIDE
    affine = torch.diag(torch.tensor([edge] * 3 + [1.0]).double())
    affine[:3, 3] = low
    affine[normal, 3] = middle[normal]
    shape = [int(n) + 1 for n in ((high - low) / edge).tolist()]
    shape[normal] = 1
    return Grid(tuple(shape), affine)


def _crossing(closed: Tensor, normal: int, at: float) -> Tensor:
    """Return the points in which a closed line crosses a plane of the world, `(N, 3)`."""
    one, two = closed[:-1], closed[1:]
    a, b = one[:, normal] - at, two[:, normal] - at
    cut = (a * b < 0).nonzero()[:, 0]
    share = (a[cut] / (a[cut] - b[cut]))[:, None]
    return one[cut] + share * (two[cut] - one[cut])


def write_slices(
    folder: Path,
    slices: Sequence[ShownSlice],
    volume: Image,
    title: str,
    verdict: str,
    notes: Sequence[str],
    table: Sequence[Mapping[str, str]],
) -> None:
    """Write `index.html`, which needs nothing else, and `located.png`, the picture in it.

    Args:
        folder: where.
        slices: as they were found.
        volume: in which.
        title: of the page.
        verdict: in a sentence.
        notes: sentences.
        table: rows of formatted strings.
    """
    figure = draw_slices(slices, volume)
    FigureCanvasAgg(figure)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, facecolor=GROUND)
    (folder / "located.png").write_bytes(out.getvalue())
    picture = "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
    write_page(
        folder / "index.html",
        "slices_in_volume",
        title=title,
        verdict=verdict,
        notes=list(notes),
        table=list(table),
        picture=picture,
        version=known_version("pullback"),
    )
