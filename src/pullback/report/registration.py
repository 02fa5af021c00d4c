"""The report of a registration: one HTML file that needs nothing else."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pullback.alignment import Alignment
from pullback.records.manifest import known_version
from pullback.report import pictures
from pullback.report.page import write_page
from pullback.report.pictures import DIFFERENCE, FIXED, FOLDED, JACOBIAN, MOVED, Cut
from pullback.space import Grid, Image, Transform


def write_report(
    alignment: Alignment,
    path: str | Path,
    title: str,
    numbers: Mapping[str, Mapping[str, float]],
    notes: Sequence[str] = (),
    table: Sequence[Mapping[str, str]] = (),
    begin: Transform | None = None,
) -> None:
    """Write one self-contained HTML file: pictures before and after, the transform, the numbers.

    Args:
        alignment: one pair, 2D or 3D; of a batch the first pair, of channels the first.
        path: where to write.
        title: what was aligned.
        numbers: `{"before": {"dice": 0.55}, "after": {"dice": 0.7}}`: a column per key, a row per metric. Rows named
            `"dice/17"` are per label, and folded away.
        notes: sentences, such as what each file is.
        table: rows of formatted strings to show as they are; the keys of the first are the header.
        begin: what "before" is seen through; None for where the headers put the images.
    """
    seen = pictures.cuts(alignment, begin)
    jacobian = alignment.jacobian[:1].detach()
    shown = _Shown(seen, jacobian, pictures.jacobian_limit(jacobian), _difference_limit(seen))
    names = list(dict.fromkeys(name for column in numbers.values() for name in column))
    write_page(
        path,
        "registration",
        title=title,
        about=_about(alignment),
        whole=_numbers(numbers, [name for name in names if "/" not in name]),
        parts=_numbers(numbers, [name for name in names if "/" in name]),
        notes=notes,
        table=[{key: str(row.get(key, "–")) for key in table[0]} for row in table],
        cuts=[_drawn(cut, shown) for cut in seen],
        maps=[_map(name, image) for name, image in alignment.maps.items()],
        facts=_facts(shown),
        version=known_version("pullback"),
        difference_colours=DIFFERENCE,
        jacobian_colours=JACOBIAN,
        fixed_colour=FIXED,
        moved_colour=MOVED,
        folded_colour=FOLDED,
    )


@dataclass(frozen=True, eq=False)
class _Shown:
    """The cuts, det ∇φ of the whole, and the limits of the colours: log₂ det ∇φ, and intensities in 0…1."""

    cuts: list[Cut]
    jacobian: Tensor
    jacobian_limit: float
    difference_limit: float


def _difference_limit(shown: Sequence[Cut]) -> float:
    every = np.concatenate([np.abs(c.before - c.fixed).ravel() for c in shown])
    return max(0.1, math.ceil(20 * float(np.quantile(every, 0.98))) / 20)


# ---- words and numbers


def _about(alignment: Alignment) -> str:
    pair = alignment.pair
    named = f"{pair.name}. " if pair.name else ""
    return f"{named}Fixed: {_lattice(pair.fixed.grid)}. Moving: {_lattice(pair.moving.grid)}."


def _lattice(grid: Grid) -> str:
    spacing = [f"{mm:.3g}" for mm in grid.spacing.tolist()]
    edges = spacing[0] if len(set(spacing)) == 1 else " × ".join(spacing)
    return f"{' × '.join(map(str, grid.shape))} voxels of {edges} mm"


def _numbers(numbers: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> list[dict[str, str]]:
    return [{"": name} | {key: _number(column.get(name)) for key, column in numbers.items()} for name in names]


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "–"
    value = round(value, 12)
    size = abs(value)
    text = f"{value:,.0f}" if size >= 1000 else f"{value:.3f}" if size >= 0.01 else f"{value:.2g}"
    return text.replace("-", "−", 1) if value < 0 else text


def _facts(shown: _Shown) -> dict[str, str]:
    """Return the numbers that stand beside the pictures."""
    det, folded = shown.jacobian, int((shown.jacobian <= 0).sum())
    return {
        "step": f"{pictures.grid_step(shown.cuts):g}\N{NO-BREAK SPACE}mm",
        "difference_limit": f"{100 * shown.difference_limit:.0f}\N{NO-BREAK SPACE}%",
        "jacobian_limit": f"{2**shown.jacobian_limit:.3g}",
        "lowest": _number(float(det.min())),
        "highest": _number(float(det.max())),
        "folded": f"{folded:,}",
        "voxels": f"{det.numel():,}",
        "folded_share": f"{100 * folded / det.numel():.3g}\N{NO-BREAK SPACE}%",
    }


# ---- pictures


def _drawn(cut: Cut, shown: _Shown) -> dict[str, Any]:
    """Return the content of the page for a cut: size and place, pictures by name, and lines as SVG paths."""
    columns, rows = cut.plane.size
    edge = max(2, round(max(columns, rows) / 9))
    return {
        "columns": columns,
        "rows": rows,
        "name": cut.plane.name.lower(),
        "where": cut.plane.where,
        "ends": dict(zip(("left", "right", "bottom", "top"), cut.plane.ends, strict=True)),
        "pictures": _pngs(cut, shown),
        "squares": _squares(columns, rows, edge),
        "board": "".join(
            [
                *(f"M{x} 0V{rows}" for x in range(edge, columns, edge)),
                *(f"M0 {y}H{columns}" for y in range(edge, rows, edge)),
            ]
        ),
        "labels": {state: pictures.borders(labels) for state, labels in cut.labels.items()},
        "grid": pictures.grid_lines(cut, pictures.grid_step(shown.cuts)),
    }


def _pngs(cut: Cut, shown: _Shown) -> dict[str, str]:
    limit, colours = shown.difference_limit, pictures.ramp(DIFFERENCE)
    return {
        "fixed": pictures.png(pictures.grey(cut.fixed)),
        "before": pictures.png(pictures.grey(cut.before)),
        "after": pictures.png(pictures.grey(cut.after)),
        "difference-before": pictures.png(pictures.signed(cut.before - cut.fixed, limit), colours),
        "difference-after": pictures.png(pictures.signed(cut.after - cut.fixed, limit), colours),
        "jacobian": pictures.png(*pictures.jacobian_picture(cut.jacobian, shown.jacobian_limit)),
        **{f"map-{name}": pictures.png(pictures.grey(values)) for name, values in cut.maps.items()},
    }


def _squares(columns: int, rows: int, edge: int) -> str:
    """Return every other square of a checkerboard, as a path in pixels."""
    corners = ((i, j) for j in range(0, rows, edge) for i in range((j // edge % 2) * edge, columns, 2 * edge))
    return "".join(f"M{i} {j}h{edge}v{edge}h-{edge}z" for i, j in corners)


def _map(name: str, image: Image) -> dict[str, str]:
    """Return the content of the page for a map: its name, and the values that are black and white."""
    low, high = (_number(float(end)) for end in (image.data[0, 0].min(), image.data[0, 0].max()))
    return {"name": name, "title": name.replace("_", " ").capitalize(), "low": low, "high": high}
