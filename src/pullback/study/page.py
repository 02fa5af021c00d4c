"""The page of a study: what each part asks, what the paper says, the table and the figures."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from rich.console import Console

from pullback.files.beside import beside
from pullback.files.manifest import manifest, write_json
from pullback.files.rows import write_csv
from pullback.study import families
from pullback.study.compare import printed
from pullback.study.figures import write_figure
from pullback.study.report import tabular
from pullback.study.study import Outcome, Part, Study
from pullback.study.tables import contrasts, records, shown


def write_study(
    study: Study, outcomes: Mapping[str, Sequence[Outcome]], out: Path, console: Console
) -> dict[str, list[dict[str, str]]]:
    """`<part>.csv` with every mean, spread and test; `<part>-tests.csv` where a part asks more; `figures/`;
    `study.json`; and `index.html`, of these parts and of those that earlier calls left there. The tables also on the
    console.

    Returns:
        the tables as shown, by part.
    """
    (out / "figures").mkdir(parents=True, exist_ok=True)
    tables = {}
    for name, listed in outcomes.items():
        part = study.parts[name]
        tables[name] = shown(listed, part.measures)
        write_csv([record for outcome in listed for record in records(outcome)], out / f"{name}.csv")
        console.print(printed(part.title, tables[name]))
        asked = [contrast for outcome in listed for contrast in contrasts(outcome, part)]
        if asked:
            write_csv(asked, out / f"{name}-tests.csv")
            console.print(printed("Tests", families.shown(asked)))
        _write(_section(part, listed, [tables[name], families.shown(asked)], out, name), out / "parts" / f"{name}.html")
    known = [out / "parts" / f"{name}.html" for name in study.parts]
    sections = "\n".join(path.read_text(encoding="utf-8") for path in known if path.is_file())
    template = Template((files("pullback.study") / "study.html").read_text(encoding="utf-8"))
    _write(template.substitute(title=escape(study.about), sections=sections), out / "index.html")
    write_json(manifest() | {"study": study.about, "runs": _runs(outcomes, out)}, out / "study.json")
    return tables


def _write(text: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _section(part: Part, outcomes: Sequence[Outcome], tables: Sequence[list], out: Path, name: str) -> str:
    figures = []
    for outcome in outcomes:
        for kind, drawing in part.figures.items():
            rows = [] if drawing.measure is None else outcome.measured(kind, drawing.measure)
            path = out / "figures" / f"{name}-{outcome.name.replace('/', '-')}-{kind}.svg"
            write_figure(drawing.draw(outcome, rows), path)
            caption = escape(f"{outcome.name.replace('/', ', ')}: {kind}")
            source = path.relative_to(out).as_posix()
            figures.append(f'<figure><img src="{source}" alt="{caption}"><figcaption>{caption}</figcaption></figure>')
    scrolled = "".join(f"<div class=scroll>{tabular(table)}</div>" for table in tables if table)
    return (
        f"<section><h2>{escape(part.title)}</h2><p class=soft>In the paper: {escape(part.claim)}</p>"
        f"{scrolled}<div class=figures>{''.join(figures)}</div></section>"
    )


def _runs(outcomes: Mapping[str, Sequence[Outcome]], out: Path) -> dict[str, Any]:
    """Which folder holds which run."""
    return {
        f"{part}/{outcome.name}/{arm}": {seed: run.folder.relative_to(out).as_posix() for seed, run in runs.items()}
        for part, listed in outcomes.items()
        for outcome in listed
        for arm, runs in outcome.runs.items()
    }
