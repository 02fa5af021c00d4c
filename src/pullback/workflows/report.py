"""The page that a person looks at after a registration: one HTML file that needs nothing else."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np
from torch import Tensor

from pullback.alignment import Alignment
from pullback.records.atomic import atomic_write
from pullback.space import Grid, Image, Transform
from pullback.study import pictures
from pullback.study.pictures import DIFFERENCE, FIXED, FOLDED, JACOBIAN, MOVED, Cut, picture

__all__ = ["picture", "write_report"]


def write_report(
    alignment: Alignment,
    path: str | Path,
    title: str,
    numbers: Mapping[str, Mapping[str, float]],
    notes: Sequence[str] = (),
    table: Sequence[Mapping[str, str]] = (),
    begin: Transform | None = None,
) -> None:
    """One self-contained HTML file: pictures before and after, the transform, the numbers.

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
    page = Template((files("pullback.workflows") / "report.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        about=_about(alignment),
        numbers=_numbers(numbers),
        notes="".join(f"<li>{escape(note)}</li>" for note in notes),
        table=_table(table),
        **_plates(shown),
        maps=_maps(shown, alignment),
        **_facts(shown),
        where=_where(shown),
        store=_store(shown),
        kind=("flat" if len(shown.cuts) == 1 else "solid") + ("" if shown.cuts[0].labels else " unlabelled"),
        columns=" ".join(f"{cut.plane.size[0]}fr" for cut in shown.cuts),
        widest=max(cut.plane.size[0] for cut in shown.cuts),
        version=escape(version("pullback")),
        difference_stops=_stops(DIFFERENCE),
        jacobian_stops=_stops(JACOBIAN),
        fixed_colour=FIXED,
        moved_colour=MOVED,
        folded_colour=FOLDED,
    )
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


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
    named = f"{escape(pair.name)}. " if pair.name else ""
    return f"{named}Fixed: {_lattice(pair.fixed.grid)}. Moving: {_lattice(pair.moving.grid)}."


def _lattice(grid: Grid) -> str:
    spacing = [f"{mm:.3g}" for mm in grid.spacing.tolist()]
    edges = spacing[0] if len(set(spacing)) == 1 else " × ".join(spacing)
    return f"{' × '.join(map(str, grid.shape))} voxels of {edges} mm"


def _numbers(numbers: Mapping[str, Mapping[str, float]]) -> str:
    names = list(dict.fromkeys(name for column in numbers.values() for name in column))
    whole, parts = [n for n in names if "/" not in n], [n for n in names if "/" in n]
    folded = f"<details><summary>Each label</summary>{_grid_of(numbers, parts)}</details>" if parts else ""
    return (_grid_of(numbers, whole) if whole else "") + folded


def _grid_of(numbers: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> str:
    rows = [{"": name} | {key: _number(column.get(name)) for key, column in numbers.items()} for name in names]
    return tabular(rows)


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "–"
    value = round(value, 9)
    size = abs(value)
    text = f"{value:,.0f}" if size >= 1000 else f"{value:.3f}" if size >= 0.01 else f"{value:.2g}"
    return text.replace("-", "−", 1) if value < 0 else text


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    return f'<div class="compared">{tabular(rows)}</div>' if rows else ""


def tabular(rows: Sequence[Mapping[str, str]]) -> str:
    header = list(rows[0])
    head = "".join(f'<th scope="col">{escape(str(key))}</th>' for key in header)
    body = ""
    for row in rows:
        first, *rest = (escape(str(row.get(key, "–"))) for key in header)
        body += f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in rest) + "</tr>"
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _where(shown: _Shown) -> str:
    """Where the planes lie, in words; nothing in 2D."""
    names = [f"{cut.plane.name.lower()} at {cut.plane.where}" for cut in shown.cuts if cut.plane.where]
    return f"<p>The planes: {', '.join(names)}.</p>" if names else ""


def _facts(shown: _Shown) -> dict[str, str]:
    """The numbers that stand beside the pictures."""
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


def _store(shown: _Shown) -> str:
    """Every picture once; the plates use them by name."""
    out = ""
    for n, cut in enumerate(shown.cuts):
        columns, rows = cut.plane.size
        box = f'width="{columns}" height="{rows}" preserveAspectRatio="none"'
        for name, uri in _pngs(cut, shown).items():
            out += f'<image id="{name}-{n}" {box} href="{uri}"/>'
        out += f'<clipPath id="squares-{n}"><path d="{_squares(columns, rows)}"/></clipPath>'
    return out


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


def _maps(shown: _Shown, alignment: Alignment) -> str:
    """A section for each map that the register knows beside the transform."""
    return "".join(_map(shown, name, image) for name, image in alignment.maps.items())


def _map(shown: _Shown, name: str, image: Image) -> str:
    called = escape(name.replace("_", " ").capitalize())
    low, high = (_number(float(end)) for end in (image.data[0, 0].min(), image.data[0, 0].max()))
    words = f"<h2>{called}</h2><p>What the register knows beside the transform. Black {low}, white {high}.</p>"
    planes = _planes(shown, called, _alone(f"map-{name}"))
    return f'<section><div class="words">{words}</div><div class="planes">{planes}</div></section>'


def _squares(columns: int, rows: int) -> str:
    """Every other square of a board, as a path in pixels."""
    edge = _edge(columns, rows)
    corners = ((i, j) for j in range(0, rows, edge) for i in range((j // edge % 2) * edge, columns, 2 * edge))
    return "".join(f"M{i} {j}h{edge}v{edge}h-{edge}z" for i, j in corners)


def _edge(columns: int, rows: int) -> int:
    return max(2, round(max(columns, rows) / 9))


def _use(name: str, n: int, extra: str = "") -> str:
    return f'<use href="#{name}-{n}"{extra}/>'


def _either(draw: Callable[[str], str]) -> str:
    """What is drawn before and what after; the switch decides."""
    return "".join(f'<g class="{state}">{draw(state)}</g>' for state in ("before", "after"))


def _plates(shown: _Shown) -> dict[str, str]:
    """Each section's planes, by the name under which the page asks for them."""
    step = pictures.grid_step(shown.cuts)
    return {
        "fixed": _planes(shown, "Fixed image", _alone("fixed")),
        "moving": _planes(shown, "Moving image before registration", _alone("before")),
        "moved": _planes(shown, "Moving image after registration", _alone("after")),
        "blend": _planes(shown, "Blend of fixed and moving image", _blend),
        "board": _planes(shown, "Checkerboard of fixed and moving image", _board),
        "difference": _planes(shown, "Difference of moving and fixed image", _difference),
        "labels": _planes(shown, "Outlines of fixed and moving labels", _labels) if shown.cuts[0].labels else "",
        "deformation": _planes(shown, "Deformed grid over the fixed image", _deformation(step)),
        "volume": _planes(shown, "Map of the Jacobian determinant", _alone("jacobian")),
    }


def _planes(shown: _Shown, what: str, draw: Callable[[Cut, int], str]) -> str:
    return "".join(_plane(what, cut, draw(cut, n)) for n, cut in enumerate(shown.cuts))


def _plane(what: str, cut: Cut, drawn: str) -> str:
    columns, rows = cut.plane.size
    where = f", {cut.plane.name.lower()} plane at {cut.plane.where}" if cut.plane.where else ""
    sides = zip(("left", "right", "bottom", "top"), cut.plane.ends, strict=True)
    ends = "".join(f'<span class="{side}" aria-hidden="true">{end}</span>' for side, end in sides)
    return (
        f'<figure class="plane" style="--w:{columns}"><svg viewBox="0 0 {columns} {rows}" role="img" '
        f'aria-label="{what}{where}">{drawn}</svg>{ends}</figure>'
    )


def _alone(name: str) -> Callable[[Cut, int], str]:
    return lambda _, n: _use(name, n)


def _blend(cut: Cut, n: int) -> str:
    return _use("fixed", n) + f'<g class="over">{_either(lambda state: _use(state, n))}</g>'


def _board(cut: Cut, n: int) -> str:
    (columns, rows), edge = cut.plane.size, _edge(*cut.plane.size)
    lines = "".join(f"M{x} 0V{rows}" for x in range(edge, columns, edge))
    lines += "".join(f"M0 {y}H{columns}" for y in range(edge, rows, edge))
    board = f'<path class="line board" d="{lines}"/>'
    return _use("fixed", n) + _either(lambda state: _use(state, n, f' clip-path="url(#squares-{n})"')) + board


def _difference(cut: Cut, n: int) -> str:
    return _either(lambda state: _use(f"difference-{state}", n))


def _labels(cut: Cut, n: int) -> str:
    moving = _either(lambda state: f'<path class="line moved" d="{pictures.borders(cut.labels[state])}"/>')
    fixed = f'<path class="line fixed" d="{pictures.borders(cut.labels["fixed"])}"/>'
    return f'<g class="faint">{_use("fixed", n)}</g><g class="both">{fixed}{moving}</g>'


def _deformation(step: float) -> Callable[[Cut, int], str]:
    def draw(cut: Cut, n: int) -> str:
        return f'<g class="faint">{_use("fixed", n)}</g><path class="line grid" d="{pictures.grid_lines(cut, step)}"/>'

    return draw


def _stops(colours: Sequence[str]) -> str:
    """A colour bar's gradient."""
    last = len(colours) - 1
    return "".join(f'<stop offset="{n / last:g}" stop-color="{colour}"/>' for n, colour in enumerate(colours))
