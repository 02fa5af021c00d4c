"""Outcomes of a study as figures: vectors, without a ground of their own, in tones that show on white and on black."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import spearmanr

from pullback.records.atomic import atomic_write
from pullback.records.csv_records import read_csv
from pullback.study.pictures import JACOBIAN, cuts, grid_step, jacobian_limit, jacobian_picture, lattice, ramp
from pullback.study.study import Outcome, Row
from pullback.study.tables import over_seeds, records
from pullback.training import align

INK = "#858585"
COLOURS = ("#4f8fd6", "#e08a3c", "#4aa87a", "#b678d6", "#d8626c", "#a39a3f", "#46a9b8", "#c98aa5", "#8f8f8f", "#7f9a52")
STYLES = tuple(itertools.product(("-", "--", ":"), COLOURS))
MIDDLE = ListedColormap(colormaps["viridis"](np.linspace(0.3, 0.85, 256)))  # neither as dark nor as light as a page
WIDTH, HEIGHT = 6.4, 3.4  # inches
BOXES = 40  # in a row of the figure


def write_figure(figure: Figure, path: Path) -> None:
    """As SVG whose text stays text."""
    FigureCanvasSVG(figure)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="svg", transparent=True, metadata={"Date": None})


def blank(columns: int = 1, width: float = WIDTH, height: float = HEIGHT, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with so many axes beside each other, and so many rows of them."""
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


def curves(outcome: Outcome, rows: Sequence[Row]) -> Figure:
    """Validation over the updates: Dice and folding, a line per arm, the mean over seeds with each seed faint."""
    figure, axes = blank(2, 7.2)
    for one, measure, name in zip(axes, ("dice", "folding %"), ("validation Dice", "folding, %"), strict=True):
        for (arm, runs), (style, colour) in zip(outcome.runs.items(), STYLES, strict=False):
            lines = [_logged(run.folder, "validation.csv", measure) for run in runs.values()]
            _line(one, lines[0][0], [values for _, values in lines], colour, arm, style)
        one.set_xlabel("updates")
        one.set_ylabel(name)
    legend(figure, axes[0])
    return figure


def weights(outcome: Outcome, rows: Sequence[Row]) -> Figure:
    """What weight each loss has over the updates, a panel per arm whose weights learn, its first seed; two a row."""
    first = {arm: next(iter(runs.values())).folder for arm, runs in outcome.runs.items()}
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
                one.plot(
                    *_logged(first[arm], "training.csv", name),
                    color=colour,
                    linewidth=1.3,
                    label=name.removeprefix("weight/"),
                )
        one.set_title(arm)
        one.set_xlabel("updates")
        one.set_ylabel("weight")
    legend(figure, axes[panels - 1])
    return figure


def boxes(outcome: Outcome, rows: Sequence[Row]) -> Figure:
    """Dice of each label over the test pairs, a box per arm; by rising median of the reference, in rows."""
    averaged = {arm: over_seeds(rows) for arm, rows in outcome.rows.items()}
    names = sorted({key for rows in averaged.values() for row in rows for key in row if key.startswith("dice/")})
    values = {
        arm: {name: [float(row[name]) for row in rows if name in row] for name in names}
        for arm, rows in averaged.items()
    }
    if not names:
        return blank()[0]
    names.sort(key=lambda name: float(np.median(values[outcome.reference][name])))
    lines = [list(some) for some in np.array_split(names, math.ceil(len(names) * len(averaged) / BOXES))]
    few = len(lines[0])
    arms = [*outcome.runs, *(arm for arm in averaged if arm not in outcome.runs)]  # as the other figures colour them
    colours = dict(zip(arms, itertools.cycle(COLOURS), strict=False)) | {"before": INK}
    every = [value for by_label in values.values() for label in by_label.values() for value in label]
    ends = min(every) - 0.02, max(every) + 0.02
    figure, axes = blank(1, max(WIDTH, 0.16 * few * len(averaged) + 1.5), max(HEIGHT, 1.7 * len(lines)), len(lines))
    for axis, some in zip(axes, lines, strict=True):
        _boxed(axis, some, values, colours)
        axis.set_xlim(-0.6, few - 0.4)
        axis.set_ylim(*ends)
        axis.set_ylabel("Dice")
    axes[-1].set_xlabel("label")
    legend(figure, axes[0])
    return figure


