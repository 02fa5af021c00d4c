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
from pullback.files.write import beside
from pullback.space import Grid
from pullback.study.pictures import (
    DIFFERENCE,
    FIXED,
    FOLDED,
    JACOBIAN,
    MOVED,
    Cut,
    borders,
    cuts,
    grey,
    grid_lines,
    grid_step,
    jacobian_limit,
    jacobian_picture,
    picture,
    png,
    ramp,
    signed,
)

__all__ = ["picture", "write_report"]


def write_report(
    alignment: Alignment,
    path: str | Path,
    title: str,
    numbers: Mapping[str, Mapping[str, float]],
    notes: Sequence[str] = (),
    table: Sequence[Mapping[str, str]] = (),
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
    """
    seen = cuts(alignment)
    jacobian = alignment.jacobian[:1].detach()
    shown = _Shown(seen, jacobian, jacobian_limit(jacobian), _difference_limit(seen))
    page = Template((files("pullback.study") / "report.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        about=_about(alignment),
        numbers=_numbers(numbers),
        notes="".join(f"<li>{escape(note)}</li>" for note in notes),
        table=_table(table),
        plates=_plates(shown),
        store=_store(shown),
        kind="flat" if len(shown.cuts) == 1 else "solid",
        colophon=f"Written by pullback {escape(version('pullback'))}. The world is RAS: millimetres to the right, "
        "anterior and superior. Pictures show it with these axes growing rightwards and upwards.",
        fixed_colour=FIXED,
        moved_colour=MOVED,
        folded_colour=FOLDED,
    )
    with beside(path) as temporary:
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
    return _tabular(rows)


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "–"
    size = abs(value)
    text = f"{value:,.0f}" if size >= 1000 else f"{value:.3f}" if size >= 0.01 else f"{value:.2g}"
    return text.replace("-", "−", 1) if value < 0 else text


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    return f'<div class="compared">{_tabular(rows)}</div>' if rows else ""


def _tabular(rows: Sequence[Mapping[str, str]]) -> str:
    header = list(rows[0])
    head = "".join(f'<th scope="col">{escape(str(key))}</th>' for key in header)
    body = ""
    for row in rows:
        first, *rest = (escape(str(row.get(key, "–"))) for key in header)
        body += f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in rest) + "</tr>"
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


# ---- pictures


def _store(shown: _Shown) -> str:
    """Every picture once; the plates use them by name."""
    out = ""
    for n, cut in enumerate(shown.cuts):
        columns, rows = cut.plane.size
        uris = {name: png(grey(v)) for name, v in (("fixed", cut.fixed), ("before", cut.before), ("after", cut.after))}
        for name, values in (("before", cut.before), ("after", cut.after)):
            uris[f"difference-{name}"] = png(signed(values - cut.fixed, shown.difference_limit), ramp(DIFFERENCE))
        uris["jacobian"] = png(*jacobian_picture(cut.jacobian, shown.jacobian_limit))
        out += "".join(
            f'<image id="{name}-{n}" width="{columns}" height="{rows}" preserveAspectRatio="none" href="{uri}"'
            f"{' style=image-rendering:pixelated' if name == 'jacobian' else ''}/>"
            for name, uri in uris.items()
        )
        out += f'<clipPath id="squares-{n}"><path d="{_squares(columns, rows)}"/></clipPath>'
    return out


def _squares(columns: int, rows: int) -> str:
    """Every other square of a board, as a path in pixels."""
    edge = max(2, round(max(columns, rows) / 9))
    corners = ((i, j) for j in range(0, rows, edge) for i in range((j // edge % 2) * edge, columns, 2 * edge))
    return "".join(f"M{i} {j}h{edge}v{edge}h-{edge}z" for i, j in corners)


def _use(name: str, n: int, extra: str = "") -> str:
    return f'<use href="#{name}-{n}"{extra}/>'


def _either(draw: Callable[[str], str]) -> str:
    """What is drawn before and what after; the switch decides."""
    return "".join(f'<g class="{state}">{draw(state)}</g>' for state in ("before", "after"))


def _plates(shown: _Shown) -> str:
    step = f"{grid_step(shown.cuts[0].plane):g} mm"
    sections = [
        _plate(shown, "Fixed", _FIXED + _where(shown.cuts), lambda cut, n: _use("fixed", n)),
        _plate(shown, "Moving", _MOVING, lambda cut, n: _use("before", n)),
        _plate(shown, "Moved", _MOVED, lambda cut, n: _use("after", n)),
        _plate(shown, "Blend", _STATE + _BLEND, _blend),
        _plate(shown, "Checkerboard", _STATE + _BOARD, _board),
        _plate(shown, "Difference", _STATE + _difference_words(shown.difference_limit), _difference),
    ]
    if shown.cuts[0].labels:
        sections.append(_plate(shown, "Labels", _STATE + _LABELS, _labels))
    sections += [
        _plate(shown, "Deformation", _DEFORMATION.format(step=step), _deformation),
        _plate(shown, "Volume change", _VOLUME + _jacobian_bar(shown), lambda cut, n: _use("jacobian", n)),
    ]
    return "".join(sections)


def _plate(shown: _Shown, heading: str, words: str, draw: Callable[[Cut, int], str]) -> str:
    sizes = [cut.plane.size for cut in shown.cuts]
    style = f"--columns:{' '.join(f'{w}fr' for w, _ in sizes)};--widest:{max(w for w, _ in sizes)}"
    planes = "".join(_plane(heading, cut, draw(cut, n)) for n, cut in enumerate(shown.cuts))
    return (
        f'<section><div class="words"><h2>{heading}</h2>{words}</div>'
        f'<div class="planes" style="{style}">{planes}</div></section>\n'
    )


def _where(shown: Sequence[Cut]) -> str:
    """Where the planes lie, in words; nothing in 2D."""
    names = [f"{cut.plane.name.lower()} at {cut.plane.where}" for cut in shown if cut.plane.where]
    return f"<p>The planes: {', '.join(names)}.</p>" if names else ""


def _plane(heading: str, cut: Cut, drawn: str) -> str:
    columns, rows = cut.plane.size
    where = f", {cut.plane.name.lower()} plane at {cut.plane.where}" if cut.plane.where else ""
    sides = zip(("left", "right", "bottom", "top"), cut.plane.ends, strict=True)
    ends = "".join(f'<span class="{side}" aria-hidden="true">{end}</span>' for side, end in sides)
    return (
        f'<figure class="plane" style="--w:{columns}"><svg viewBox="0 0 {columns} {rows}" role="img" '
        f'aria-label="{heading}{where}">{drawn}</svg>{ends}</figure>'
    )


def _blend(cut: Cut, n: int) -> str:
    return _use("fixed", n) + f'<g class="over">{_either(lambda state: _use(state, n))}</g>'


def _board(cut: Cut, n: int) -> str:
    board = f'<path class="line board" d="{_squares(*cut.plane.size)}"/>'
    return _use("fixed", n) + _either(lambda state: _use(state, n, f' clip-path="url(#squares-{n})"')) + board


def _difference(cut: Cut, n: int) -> str:
    return _either(lambda state: _use(f"difference-{state}", n))


def _labels(cut: Cut, n: int) -> str:
    moving = _either(lambda state: f'<path class="line moved" d="{borders(cut.labels[state])}"/>')
    fixed = f'<path class="line fixed" d="{borders(cut.labels["fixed"])}"/>'
    return f'<g class="faint">{_use("fixed", n)}</g><g class="both">{fixed}{moving}</g>'


def _deformation(cut: Cut, n: int) -> str:
    return f'<g class="faint">{_use("fixed", n)}</g><path class="line grid" d="{grid_lines(cut)}"/>'


def _bar(stops: Sequence[str], ends: Sequence[str], name: str) -> str:
    last = len(stops) - 1
    colours = "".join(f'<stop offset="{i / last:g}" stop-color="{stop}"/>' for i, stop in enumerate(stops))
    labels = "".join(f"<span>{escape(end)}</span>" for end in ends)
    return (
        f'<div class="bar"><svg viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true"><defs>'
        f'<linearGradient id="bar-{name}">{colours}</linearGradient></defs>'
        f'<rect width="100" height="4" fill="url(#bar-{name})"/></svg><div>{labels}</div></div>'
    )


def _difference_words(limit: float) -> str:
    bar = _bar(DIFFERENCE, ("fixed brighter", "moving brighter"), "difference")
    return bar + _DIFFERENCE.format(limit=f"{100 * limit:.0f} %")


def _jacobian_bar(shown: _Shown) -> str:
    limit, det = shown.jacobian_limit, shown.jacobian
    ends = (f"÷ {2**limit:.3g}", "1", f"× {2**limit:.3g}")
    folded = int((det <= 0).sum())
    return (
        _bar(JACOBIAN, ends, "jacobian")
        + f'<ul class="key"><li class="patch" style="--swatch:var(--folded)">folded (det ≤ 0)</li></ul>'
        f"<p>det ∇φ from <b>{_number(float(det.min()))}</b> to <b>{_number(float(det.max()))}</b>; <b>{folded:,}</b> of "
        f"{det.numel():,} voxels folded ({100 * folded / det.numel():.3g} %).</p>"
    )


# ---- how to read each picture

_FIXED = "<p>What stays. Everything else on this page lies on its grid.</p>"
_MOVING = "<p>As it came, before registration: where its header puts it in the world.</p>"
_MOVED = "<p>After registration: the moving image pulled through the transform. It should look like the fixed one.</p>"
_STATE = '<p><b><span class="before">Before</span><span class="after">After</span></b> registration.</p>'
_BLEND = (
    "<p>Slide to and fro: what is aligned stays put, what is not jumps.</p>"
    '<label class="slide" hidden><span class="unseen">From fixed to moving</span>'
    '<input id="blend" type="range" min="0" max="100" value="50"><span aria-hidden="true">'
    '<i class="soft">fixed</i><i class="before">moving</i><i class="after">moved</i></span></label>'
)
_BOARD = "<p>The squares are fixed and moving in turn. Edges should run on from square to square.</p>"
_DIFFERENCE = (
    "<p>Black where both agree, full colour where they differ by {limit} of their windows. It means little where the two "
    "show different contrasts.</p>"
)
_LABELS = (
    '<ul class="key"><li style="--swatch:var(--fixed)">fixed</li><li style="--swatch:var(--moved)">'
    '<span class="before">moving</span><span class="after">moved</span></li><li style="--swatch:var(--shared)">shared</li></ul>'
    "<p>Outlines of the same structures, white where both run together. The more white, the better.</p>"
)
_DEFORMATION = (
    "<p>A straight grid of {step} drawn on the moving image, and pulled onto the fixed one with it. Lines bend smoothly "
    "where the transform does.</p>"
)
_VOLUME = (
    "<p>How much room a voxel of the fixed image takes in the moving one. Green: more, the moving image was shrunk to "
    "fit. Purple: less, it was stretched. Dark: unchanged.</p>"
)
