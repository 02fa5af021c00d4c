"""Results of a study as figures."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import spearmanr

from pullback.records.csv_records import read_csv
from pullback.report.figures import (
    COLOURS,
    HEIGHT,
    INK,
    MIDDLE,
    STYLES,
    WIDTH,
    blank,
    boxed,
    dotted,
    legend,
    mean_line,
)
from pullback.report.pictures import JACOBIAN, cuts, grid_step, jacobian_limit, jacobian_picture, lattice, ramp
from pullback.study.result import Result, network_of
from pullback.study.table import Column
from pullback.study.tables import over_seeds
from pullback.training import Row, align, mean_of

BOXES = 40  # in a row of the figure


def curves(result: Result, rows: Sequence[Row], columns: Sequence[Column]) -> Figure:
    """Draw validation over the updates: axes per column, a line per arm, the mean over seeds with each seed faint."""
    figure, axes = blank(len(columns), 7.2)
    for one, column in zip(axes, columns, strict=True):
        for (arm, units), (style, colour) in zip(result.runs.items(), STYLES, strict=False):
            lines = [_logged(unit.folder, "validation.csv", column.number) for unit in units]
            mean_line(one, lines[0][0], [values for _, values in lines], colour, arm, style)
        one.set_xlabel("updates")
        one.set_ylabel(f"validation {column.label}")
    legend(figure, axes[0])
    return figure


def weights(result: Result, rows: Sequence[Row]) -> Figure:
    """Draw the weight of each loss over the updates, a panel per arm whose weights learn, with its first seed."""
    first = {arm: units[0].folder for arm, units in result.runs.items()}
    logged = {arm: read_csv(folder / "training.csv")[0] for arm, folder in first.items()}
    learned = {arm: [name for name in row if name.startswith("weight/")] for arm, row in logged.items()}
    learned = {arm: names for arm, names in learned.items() if names}
    panels = max(len(learned), 1)
    across, down = min(panels, 2), math.ceil(panels / 2)
    figure, axes = blank(across, 3.6 * across, HEIGHT * down, down)
    for spare in axes[panels:]:
        spare.remove()
    losses = sorted({name for names in learned.values() for name in names})
    for one, (arm, names) in zip(axes, learned.items(), strict=False):
        for name, colour in zip(losses, COLOURS, strict=False):
            if name in names:
                at, values = _logged(first[arm], "training.csv", name)
                one.plot(at, values, color=colour, linewidth=1.3, label=name.removeprefix("weight/"))
        one.set_title(arm)
        one.set_xlabel("updates")
        one.set_ylabel("weight")
    legend(figure, axes[panels - 1])
    return figure


def boxes(result: Result, rows: Sequence[Row], column: Column) -> Figure:
    """Draw a column's number of each label over the cases, a box per arm; by rising median of the baseline, in rows."""
    averaged = {arm: over_seeds(rows) for arm, rows in result.rows.items()}
    prefix = f"{column.number}/"
    names = sorted({key for rows in averaged.values() for row in rows for key in row if key.startswith(prefix)})
    values = {
        arm: {name.removeprefix(prefix): [float(row[name]) for row in rows if name in row] for name in names}
        for arm, rows in averaged.items()
    }
    if not names:
        return blank()[0]
    labels = sorted(values[result.baseline], key=lambda label: float(np.median(values[result.baseline][label])))
    lines = [list(some) for some in np.array_split(labels, math.ceil(len(labels) * len(averaged) / BOXES))]
    few = len(lines[0])
    arms = [*result.runs, *(arm for arm in averaged if arm not in result.runs)]  # as the other figures colour them
    colours = dict(zip(arms, itertools.cycle(COLOURS), strict=False))
    every = [value for by_label in values.values() for label in by_label.values() for value in label]
    ends = min(every) - 0.02, max(every) + 0.02
    figure, axes = blank(1, max(WIDTH, 0.16 * few * len(averaged) + 1.5), max(HEIGHT, 1.7 * len(lines)), len(lines))
    for axis, some in zip(axes, lines, strict=True):
        boxed(axis, some, values, colours)
        axis.set_xlim(-0.6, few - 0.4)
        axis.set_ylim(*ends)
        axis.set_ylabel(column.label)
    axes[-1].set_xlabel("label")
    legend(figure, axes[0])
    return figure


