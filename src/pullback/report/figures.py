"""Figures for pages: vectors, without a ground of their own, in tones that show on white and on black."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pullback.records.atomic import atomic_write

INK = "#858585"
COLOURS = ("#4f8fd6", "#e08a3c", "#4aa87a", "#b678d6", "#d8626c", "#a39a3f", "#46a9b8", "#c98aa5", "#8f8f8f", "#7f9a52")
STYLES = tuple(itertools.product(("-", "--", ":"), COLOURS))
MIDDLE = ListedColormap(colormaps["viridis"](np.linspace(0.3, 0.85, 256)))  # neither as dark nor as light as a page
WIDTH, HEIGHT = 6.4, 3.4  # inches


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as SVG whose text stays text."""
    FigureCanvasSVG(figure)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="svg", transparent=True, metadata={"Date": None})


def blank(columns: int = 1, width: float = WIDTH, height: float = HEIGHT, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """Make a figure with so many axes beside each other, and so many rows of them."""
    figure = Figure((width, height), layout="constrained")
    axes = list(np.ravel(figure.subplots(rows, columns)))
    for one in axes:
        one.tick_params(colors=INK, labelcolor=INK)
        one.spines[["top", "right"]].set_visible(False)
        one.spines[["left", "bottom"]].set_color(INK)
        for label in (one.xaxis.label, one.yaxis.label, one.title):
            label.set_color(INK)
        one.patch.set_visible(False)
    figure.patch.set_visible(False)
    return figure, axes


def legend(figure: Figure, axis: Axes) -> None:
    """Draw the legend of one of its axes above the whole figure."""
    handles, names = axis.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4, frameon=False, labelcolor=INK, fontsize=9)


def mean_line(
    axis: Axes, at: Sequence[float], lines: Sequence[Sequence[float]], colour: str, label: str, style: str
) -> None:
    """Draw the mean of lines, one per seed, and where there are several each of them faint."""
    for line in lines if len(lines) > 1 else ():
        axis.plot(at, line, color=colour, alpha=0.35, linewidth=0.8)
    axis.plot(at, np.mean(lines, 0), style, color=colour, label=label, linewidth=1.6, markersize=4)


def dotted(values: Mapping[str, Mapping[str, Sequence[float]]], labels: Mapping[str, str]) -> Figure:
    """Draw a row of dots per name, axes per measure: the mean of the values, and each of them faint.

    Args:
        values: by name and measure.
        labels: of the axes, by measure.
    """
    figure, axes = blank(len(labels), 7.2, 0.34 * len(values) + 1.2)
    for one, (measure, label) in zip(axes, labels.items(), strict=True):
        for n, (known, colour) in enumerate(zip(values.values(), itertools.cycle(COLOURS), strict=False)):
            each = known[measure]
            one.plot(each, [n] * len(each), "o", color=colour, alpha=0.4, markersize=4)
            one.plot(np.mean(each), n, "o", color=colour, markersize=7)
        one.set_yticks(range(len(values)), list(values) if one is axes[0] else [""] * len(values))
        one.invert_yaxis()
        one.grid(axis="y", color=INK, alpha=0.25)
        one.xaxis.set_major_locator(MaxNLocator(4))
        one.set_xlabel(label)
    return figure


def boxed(
    axis: Axes, groups: Sequence[str], values: Mapping[str, Mapping[str, Sequence[float]]], colours: Mapping[str, str]
) -> None:
    """Draw a box of each name's values for each of the groups, beside each other.

    Args:
        values: by name and group.
        colours: by name.
    """
    width = 0.8 / len(values)
    for n, (name, by_group) in enumerate(values.items()):
        colour = colours[name]
        line = {"color": colour, "linewidth": 0.9}
        axis.boxplot(
            [by_group[group] for group in groups],
            positions=np.arange(len(groups)) + (n - (len(values) - 1) / 2) * width,
            widths=0.8 * width,
            manage_ticks=False,
            patch_artist=True,
            boxprops={"facecolor": colour, "edgecolor": colour, "alpha": 0.75},
            medianprops={"color": "white", "linewidth": 1.0},
            whiskerprops=line,
            capprops=line,
            flierprops={"marker": ".", "markersize": 2, "markeredgecolor": colour},
        )
        axis.plot([], [], color=colour, linewidth=4, label=name)
    axis.set_xticks(range(len(groups)), groups, fontsize=8)
