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

from pullback.files.rows import write_csv
from pullback.numerics.random import generator
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
    """A number of every pair that has it, by the pair's name."""
    return {str(row["pair"]): float(row[column]) for row in rows if column in row}


def _against(values: dict[str, float], other: dict[str, float]) -> dict[str, float | None]:
    common = [pair for pair in values if pair in other and math.isfinite(values[pair] - other[pair])]
    if not common:
        return {}
    return paired([values[pair] for pair in common], [other[pair] for pair in common], generator(0)).numbers


def table(results: Mapping[str, Rows], reference: str | None = None, title: str | None = None) -> Table:
    """For a terminal, a column per register: mean ± sd, and under it the paired difference to `reference`, its p."""
    shown = {(r["register"], r["measure"]): r for r in summary(results, reference)}
    out = Table(title=title, title_justify="left", caption_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    if reference is not None and len(results) > 1:
        out.caption = (
            f"Second lines: paired difference to {reference}, p of a two-sided Wilcoxon signed-rank test of pairs "
            "(which share subjects: the true p is larger)."
        )
    out.add_column("")
    for name in results:
        out.add_column(name, justify="right")
    for column in columns(results):
        out.add_row(column, *(_cell(shown.get((name, column))) for name in results))
    return out


def _cell(record: dict[str, Any] | None) -> str:
    if record is None:
        return "·"
    text = short(record["mean"]) + ("" if record["sd"] is None else f" ± {short(record['sd'])}")
    if record.get("p") is not None:
        text += f"\n[dim]{record['difference']:+.2g}, p {record['p']:.1g}[/dim]"
    return text


def printed(title: str, rows: Sequence[Mapping[str, str]], console: Console) -> Group:
    """For a terminal, rows of words that have the same columns; the first is a heading over the rows that share it.

    What is wider than the terminal becomes several tables, one below the other, so that no number is broken.
    """
    _, _, *left = rows[0]
    tables, endless = [], console.options.update_width(WIDE)
    while left:
        trials = [_table(title, rows, left[:n], console.width // 2) for n in range(1, len(left) + 1)]
        fitting = [table for table in trials if console.measure(table, options=endless).maximum <= console.width]
        tables.append((fitting or trials[:1])[-1])
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


def short(number: float) -> str:
    """For a table: three decimals, or two digits where it is small or large."""
    if abs(number) < 1e-9:
        return "0"
    return f"{number:.3f}" if 0.01 <= abs(number) < 1000 else f"{number:.2g}"


def write_tables(results: Mapping[str, Rows], reference: str | None, out: Path) -> None:
    """`pairs.csv`, every number of every pair, and `summary.csv`, into the folder `out`."""
    write_csv([{"register": name, **row} for name, rows in results.items() for row in rows], out / "pairs.csv")
    write_csv(summary(results, reference), out / "summary.csv")
