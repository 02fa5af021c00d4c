"""A figure of structural types: who is where, what the dimensions tell, how many types, and where each differs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from pullback.methods.group.structural_types import Typed
from pullback.records.atomic import atomic_write
from pullback.report.figures import COLOURS, INK, blank

ACROSS = 3


def draw_types(found: Typed, kinds: Sequence[str], maps: Sequence[Tensor] = ()) -> Figure:
    """Draw the scores by type, the spectrum, both criteria, and of each type a map.

    Args:
        found: the types.
        kinds: names of the kinds of distances.
        maps: of the variability of each type, `(i, j[, k])`, of volumes the middle slice is shown; or none.
    """
    rows = 1 + -(-len(maps) // ACROSS)
    figure, axes = blank(ACROSS, 9.6, 3.2 * rows, rows)
    _scores(axes[0], found, kinds[0])
    for n, (embedding, kind) in enumerate(zip(found.embeddings, kinds, strict=True)):
        places = np.arange(len(embedding.explained)) + 1 + 0.4 * (n - (len(kinds) - 1) / 2)
        axes[1].bar(places, 100 * embedding.explained.numpy(), 0.36, color=COLOURS[n], label=kind)
    axes[1].set_xlabel("dimension")
    axes[1].set_ylabel("explained, %")
    axes[1].legend(frameon=False, labelcolor=INK)
    _criteria(axes[2], found)
    for k, (one, values) in enumerate(zip(axes[ACROSS:], maps, strict=False)):
        flat = values if values.ndim == 2 else values[..., values.shape[2] // 2]
        one.imshow(flat.numpy().T, origin="lower", cmap="magma", vmin=0)
        one.set_title(f"type {k + 1}: {found.sizes[k]} people, variability", fontsize=9)
        one.set_axis_off()
    for spare in axes[ACROSS + len(maps) :]:
        spare.remove()
    return figure


def _scores(axis: Axes, found: Typed, kind: str) -> None:
    points = found.embeddings[0].coordinates.numpy()
    second = min(1, points.shape[1] - 1)
    for k, size in enumerate(found.sizes):
        own = points[(found.types == k).numpy()]
        axis.plot(own[:, 0], own[:, second], "o", color=COLOURS[k], markersize=3.5, label=f"type {k + 1} ({size})")
        medoid = points[found.typical(k)]
        axis.plot(medoid[0], medoid[second], "P", color=COLOURS[k], markeredgecolor=INK, markersize=10)
    axis.set_xlabel(f"{kind} 1")
    axis.set_ylabel(f"{kind} {second + 1}")
    axis.legend(frameon=False, labelcolor=INK, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def _criteria(axis: Axes, found: Typed) -> None:
    axis.set_xlabel("types")
    if not found.bic:
        axis.set_title("too few people", fontsize=9, color=INK)
        return
    first = found.bic[1]
    axis.plot([*found.bic], [value - first for value in found.bic.values()], "o-", color=COLOURS[0], label="BIC")
    axis.set_ylabel("BIC over that of one type", color=COLOURS[0])
    other = axis.twinx()
    other.plot([*found.silhouette], [*found.silhouette.values()], "s--", color=COLOURS[1], label="silhouette")
    other.set_ylabel("silhouette", color=COLOURS[1])
    other.spines[["top"]].set_visible(False)


def write_types(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, on white."""
    FigureCanvasAgg(figure)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, facecolor="white")