def _boxed(
    axis: Axes, names: Sequence[str], values: Mapping[str, Mapping[str, Sequence[float]]], colours: Mapping[str, str]
) -> None:
    """For each of the names a box of each arm, beside each other."""
    width = 0.8 / len(values)
    for n, (arm, by_label) in enumerate(values.items()):
        colour = colours[arm]
        line = {"color": colour, "linewidth": 0.9}
        axis.boxplot(
            [by_label[name] for name in names],
            positions=np.arange(len(names)) + (n - (len(values) - 1) / 2) * width,
            widths=0.8 * width,
            manage_ticks=False,
            patch_artist=True,
            boxprops={"facecolor": colour, "edgecolor": colour, "alpha": 0.75},
            medianprops={"color": "white", "linewidth": 1.0},
            whiskerprops=line,
            capprops=line,
            flierprops={"marker": ".", "markersize": 2, "markeredgecolor": colour},
        )
        axis.plot([], [], color=colour, linewidth=4, label=arm)
    axis.set_xticks(range(len(names)), [name.removeprefix("dice/") for name in names], fontsize=8)


def fields(outcome: Outcome, rows: Sequence[Row]) -> Figure:
    """The first test pair in its middle plane: the images, and of each arm's first seed the moved one, a grid through
    the transform, and the change of volume."""
    pair = next(iter(outcome.recipe.data.test))
    answers = {arm: align(outcome.network(arm, next(iter(runs))), pair) for arm, runs in outcome.runs.items()}
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


def distances(outcome: Outcome, rows: Sequence[Row]) -> Figure:
    """Of `probes.by_distance`: by how much each test pair's Dice differs from the reference's, against its Dice before,
    both means over seeds; and Spearman's rank correlation of the two."""
    figure, (axis,) = blank()
    dice = {
        arm: {str(row["pair"]): float(row["dice"]) for row in over_seeds(each) if "dice" in row}
        for arm, each in outcome.rows.items()
    }
    axis.axhline(0, color=INK, linewidth=0.8)
    for arm, colour in zip(outcome.runs, itertools.cycle(COLOURS), strict=False):
        if arm != outcome.reference:
            pairs = sorted(dice["before"].keys() & dice[arm].keys())
            before = [dice["before"][pair] for pair in pairs]
            gains = [dice[arm][pair] - dice[outcome.reference][pair] for pair in pairs]
            known = len(set(before)) > 1 and len(set(gains)) > 1
            label = f"{arm}, ρ {float(spearmanr(before, gains).statistic):+.2f}" if known else arm
            axis.plot(before, gains, "o", color=colour, markersize=4, alpha=0.8, label=label)
    axis.set_xlabel("Dice before")
    axis.set_ylabel(f"Dice − that of {outcome.reference}")
    legend(figure, axis)
    return figure


def dots(outcome: Outcome, rows: Sequence[Row]) -> Figure:
    """Dice and folding of each arm: the mean over pairs and seeds, and each seed as a faint dot."""
    known = {(r["arm"], r["measure"]): r["mean"] for r in records(outcome)}

    def seeds(arm: str, measure: str) -> list[float]:
        each = (
            [float(row[measure]) for row in outcome.rows[arm] if row["seed"] == str(seed)] for seed in outcome.seeds
        )
        return [float(np.mean(values)) for values in each]

    measures = {"dice": "Dice", "folding %": "folding, %"}
    return _dotted({arm: {m: (known[arm, m], seeds(arm, m)) for m in measures} for arm in outcome.runs}, measures)


def settings(outcome: Outcome, rows: Sequence[Row]) -> Figure:
    """Of `probes.reconfigured`: Dice and SDlogJ by setting, each seed as a faint dot."""
    measures = {"dice": "Dice", "sdlogj": "SDlogJ"}
    values: dict[str, dict[str, tuple[float, list[float]]]] = {}
    for name in dict.fromkeys(str(row["setting"]) for row in rows):
        each = {m: [float(row[m]) for row in rows if row["setting"] == name] for m in measures}
        values[name] = {m: (float(np.mean(seeds)), seeds) for m, seeds in each.items()}
    return _dotted(values, measures)