def fields(result: Result, rows: Sequence[Row]) -> Figure:
    """Draw the first test pair in its middle plane.

    These are the images, and of each arm's first seed the moved one, a grid through the transform, and the change of
    volume.
    """
    pair = next(iter(result.data.test))
    answers = {arm: align(network_of(units[0]), pair) for arm, units in result.runs.items()}
    shown = {arm: cuts(alignment)[0] for arm, alignment in answers.items()}
    limit = max(jacobian_limit(alignment.jacobian) for alignment in answers.values())
    first, step, columns = next(iter(shown.values())), grid_step(list(shown.values())), 1 + len(shown)
    wide = WIDTH / 3
    tall = wide * first.plane.size[1] / first.plane.size[0]
    figure, axes = blank(columns, wide * columns, 3 * tall + 0.6, 3)
    figure.suptitle(pair.name, color=INK, fontsize=9)
    for one in axes:
        one.set_axis_off()
    _seen(axes[0], first.fixed, "fixed")
    _seen(axes[columns], first.before, "moving")
    for n, (arm, cut) in enumerate(shown.items(), 1):
        moved, grid, volume = axes[n::columns]
        _seen(moved, cut.after, arm)
        for along, heights in zip(cut.reached, lattice(cut, step), strict=True):
            grid.contour(along, heights, colors=COLOURS[0], linewidths=0.8, linestyles="solid")
        grid.invert_yaxis()
        grid.set_aspect("equal")
        index, palette = jacobian_picture(cut.jacobian, limit)
        volume.imshow(palette[index], interpolation="nearest")
    scale = axes[2 * columns].inset_axes((0.1, 0.6, 0.8, 0.05))
    scale.imshow(ramp(JACOBIAN)[None], aspect="auto", extent=(-limit, limit, 0, 1))
    scale.set_yticks([])
    scale.tick_params(colors=INK, labelcolor=INK)
    scale.set_xlabel("log₂ det ∇φ; yellow where it folds", color=INK, fontsize=9)
    return figure


def _seen(axis: Axes, image: np.ndarray, title: str) -> None:
    axis.imshow(image, cmap="gray", vmin=0, vmax=1)
    axis.set_title(title, fontsize=9)


def distances(result: Result, rows: Sequence[Row], column: Column, start: str) -> Figure:
    """Draw by how much each case's number differs from the baseline's, against its number for the arm `start`.

    All are means over seeds; the legend has Spearman's rank correlation of the two.
    """
    figure, (axis,) = blank()
    known = {
        arm: {str(row["case"]): float(row[column.number]) for row in over_seeds(each) if column.number in row}
        for arm, each in result.rows.items()
    }
    axis.axhline(0, color=INK, linewidth=0.8)
    for arm, colour in zip(result.runs, itertools.cycle(COLOURS), strict=False):
        if arm != result.baseline:
            cases = sorted(known[start].keys() & known[arm].keys())
            before = [known[start][case] for case in cases]
            gains = [known[arm][case] - known[result.baseline][case] for case in cases]
            varies = len(set(before)) > 1 and len(set(gains)) > 1
            label = f"{arm}, ρ {float(spearmanr(before, gains).statistic):+.2f}" if varies else arm
            axis.plot(before, gains, "o", color=colour, markersize=4, alpha=0.8, label=label)
    axis.set_xlabel(f"{column.label} {start}")
    axis.set_ylabel(f"{column.label} − that of {result.baseline}")
    legend(figure, axis)
    return figure


def dots(result: Result, rows: Sequence[Row], columns: Sequence[Column]) -> Figure:
    """Draw the columns' numbers of each arm that was trained: the mean over seeds, and each seed as a faint dot."""

    def by_seed(arm: str, number: str) -> list[float]:
        seeds = dict.fromkeys(row["seed"] for row in result.rows[arm])
        return [
            float(np.mean([float(row[number]) for row in result.rows[arm] if row["seed"] == seed and number in row]))
            for seed in seeds
        ]

    values = {arm: {c.number: by_seed(arm, c.number) for c in columns} for arm in result.runs}
    return dotted(values, {c.number: c.label for c in columns})


def settings(result: Result, rows: Sequence[Row], columns: Sequence[Column]) -> Figure:
    """Draw the answer of `analyses.reconfigured`: the columns' numbers by setting, each seed as a faint dot."""
    names = dict.fromkeys(str(row["setting"]) for row in rows)
    values = {
        name: {c.number: [float(row[c.number]) for row in rows if row["setting"] == name] for c in columns}
        for name in names
    }
    return dotted(values, {c.number: c.label for c in columns})


