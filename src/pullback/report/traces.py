"""Traces of motion over a series, and the mean of its frames before and after, as one page."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from pullback.records.manifest import known_version
from pullback.report.figures import COLOURS, blank
from pullback.report.page import write_page
from pullback.space import Image

AXES = "xyz"


def write_traces(
    path: str | Path,
    title: str,
    numbers: Mapping[str, np.ndarray],
    means: Mapping[str, Image],
    table: Sequence[Mapping[str, str]],
    notes: Sequence[str] = (),
) -> None:
    """Write one self-contained HTML file.

    Args:
        path: where to write.
        title: what was realigned.
        numbers: `trans_x` … in mm, `rot_x` … in radians and `framewise_displacement` in mm, `(T,)` each.
        means: of the frames, by when: `"before"`, `"after"`.
        table: rows of formatted strings.
        notes: sentences.
    """
    write_page(
        path,
        "traces",
        title=title,
        traces=_svg(drawn_traces(numbers)),
        means=_svg(drawn_means(means)),
        table=table,
        notes=notes,
        version=known_version("pullback"),
    )


def drawn_traces(numbers: Mapping[str, np.ndarray]) -> Figure:
    """Draw shifts, turns in degrees, and framewise displacement over the number of the frame."""
    figure, (shifts, turns, steps) = blank(1, 9.0, 6.0, 3)
    _lines(shifts, {axis: numbers[f"trans_{axis}"] for axis in AXES if f"trans_{axis}" in numbers}, "shift, mm")
    known = {axis: np.degrees(numbers[f"rot_{axis}"]) for axis in AXES if f"rot_{axis}" in numbers}
    _lines(turns, known, "turn, °")
    steps.plot(numbers["framewise_displacement"], color=COLOURS[3], linewidth=1.3)
    steps.set_ylabel("framewise\ndisplacement, mm")
    steps.set_ylim(bottom=0)
    steps.set_xlabel("frame")
    return figure


def _lines(axis: Axes, lines: Mapping[str, np.ndarray], label: str) -> None:
    for name, values in lines.items():
        axis.plot(values, color=COLOURS[AXES.index(name)], label=name, linewidth=1.3)
    axis.axhline(0, color=COLOURS[8], linewidth=0.6)
    axis.set_ylabel(label)
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), labelcolor=COLOURS[8])


def drawn_means(means: Mapping[str, Image]) -> Figure:
    """Draw the middle planes of images on one grid, a row each, black to white alike."""
    first = next(iter(means.values()))
    planes = range(first.grid.ndim if first.grid.ndim > 2 else 1)
    figure, axes = blank(len(planes), 3.0 * len(planes), 2.6 * len(means), len(means))
    high = max(
        float(image.data.quantile(0.995)) if image.data.numel() < 2**24 else float(image.data.max())
        for image in means.values()
    )
    for row, (name, image) in enumerate(means.items()):
        for axis, plane in zip(axes[row * len(planes) :], planes, strict=False):
            axis.imshow(
                _cut(image, plane), cmap="gray", vmin=0, vmax=high, origin="lower", aspect=_aspect(image, plane)
            )
            axis.set_axis_off()
        axes[row * len(planes)].set_title(name)
    return figure


def _cut(image: Image, plane: int) -> np.ndarray:
    """Return the middle cut across an axis, rows along the last; of a 2-D image all."""
    values = image.data[0, 0].cpu().numpy()
    return (values if values.ndim == 2 else values.take(values.shape[plane] // 2, plane)).T


def _aspect(image: Image, plane: int) -> float:
    edges = image.grid.spacing.tolist()
    across = [edge for n, edge in enumerate(edges) if len(edges) == 2 or n != plane]
    return across[1] / across[0]


def _svg(figure: Figure) -> str:
    FigureCanvasSVG(figure)
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