def by_round(outcome: Outcome, rows: Sequence[Row]) -> Figure:
    """Of `probes.by_rounds`: validation Dice and SDlogJ after each round, a line per arm, seeds faint."""
    return _by_number(outcome, rows, "round", {"dice": "validation Dice", "sdlogj": "SDlogJ"}, "round")


def refinement(outcome: Outcome, rows: Sequence[Row]) -> Figure:
    """Of `probes.refined`: Dice and folding over the steps of refinement, a line per arm, seeds faint."""
    return _by_number(outcome, rows, "steps", {"dice": "Dice", "folding %": "folding, %"}, "steps of refinement")


def progress(outcome: Outcome, rows: Sequence[Row]) -> Figure:
    """Of `probes.descended`: Dice and energy over the steps of the optimiser, a line per start."""
    figure, axes = blank(2, 7.2)
    for one, measure, name in zip(axes, ("dice", "energy"), ("Dice", "energy"), strict=True):
        for start, colour in zip(dict.fromkeys(row["start"] for row in rows), COLOURS, strict=False):
            mine = [row for row in rows if row["start"] == start]
            values = [float(row[measure]) for row in mine]
            one.plot([float(row["steps"]) for row in mine], values, color=colour, label=start)
        one.set_xlabel("steps")
        one.set_ylabel(name)
    legend(figure, axes[0])
    return figure


def contours(outcome: Outcome, rows: Sequence[Row]) -> Figure:
    """Of `probes.landscape`: the energy around the weights of each arm, less that at the weights, on one scale."""
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


def _by_number(outcome: Outcome, rows: Sequence[Row], number: str, measures: Mapping[str, str], label: str) -> Figure:
    """Axes per measure, and in them a line per arm over the column `number`, seeds faint."""
    figure, axes = blank(len(measures), 7.2)
    for one, (measure, name) in zip(axes, measures.items(), strict=True):
        for arm, colour in zip(outcome.runs, itertools.cycle(COLOURS), strict=False):
            mine = [row for row in rows if row["arm"] == arm]
            places = sorted({float(row[number]) for row in mine})
            by_place = [[float(row[measure]) for row in mine if row[number] == place] for place in places]
            _line(one, places, list(zip(*by_place, strict=True)), colour, arm, "o-")
        one.set_xlabel(label)
        one.set_xticks(places)
        one.set_ylabel(name)
    legend(figure, axes[0])
    return figure


def _dotted(values: Mapping[str, Mapping[str, tuple[float, list[float]]]], measures: Mapping[str, str]) -> Figure:
    """By name and measure a mean and what it is the mean of: a row of dots per name, axes per measure."""
    figure, axes = blank(len(measures), 7.2, 0.34 * len(values) + 1.2)
    for one, (measure, label) in zip(axes, measures.items(), strict=True):
        for n, (known, colour) in enumerate(zip(values.values(), itertools.cycle(COLOURS), strict=False)):
            mean, each = known[measure]
            one.plot(each, [n] * len(each), "o", color=colour, alpha=0.4, markersize=4)
            one.plot(mean, n, "o", color=colour, markersize=7)
        one.set_yticks(range(len(values)), list(values) if one is axes[0] else [""] * len(values))
        one.invert_yaxis()
        one.grid(axis="y", color=INK, alpha=0.25)
        one.xaxis.set_major_locator(MaxNLocator(4))
        one.set_xlabel(label)
    return figure


def _line(
    axis: Axes, at: Sequence[float], lines: Sequence[Sequence[float]], colour: str, label: str, style: str
) -> None:
    """The mean of lines, one per seed, and where there are several each of them faint."""
    for line in lines if len(lines) > 1 else ():
        axis.plot(at, line, color=colour, alpha=0.35, linewidth=0.8)
    axis.plot(at, np.mean(lines, 0), style, color=colour, label=label, linewidth=1.6, markersize=4)


def legend(figure: Figure, axis: Axes) -> None:
    handles, names = axis.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4, frameon=False, labelcolor=INK, fontsize=9)


def _logged(run: Path, table: str, column: str) -> tuple[list[float], list[float]]:
    """Updates and values; of a run in two halves the first is in a folder within, and comes before."""
    at, values = _logged(run / "first", table, column) if (run / "first" / table).is_file() else ([], [])
    before = at[-1] if at else 0.0
    rows = [row for row in read_csv(run / table) if column in row]
    return at + [before + float(row["update"]) for row in rows], values + [float(row[column]) for row in rows]
