"""The folder of a study: its tables, figures and page."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from pullback.records.atomic import atomic_write
from pullback.records.manifest import manifest, write_json
from pullback.report.figures import write_figure
from pullback.report.page import write_page
from pullback.study import contrasts
from pullback.study.arms import Unit
from pullback.study.compare import printed
from pullback.study.evaluate import left_out
from pullback.study.result import Result
from pullback.study.table import Study, Table
from pullback.study.tables import by_setting, contrasts as tested, formatted, records
from pullback.training import Row

TESTS = "tests"


def write_study(
    study: Study, results: Mapping[str, Sequence[Result]], out: Path, console: Console
) -> dict[str, list[dict[str, str]]]:
    """Write the tables, figures and page of a study into a folder.

    These are `<table>.csv` with every mean, spread and test; `<table>-tests.csv` where a table asks more;
    `<table>-<figure>.csv` where a figure had to be measured; `figures/`; `study.json`, which names the folder of each
    arm; and `index.html`. Files of other tables, and lines of other experiments of these, that earlier calls wrote
    stay. Tables are also shown on the console, which says which tests were not possible, and why.

    Returns:
        The tables as shown, by the names of their files.
    """
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for name, listed in results.items():
        table, again = study.tables[name], [result.name for result in listed]
        _keep([record for result in listed for record in records(result, table)], again, table, out / f"{name}.csv")
        _keep(_tests(listed, table, console), again, table, _beside(out, name, TESTS))
        for result in listed:
            for kind, figure in table.figures.items():
                rows: Sequence[Row] = []
                if figure.measure is not None:
                    rows = result.measured(kind, figure.measure)
                    told = [{"experiment": result.name, **row} for row in rows]
                    _keep(told, [result.name], table, _beside(out, name, kind))
                write_figure(figure.draw(result, rows), _figure(out, name, result.name, kind))
    shown = {}
    for name in results:
        for stem, (title, lines) in _tables(name, study.tables[name], out).items():
            shown[stem] = lines
            console.print(printed(title, lines, console))
    known = [name for name in study.tables if (out / f"{name}.csv").is_file()]
    sections = [_section(name, study.tables[name], out) for name in known]
    write_page(out / "index.html", "study", title=study.about, sections=sections)
    before = json.loads((out / "study.json").read_text())["runs"] if (out / "study.json").is_file() else {}
    write_json(manifest() | {"study": study.about, "runs": before | _folders(results, out)}, out / "study.json")
    return shown


def _tests(listed: Sequence[Result], table: Table, console: Console) -> list[dict[str, Any]]:
    """Return the contrasts of the table, without families of which a result lacks the numbers, which is told."""
    found = []
    for result in listed:
        for family in table.tests:
            with left_out(f"{result.name}: left out of the tests", console):
                found += tested(result, replace(table, tests=[family]))
    return found


def _keep(found: Sequence[Mapping[str, Any]], again: Collection[str], table: Table, path: Path) -> None:
    """Write the lines of a table, in its order.

    They replace older lines of the experiments in `again`; lines of others stay.
    """
    old = _read(path) if path.is_file() else pd.DataFrame({"experiment": []})
    lines = pd.concat([pd.DataFrame(found or {"experiment": []}), old[~old["experiment"].isin(again)]])
    order = {name: n for n, name in enumerate(table.experiments)}
    lines = lines[lines["experiment"].isin(order)].sort_values("experiment", key=lambda e: e.map(order), kind="stable")
    if lines.empty:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path) as temporary:
        lines.to_csv(temporary, index=False, errors="surrogateescape")


def _read(path: Path) -> pd.DataFrame:
    """Read a table with numbers as numbers, and NaN where a cell is empty; no word stands for it."""
    return pd.read_csv(path, keep_default_na=False, na_values=[""], encoding_errors="surrogateescape")


def _tables(name: str, table: Table, out: Path) -> dict[str, tuple[str, list[dict[str, str]]]]:
    """Return the titles and lines of a table's files in the folder, by their names."""
    found = {name: (table.title, formatted(_read(out / f"{name}.csv"), table))}
    tests = _beside(out, name, TESTS)
    if tests.is_file():
        found[tests.stem] = ("Tests", contrasts.formatted(_read(tests).to_dict("records")))
    for kind, figure in table.figures.items():
        path = _beside(out, name, kind)
        if figure.by and path.is_file():
            found[path.stem] = (kind.capitalize(), by_setting(_read(path), figure.by, table.columns))
    return found


def _beside(out: Path, table: str, kind: str) -> Path:
    return out / f"{table}-{kind}.csv"


def _figure(out: Path, table: str, experiment: str, kind: str) -> Path:
    return out / "figures" / f"{table}-{experiment.replace('/', '-')}-{kind}.svg"


def _section(name: str, table: Table, out: Path) -> dict[str, Any]:
    """Return the content of the page for a table."""
    drawn = [(e, kind, _figure(out, name, e, kind)) for e in table.experiments for kind in table.figures]
    return {
        "title": table.title,
        "claim": table.claim,
        "tables": [{"title": title, **_grouped(lines)} for title, lines in _tables(name, table, out).values()],
        "figures": [
            {"caption": f"{experiment.replace('/', ', ')}: {kind}", "source": path.relative_to(out).as_posix()}
            for experiment, kind, path in drawn
            if path.is_file()
        ],
    }


def _grouped(lines: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Return the rows of a table under headings, as `printed` shows them on a terminal."""
    heading, _, *numbers = lines[0]
    groups = [
        (name, [[*line.values()][1:] for line in group]) for name, group in groupby(lines, lambda line: line[heading])
    ]
    return {"headings": [heading, *numbers], "groups": groups}


def _folders(results: Mapping[str, Sequence[Result]], out: Path) -> dict[str, dict[str, str]]:
    """Return the folder of each arm's rows, by seed and fold."""
    return {
        f"{table}/{result.name}/{arm}": {
            _called(unit, units): unit.folder.relative_to(out).as_posix() for unit in units
        }
        for table, listed in results.items()
        for result in listed
        for arm, units in result.units.items()
    }


def _called(unit: Unit, among: Sequence[Unit]) -> str:
    folds = {other.trial.fold for other in among}
    seed = str(unit.trial.seed) if unit.seeded else ""
    return f"{seed}, fold {unit.trial.fold}".lstrip(", ") if len(folds) > 1 else seed
