"""Figures of uncertainty: a deviation over its image, errors by their deviation, and histograms of dose with bands."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pullback.metrics.calibration import Bin
from pullback.metrics.dose import Band
from pullback.records.atomic import atomic_write
from pullback.report.figures import COLOURS, INK, blank, legend, write_figure
from pullback.space import Image, canonical


def draw_deviation(image: Image, deviation: Image, path: Path) -> None:
    """Draw the middle planes of an image, and over them a deviation `(1, 1, *spatial)` in mm, as PNG."""
    below, above = (canonical(each).data[0, 0].detach().cpu().double().numpy() for each in (image, deviation))
    spacing = canonical(image).grid.spacing.tolist()
    planes = [(0, 1)] if below.ndim == 2 else [(1, 2), (0, 2), (0, 1)]
    figure, axes = blank(2 * len(planes), 3.0 * 2 * len(planes), 3.2)
    middle = [n // 2 for n in below.shape]
    top = float(np.quantile(above, 0.99))
    for axis, (a, b) in zip(axes, [plane for plane in planes for _ in range(2)], strict=True):
        at = tuple(slice(None) if n in (a, b) else middle[n] for n in range(below.ndim))
        shown = {"origin": "lower", "aspect": spacing[b] / spacing[a]}
        axis.imshow(below[at].T, cmap="gray", **shown)
        if axis in axes[1::2]:
            drawn = axis.imshow(above[at].T, cmap="inferno", vmin=0, vmax=top, alpha=0.75, **shown)
        axis.set_axis_off()
    bar = figure.colorbar(drawn, ax=axes, fraction=0.03)
    bar.set_label("deviation, mm", color=INK)
    bar.ax.tick_params(colors=INK)
    FigureCanvasAgg(figure)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=90, facecolor="white")


def draw_bins(bins: Sequence[Bin], path: Path) -> None:
    """Draw the root mean square error in each bin of the deviation, and how many errors there are, as SVG."""
    figure, axes = blank(1, 5.2, 3.6)
    (axis,) = axes
    middles = [(one.low + one.high) / 2 for one in bins]
    counts = axis.twinx()
    counts.bar(middles, [one.count for one in bins], [0.9 * (one.high - one.low) for one in bins], color=INK, alpha=0.2)
    counts.set_ylabel("errors", color=INK)
    counts.tick_params(colors=INK)
    axis.plot([0, bins[-1].high], [0, bins[-1].high], "--", color=INK, label="as large as was said")
    axis.plot(middles, [one.error for one in bins], "o", color=COLOURS[0], label="root mean square error")
    axis.set_xlabel("deviation, mm")
    axis.set_ylabel("error, mm")
    legend(figure, axis)
    write_figure(figure, path)


def draw_histograms(
    bands: Mapping[str, Band | None],
    curves: Mapping[str, np.ndarray],
    shares: np.ndarray,
    others: Mapping[str, Mapping[str, np.ndarray]],
    path: Path,
) -> None:
    """Draw D_v of each structure with its band, as SVG; of other doses it is dashed.

    Args:
        bands: by structure; None of one without.
        curves: D_v `(n,)` by structure.
        shares: v `(n,)`, 0 … 1.
        others: by the name of another dose, D_v by structure.
    """
    figure, axes = blank(1, 7.2, 4.4)
    (axis,) = axes
    styles = dict(zip(others, cycle(("--", ":", "-.")), strict=False))
    for (name, curve), colour in zip(curves.items(), cycle(COLOURS), strict=False):
        drawn = bands[name]
        if drawn is not None:
            axis.fill_betweenx(
                100 * shares, drawn.low.numpy(), drawn.high.numpy(), color=colour, alpha=0.3, linewidth=0
            )
        axis.plot(curve, 100 * shares, color=colour, label=name, linewidth=1.4)
        for other, known in others.items():
            axis.plot(known[name], 100 * shares, styles[other], color=colour, linewidth=1.0)
    for other, style in styles.items():
        axis.plot([], [], style, color=INK, label=other)
    axis.set_xlabel("dose, Gy")
    axis.set_ylabel("volume, %")
    axis.set_xlim(left=0)
    axis.set_ylim(0, 101)
    legend(figure, axis)
    write_figure(figure, path)