def by_number(
    result: Result, rows: Sequence[Row], columns: Sequence[Column], number: str, label: str, of: str = "arm"
) -> Figure:
    """Draw measurements over a number, such as rounds or steps: axes per column, a line per arm, seeds faint.

    Args:
        number: the column of `rows` along the axis, which is called `label`.
        of: the column of `rows` that tells the lines apart.
    """
    figure, axes = blank(len(columns), 7.2)
    for one, column in zip(axes, columns, strict=True):
        for arm, colour in zip(dict.fromkeys(row[of] for row in rows), itertools.cycle(COLOURS), strict=False):
            mine = [row for row in rows if row[of] == arm]
            places = sorted({float(row[number]) for row in mine})
            by_place = [[float(row[column.number]) for row in mine if row[number] == place] for place in places]
            mean_line(one, places, list(zip(*by_place, strict=True)), colour, str(arm), "o-")
        one.set_xlabel(label)
        one.xaxis.set_major_locator(MaxNLocator(integer=True))
        one.set_ylabel(column.label)
    legend(figure, axes[0])
    return figure


def traded(result: Result, rows: Sequence[Row], across: Column, up: Column, ways: Sequence[str]) -> Figure:
    """Draw one column against another, a dot per run: the mean over its cases; and a line per way to learn.

    An arm is of the way that its name begins with, up to a comma. A line leads from arm to arm of a way, by
    their means over runs, in the order of the column `across`.
    """
    figure, (axis,) = blank()
    for way, colour in zip(ways, COLOURS, strict=False):
        arms = [arm for arm in result.runs if arm.split(",")[0] == way and arm in result.rows]
        means = []
        for arm in arms:
            seeds = dict.fromkeys(row["seed"] for row in result.rows[arm])
            runs = [mean_of([row for row in result.rows[arm] if row["seed"] == seed]) for seed in seeds]
            places = [(run[across.number], run[up.number]) for run in runs]
            axis.plot(*zip(*places, strict=True), "o", color=colour, alpha=0.35, markersize=4)
            means.append(tuple(np.mean(places, 0)))
        if means:
            axis.plot(*zip(*sorted(means), strict=True), "o-", color=colour, label=way, linewidth=1.2, markersize=5)
    axis.set_xlabel(across.label)
    axis.set_ylabel(up.label)
    legend(figure, axis)
    return figure


def contours(result: Result, rows: Sequence[Row]) -> Figure:
    """Draw the answer of `analyses.landscape`: the energy around each arm's weights, less that at the weights."""
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    places = sorted({float(row["first"]) for row in rows})
    planes = {}
    for arm in arms:
        energy = {(row["first"], row["second"]): float(row["energy"]) for row in rows if row["arm"] == arm}
        planes[arm] = np.array([[energy[a, b] for a in places] for b in places])
    middle = len(places) // 2
    heights = {arm: plane - plane[middle, middle] for arm, plane in planes.items()}
    levels = np.linspace(np.nanmin([*heights.values()]), np.nanmax([*heights.values()]), 17)
    figure, axes = blank(len(arms), 3.4 * len(arms))
    for one, (arm, plane) in zip(axes, planes.items(), strict=True):
        drawn = one.contour(places, places, heights[arm], levels=levels, cmap=MIDDLE, linewidths=1.2)
        one.plot(0, 0, "+", color=INK)
        one.set_aspect("equal")
        one.set_title(f"{arm}: {plane[middle, middle]:.3f} at its weights", color=INK, fontsize=10)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.8, ticks=MaxNLocator(5))
    bar.set_label("energy − that at the weights", color=INK)
    bar.ax.tick_params(colors=INK, labelcolor=INK)
    bar.outline.set_visible(False)
    return figure


def _logged(run: Path, table: str, column: str) -> tuple[list[float], list[float]]:
    """Read updates and values of a run; the first of two halves is in a folder within, and comes before."""
    at, values = _logged(run / "first", table, column) if (run / "first" / table).is_file() else ([], [])
    before = at[-1] if at else 0.0
    rows = [row for row in read_csv(run / table) if column in row]
    return at + [before + float(row["update"]) for row in rows], values + [float(row[column]) for row in rows]
