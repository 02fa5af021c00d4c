"""Outputs of the registration of two clouds: their picture, and what is known of points."""

from pathlib import Path

from torch import Tensor

from pullback.example import PointAlignment
from pullback.records.atomic import atomic_write
from pullback.report.pictures import ENDS, FIXED, MOVED, PLANES
from pullback.space import Points

DRAWN_WITH = ("matplotlib.backends.backend_agg", "matplotlib.figure")  # imported late, when all is done


def known_of_points(answer: PointAlignment) -> list[dict[str, float]]:
    """Return a row for each fixed point: its label, where it lies, and what the register knows of it."""
    points, label = answer.pair.fixed.data[0], answer.pair.fixed.label
    columns = {} if label is None else {"label": label[0]}
    columns |= dict(zip("RAS", points.mT, strict=False)) | dict(answer.columns)
    return [dict(zip(columns, row, strict=True)) for row in zip(*map(Tensor.tolist, columns.values()), strict=True)]


def draw_clouds(fixed: Points, moved: Points, moving: Points, path: Path) -> None:
    """Draw the fixed cloud over the moving one, before and after, seen along each axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 (slow to import)
    from matplotlib.figure import Figure  # noqa: PLC0415

    views = PLANES if fixed.data.shape[2] == 3 else (("", 0, 1),)
    figure = Figure(figsize=(3.4 * len(views), 6.6), dpi=140, facecolor="#14171b", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(views), squeeze=False, sharex="col", sharey="col")
    for row, (cloud, when) in zip(axes, ((fixed, "before"), (moved, "after")), strict=True):
        for axis, (name, right, up) in zip(row, views, strict=True):
            for points, colour, label in ((moving, MOVED, "moving"), (cloud, FIXED, "fixed")):
                where = points.data[0].cpu()
                axis.scatter(where[:, right], where[:, up], s=3, color=colour, linewidths=0, label=label)
            axis.set_aspect("equal")
            axis.set_facecolor("#14171b")
            axis.tick_params(colors="#9aa3ad", labelsize=7)
            for spine in axis.spines.values():
                spine.set_color("#3a4149")
            axis.set_title(f"{name}, {when}" if name else when, color="#d9dde2", size=10)
            if name:
                axis.set_xlabel(" → ".join(ENDS[right]), color="#9aa3ad", size=8)
                axis.set_ylabel(" → ".join(ENDS[up]), color="#9aa3ad", size=8)
    shown, names = axes[0][0].get_legend_handles_labels()
    figure.legend(shown, names, loc="outside lower center", ncols=2, frameon=False, labelcolor="#d9dde2", markerscale=3)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", facecolor=figure.get_facecolor())
