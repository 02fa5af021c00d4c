"""Tables of several registers on the same cases."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

from pullback.numerics.random import make_generator
from pullback.records.csv_records import write_csv
from pullback.study.statistics import paired

WIDE = 10_000  # characters, in which any table fits
COSTS = ("seconds", "peak MB")  # what is not a property of the alignment

Rows = Sequence[Mapping[str, float | str]]


def frame_of(results: Mapping[str, Rows]) -> pd.DataFrame:
    """Return the rows of several registers as one frame: `register` and `case`, then all columns, NaN for none.

    A case is called by its `pair` or, for other examples, by the row's first value.
    """
    lines = [
        {"register": name, "case": str(row.get("pair", next(iter(row.values())))), **row}
        for name, rows in results.items()
        for row in rows
    ]
    return pd.DataFrame(lines, columns=None if lines else ["register", "case"])


def numbers_in(frame: pd.DataFrame) -> list[str]:
    """Return the columns to show: all numbers but those of single labels, in the order in which they first appear."""
    return [str(name) for name in frame.select_dtypes("number").columns if "/" not in str(name)]


def columns(results: Mapping[str, Rows]) -> list[str]:
    """Return the columns to show of rows, as `numbers_in` does of a frame."""
    return numbers_in(frame_of(results))


def summary(results: Mapping[str, Rows], reference: str | None = None) -> list[dict[str, Any]]:
    """Return one record per register and number, by `described`, and compared with `reference` by `against`."""
    frame, records = frame_of(results), []
    cases = frame["case"].nunique()
    for name in results:
        for number in numbers_in(frame):
            values = by_case(frame, name, number)
            if not values.notna().any():
                continue
            record: dict[str, Any] = {"register": name, "measure": number, **described(values, cases)}
            if reference is not None and name != reference and number not in COSTS:
                record |= against(values, by_case(frame, reference, number))
            records.append(record)
    return records


def by_case(frame: pd.DataFrame, register: str, number: str, unit: str = "") -> pd.Series:
    """Return a number of a register by case, the mean over its rows; NaN where it is missing.

    Args:
        unit: the column by whose values cases are averaged; "" for none.
    """
    lines = frame[frame["register"] == register]
    by = lines.groupby("case", sort=False)
    values = by[number].mean()
    return values if not unit else values.groupby(by[unit].first(), sort=False).mean()


def described(values: pd.Series, cases: int) -> dict[str, Any]:
    """Return mean, deviation, median and maximum of the known numbers, their count, and that of cases without."""
    known = values.dropna()
    return {
        "mean": float(known.mean()),
        "sd": float(known.std()) if len(known) > 1 else None,
        "median": float(known.median()),
        "max": float(known.max()),
        "cases": len(known),
        "missing": cases - len(known),
    }


def against(values: pd.Series, other: pd.Series) -> dict[str, float | None]:
    """Compare two registers by the cases that both know; {} where there are none.

    Returns:
        The mean difference, the ends of its 95 % interval, and the effect size, statistic and p of a two-sided Wilcoxon
        signed-rank test (`statistics.paired`; p is None where the differences are all zero); the ratio of both means.
    """
    both = pd.concat([values, other], axis=1, join="inner").replace([np.inf, -np.inf], np.nan).dropna()
    if both.empty:
        return {}
    one, two = (both.iloc[:, n].to_numpy() for n in (0, 1))
    ratio = float(values.mean() / other.mean()) if other.mean() else None
    return {**paired(one, two, make_generator(0)).numbers, "ratio": ratio}


def table(
    results: Mapping[str, Rows], console: Console, reference: str | None = None, title: str | None = None
) -> Group:
    """Make a table for a terminal, a column per register.

    A cell is mean ± sd, with how many of the cases have the number where not all do; below it the paired difference to
    `reference`, and p. A table wider than the terminal
    becomes several, one below the other, so that no number is broken.
    """
    known = {(r["register"], r["measure"]): r for r in summary(results, reference)}
    parts: list[Table] = []
    left, measures = list(results), columns(results)
    while left:
        trials = [_columns(known, left[:n], measures, title) for n in range(1, len(left) + 1)]
        parts.append(widest(trials, console))
        left, title = left[len(parts[-1].columns) - 1 :], None
    if reference is None or len(results) == 1:
        return Group(*parts)
    caption = (
        f"Second and third lines: paired difference to {reference}, and p of a two-sided Wilcoxon signed-rank test of "
        "pairs (which share subjects: the true p is larger)."
    )
    return Group(*parts, caption)


def _columns(
    known: Mapping[tuple[str, str], dict[str, Any]], names: Sequence[str], measures: Sequence[str], title: str | None
) -> Table:
    out = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    out.add_column("")
    for name in names:
        out.add_column(name, justify="right")
    for measure in measures:
        out.add_row(measure, *(_cell(known.get((name, measure))) for name in names))
    return out


def widest(trials: Sequence[Table], console: Console) -> Table:
    """Return the last of growing tables that the terminal can show without folding, or the first."""
    endless = console.options.update_width(WIDE)
    fitting = [each for each in trials if console.measure(each, options=endless).maximum <= console.width]
    return (fitting or list(trials[:1]))[-1]


def _cell(record: dict[str, Any] | None) -> str:
    if record is None:
        return "·"
    text = short(record["mean"]) + ("" if record["sd"] is None else f" ± {short(record['sd'], record['mean'])}")
    if record["missing"]:
        text += f" ({record['cases']} of {record['cases'] + record['missing']})"
    if record.get("p") is not None:
        text += f"\n[dim]{record['difference']:+.2g}[/dim]\n[dim]p {record['p']:.1g}[/dim]"
    return text


def printed(title: str, rows: Sequence[Mapping[str, str]], console: Console) -> Group:
    """Make a table of words for a terminal; the first column is a heading over the rows that share it.

    A table wider than the terminal becomes several, one below the other, so that no number is broken.
    """
    _, _, *left = rows[0]
    tables: list[Table] = []
    while left:
        tables.append(
            widest([_table(title, rows, left[:n], console.width // 2) for n in range(1, len(left) + 1)], console)
        )
        left = left[len(tables[-1].columns) - 1 :]
        title = ""
    return Group(*tables)


def _table(title: str, rows: Sequence[Mapping[str, str]], numbers: Sequence[str], longest: int) -> Table:
    """Return the table with some of its columns; names longer than `longest` are folded."""
    heading = next(iter(rows[0]))
    table = Table(title=escape(title) or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(heading, overflow="fold", max_width=longest)
    for column in numbers:
        table.add_column(column, justify="right")
    for name, group in groupby(rows, lambda row: row[heading]):
        table.add_row(f"[bold]{escape(name)}[/bold]")
        for line in group:
            _, row, *_ = line.values()
            table.add_row(f"  {escape(row)}", *(escape(line[column]) for column in numbers))
    return table


def short(number: float, beside: float = 0.0, digits: int | None = None) -> str:
    """Format a number for a table.

    It has `digits` after the point, or three, or two digits in all where it is small or large. It is 0 where it is
    within the rounding of numbers as large as `beside`.
    """
    if abs(number) < max(1e-9, 1e-6 * abs(beside)):
        return "0"
    if digits is not None:
        return f"{number:.{digits}f}"
    return f"{number:.3f}" if 0.01 <= abs(number) < 1000 else f"{number:.2g}"


def write_tables(results: Mapping[str, Rows], reference: str | None, out: Path) -> None:
    """Write `pairs.csv`, every number of every pair, and `summary.csv` into the folder `out`."""
    write_csv([{"register": name, **row} for name, rows in results.items() for row in rows], out / "pairs.csv")
    write_csv(summary(results, reference), out / "summary.csv")
