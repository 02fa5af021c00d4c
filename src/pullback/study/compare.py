"""Tables of several registers on the same pairs."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
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


def columns(results: Mapping[str, Rows]) -> list[str]:
    """The numbers to show: all but those of single labels, in the order in which they first appear, seconds last."""
    seen: dict[str, None] = {}
    for rows in results.values():
        for row in rows:
            seen |= dict.fromkeys(k for k, v in row.items() if not isinstance(v, str) and "/" not in k)
    return list(seen)


def summary(results: Mapping[str, Rows], reference: str | None = None) -> list[dict[str, Any]]:
    """One record per register and number: mean, sd and count over the pairs, and against `reference` the mean paired
    difference, the ends of its 95 % interval, and the effect size, statistic and p of a two-sided Wilcoxon signed-rank
    test (`statistics.paired`; p is None where the differences are all zero)."""
    records = []
    for name, rows in results.items():
        for column in columns(results):
            values = values_of(rows, column)
            if not values:
                continue
            numbers = np.array(list(values.values()))
            record: dict[str, Any] = {
                "register": name,
                "measure": column,
                "mean": float(numbers.mean()),
                "sd": float(numbers.std(ddof=1)) if len(numbers) > 1 else None,
                "pairs": len(numbers),
            }
            if reference is not None and name != reference and column not in COSTS:
                record |= _against(values, values_of(results[reference], column))
            records.append(record)
    return records


def values_of(rows: Rows, column: str) -> dict[str, float]:
    """A number of every pair that has it, by the pair's name; of other examples by what their first column says."""
    return {str(row.get("pair", next(iter(row.values())))): float(row[column]) for row in rows if column in row}


def _against(values: dict[str, float], other: dict[str, float]) -> dict[str, float | None]:
    common = [pair for pair in values if pair in other and math.isfinite(values[pair] - other[pair])]
    if not common:
        return {}
    return paired([values[pair] for pair in common], [other[pair] for pair in common], make_generator(0)).numbers


def table(
    results: Mapping[str, Rows], console: Console, reference: str | None = None, title: str | None = None
) -> Group:
    """For a terminal, a column per register: mean ± sd, and below it the paired difference to `reference`, and p.

    What is wider than the terminal becomes several tables, one below the other, so that no number is broken.
    """
    shown = {(r["register"], r["measure"]): r for r in summary(results, reference)}
    parts: list[Table] = []
    left, measures = list(results), columns(results)
    while left:
        trials = [_columns(shown, left[:n], measures, title) for n in range(1, len(left) + 1)]
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
    shown: Mapping[tuple[str, str], dict[str, Any]], names: Sequence[str], measures: Sequence[str], title: str | None
) -> Table:
    out = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    out.add_column("")
    for name in names:
        out.add_column(name, justify="right")
    for measure in measures:
        out.add_row(measure, *(_cell(shown.get((name, measure))) for name in names))
    return out


def widest(trials: Sequence[Table], console: Console) -> Table:
    """Of tables that grow, the last that the terminal can show without folding; at least the first."""
    endless = console.options.update_width(WIDE)
    fitting = [each for each in trials if console.measure(each, options=endless).maximum <= console.width]
    return (fitting or list(trials[:1]))[-1]


def _cell(record: dict[str, Any] | None) -> str:
    if record is None:
        return "·"
    text = short(record["mean"]) + ("" if record["sd"] is None else f" ± {short(record['sd'], record['mean'])}")
    if record.get("p") is not None:
        text += f"\n[dim]{record['difference']:+.2g}[/dim]\n[dim]p {record['p']:.1g}[/dim]"
    return text


def printed(title: str, rows: Sequence[Mapping[str, str]], console: Console) -> Group:
    """For a terminal, rows of words that have the same columns; the first is a heading over the rows that share it.

    What is wider than the terminal becomes several tables, one below the other, so that no number is broken.
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
    """Some columns of it; names longer than so many characters are folded."""
    heading = next(iter(rows[0]))
    table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(heading, overflow="fold", max_width=longest)
    for column in numbers:
        table.add_column(column, justify="right")
    for name, group in groupby(rows, lambda row: row[heading]):
        table.add_row(f"[bold]{escape(name)}[/bold]")
        for line in group:
            _, row, *_ = line.values()
            table.add_row(f"  {escape(row)}", *(line[column] for column in numbers))
    return table


def short(number: float, beside: float = 0.0) -> str:
    """For a table: three decimals, or two digits where it is small or large; 0 where it is the rounding of numbers as
    large as `beside`."""
    if abs(number) < max(1e-9, 1e-6 * abs(beside)):
        return "0"
    return f"{number:.3f}" if 0.01 <= abs(number) < 1000 else f"{number:.2g}"


def write_tables(results: Mapping[str, Rows], reference: str | None, out: Path) -> None:
    """`pairs.csv`, every number of every pair, and `summary.csv`, into the folder `out`."""
    write_csv([{"register": name, **row} for name, rows in results.items() for row in rows], out / "pairs.csv")
    write_csv(summary(results, reference), out / "summary.csv")
