"""The page of a study: what each part asks, what the paper says, the table and the figures."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from html import escape
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from string import Template
from typing import Any

from rich.console import Console

from pullback.records.atomic import atomic_write
from pullback.records.csv_records import read_csv, write_csv
from pullback.records.manifest import manifest, write_json
from pullback.study import families
from pullback.study.compare import printed
from pullback.study.evaluate import left_out
from pullback.study.figures import write_figure
from pullback.study.study import Outcome, Part, Row, Study
from pullback.study.tables import by_setting, contrasts, records, shown

TESTS = "tests"


def write_study(
    study: Study, outcomes: Mapping[str, Sequence[Outcome]], out: Path, console: Console
) -> dict[str, list[dict[str, str]]]:
    """`<part>.csv` with every mean, spread and test; `<part>-tests.csv` where a part asks more; `<part>-<figure>.csv`
    where a figure had to be measured; `figures/`; `study.json`, which names the folder of each run; and `index.html`.
    What earlier calls left there of other parts, and of other experiments of these, stays in all of them. The tables
    also on the console, and which tests were not possible, and why.

    Returns:
        the tables as shown, by the names of their files.
    """
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for name, listed in outcomes.items():
        part, again = study.parts[name], [outcome.name for outcome in listed]
        _keep([record for outcome in listed for record in records(outcome)], again, part, out / f"{name}.csv")
        _keep(_tests(listed, part, console), again, part, _beside(out, name, TESTS))
        for outcome in listed:
            for kind, drawing in part.figures.items():
                rows: Sequence[Row] = []
                if drawing.measure is not None:
                    rows = outcome.measured(kind, drawing.measure)
                    told = [{"experiment": outcome.name, **row} for row in rows]
                    _keep(told, [outcome.name], part, _beside(out, name, kind))
                write_figure(drawing.draw(outcome, rows), _figure(out, name, outcome.name, kind))
    tables = {}
    for name in outcomes:
        for stem, (title, lines) in _tables(name, study.parts[name], out).items():
            tables[stem] = lines
            console.print(printed(title, lines, console))
    known = [name for name in study.parts if (out / f"{name}.csv").is_file()]
    sections = "\n".join(_section(name, study.parts[name], out) for name in known)
    template = Template((files("pullback.study") / "study.html").read_text(encoding="utf-8"))
    with atomic_write(out / "index.html") as temporary:
        temporary.write_text(template.substitute(title=escape(study.about), sections=sections), encoding="utf-8")
    before = json.loads((out / "study.json").read_text())["runs"] if (out / "study.json").is_file() else {}
    write_json(manifest() | {"study": study.about, "runs": before | _runs(outcomes, out)}, out / "study.json")
    return tables


def _tests(listed: Sequence[Outcome], part: Part, console: Console) -> list[dict[str, Any]]:
    """What the part asks; a family of which an outcome lacks the numbers is left out there, with a word."""
    found = []
    for outcome in listed:
        for family in part.tests:
            with left_out(f"{outcome.name}: left out of the tests", console):
                found += contrasts(outcome, replace(part, tests=[family]))
    return found


def _keep(found: Sequence[Mapping[str, Any]], again: Collection[str], part: Part, path: Path) -> None:
    """The rows of a table, in the place of older ones of the experiments that are told `again`; in the part's order."""
    old = read_csv(path) if path.is_file() else []
    rows = [*found, *(row for row in old if row["experiment"] not in again)]
    if rows := [row for name in part.experiments for row in rows if row["experiment"] == name]:
        write_csv(rows, path)
    else:
        path.unlink(missing_ok=True)


def _tables(name: str, part: Part, out: Path) -> dict[str, tuple[str, list[dict[str, str]]]]:
    """Of a part, all that is in the folder: title and lines, by the names of the files."""
    found = {name: (part.title, shown(read_csv(out / f"{name}.csv"), part))}
    tests = _beside(out, name, TESTS)
    if tests.is_file():
        found[tests.stem] = ("Tests", families.shown(read_csv(tests)))
    for kind, drawing in part.figures.items():
        path = _beside(out, name, kind)
        if drawing.by and path.is_file():
            found[path.stem] = (kind.capitalize(), by_setting(read_csv(path), drawing.by, part.measures))
    return found


def _beside(out: Path, part: str, kind: str) -> Path:
    return out / f"{part}-{kind}.csv"


def _figure(out: Path, part: str, experiment: str, kind: str) -> Path:
    return out / "figures" / f"{part}-{experiment.replace('/', '-')}-{kind}.svg"


def _section(name: str, part: Part, out: Path) -> str:
    """Of a part, all that is in the folder."""
    figures = []
    for experiment in part.experiments:
        for kind in part.figures:
            path = _figure(out, name, experiment, kind)
            if path.is_file():
                caption, source = escape(f"{experiment.replace('/', ', ')}: {kind}"), path.relative_to(out).as_posix()
                figures.append(
                    f'<figure><img src="{source}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
                )
    (_, first), *others = _tables(name, part, out).values()
    tables = _tabular(first) + "".join(f"<h3>{escape(title)}</h3>{_tabular(lines)}" for title, lines in others)
    return (
        f"<section><h2>{escape(part.title)}</h2><p class=soft>In the paper: {escape(part.claim)}</p>"
        f"{tables}<div class=figures>{''.join(figures)}</div></section>"
    )


def _tabular(lines: Sequence[Mapping[str, str]]) -> str:
    """As `printed` has them on a terminal: the first column is a heading over the rows that share it."""
    heading, _, *numbers = lines[0]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in (heading, *numbers))
    body = ""
    for name, group in groupby(lines, lambda line: line[heading]):
        body += f'<tr><th scope="rowgroup" colspan="{len(numbers) + 1}">{escape(name)}</th></tr>'
        for _, row, *cells in (map(escape, line.values()) for line in group):
            body += f'<tr><th scope="row">{row}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _runs(outcomes: Mapping[str, Sequence[Outcome]], out: Path) -> dict[str, Any]:
    """Which folder holds which run."""
    return {
        f"{part}/{outcome.name}/{arm}": {seed: run.folder.relative_to(out).as_posix() for seed, run in runs.items()}
        for part, listed in outcomes.items()
        for outcome in listed
        for arm, runs in outcome.runs.items()
    }
