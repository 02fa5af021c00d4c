"""Results of a study as tables: over cases and seeds, each column compared with the baseline as it says."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pullback.study.compare import against, by_case, described, frame_of, numbers_in, short
from pullback.study.contrasts import compared
from pullback.study.result import Result, recipe_of
from pullback.study.table import Column, Table
from pullback.training import Row

MANY, FEW = 10.0, 0.05  # ratios that are told as factors; those between in %


def over_seeds(rows: Sequence[Row]) -> list[Row]:
    """Return one row per case: the means of numbers over the seeds, and words as in the first row."""
    lines = frame_of({"": rows}).drop(columns=["register", "seed"], errors="ignore")
    by = lines.groupby("case", sort=False)
    words = [name for name in lines if name not in lines.select_dtypes("number")]
    means = pd.concat([by[[w for w in words if w != "case"]].first(), by.mean(numeric_only=True)], axis=1)
    found = means.reset_index().to_dict("records")
    return [{str(name): value for name, value in row.items() if not pd.isna(value)} for row in found]


def records(result: Result, table: Table) -> list[dict[str, Any]]:
    """Return one record per arm and number.

    It has `compare.described` of the cases (of means over seeds), the deviation of the seeds' means, and against the
    baseline `compare.against`.
    """
    frame, found = frame_of(result.rows), []
    cases = frame["case"].nunique()
    for arm in result.rows:
        for number in numbers_in(frame):
            values = by_case(frame, arm, number)
            if not values.notna().any():
                continue
            record = {"experiment": result.name, "arm": arm, "measure": number, **described(values, cases)}
            if arm != result.baseline and result.baseline in result.rows:
                both = (by_case(frame, each, number, table.unit) for each in (arm, result.baseline))
                record |= against(*both)
            means = frame[frame["register"] == arm].groupby("seed")[number].mean().dropna()
            spread = float(means.std()) if len(means) > 1 else None
            found.append(record | {"seeds": len(means), "sd of seeds": spread, **_made(result, arm)})
    return found


def _made(result: Result, arm: str) -> dict[str, Any]:
    """Return the folder of an arm's rows, and how long it learned."""
    unit = result.units[arm][0]
    learned = {"updates": recipe_of(unit).training.updates} if arm in result.runs else {}
    folder = unit.folder.parent if unit.seeded else unit.folder
    return {"seeded": int(unit.seeded), **learned, "run": folder.name}


def contrasts(result: Result, table: Table) -> list[dict[str, Any]]:
    """Return one record per contrast of the table, of means over seeds, without those that lack an arm's rows."""
    averaged = {arm: over_seeds(rows) for arm, rows in result.rows.items()}
    absent = {arm for arm, units in result.units.items() if arm not in averaged and all(u.may_lack for u in units)}
    asked = [each for each in table.tests if not absent & set(each.groups)]
    numbers = (table.tested,) if isinstance(table.tested, str) else table.tested
    return [
        {"experiment": result.name, **each}
        for number in numbers
        for each in compared(averaged, number, asked, unit=table.unit)
    ]


def formatted(rows: pd.DataFrame, table: Table) -> list[dict[str, str]]:
    """Return the records of a table in words: a row per experiment and arm, the columns, and their comparisons."""
    lines = []
    for name, experiment in table.experiments.items():
        mine = rows[rows["experiment"] == name]
        for arm, of_arm in mine.groupby("arm", sort=False):
            known = {str(record["measure"]): _known(record) for record in of_arm.to_dict("records")}
            made = next(iter(known.values()))
            line = {"experiment": name.replace("/", ", "), "": str(arm)}
            if "updates" in rows:
                line["updates"] = f"{made['updates']:g}" if "updates" in made else ""
            line["cases"] = f"{max(record['cases'] for record in known.values()):g}"
            if rows["seeded"].any():
                line["seeds"] = f"{made['seeds']:g}" if made["seeded"] else ""
            line |= {c.heading: _value(known[c.number], c) if c.number in known else "·" for c in table.columns}
            compared_with = str(arm) != experiment.compared_with
            for column in table.columns:
                if column.against:
                    there = compared_with and column.number in known
                    line[f"Δ {column.name}"] = _comparison(known[column.number], column) if there else ""
            lines.append(line)
    return lines


def by_setting(rows: pd.DataFrame, by: Sequence[str], columns: Sequence[Column]) -> list[dict[str, str]]:
    """Return a figure's measurements in words: a row per experiment and values of the columns `by`.

    They are the means over the seeds, with their deviation in brackets.
    """
    lines = []
    for (experiment, *values), seeds in rows.groupby(["experiment", *by], sort=False, dropna=False):
        name = ", ".join(v if isinstance(v, str) else f"{key} {v:g}" for key, v in zip(by, values, strict=True))
        line = {"experiment": str(experiment).replace("/", ", "), "": name}
        for column in columns:
            each = seeds[column.number].dropna() if column.number in seeds else pd.Series(dtype=float)
            spread = {"sd of seeds": each.std()} if len(each) > 1 else {}
            line[column.heading] = _mean({"mean": each.mean(), **spread}, column) if len(each) else "·"
        lines.append(line)
    return lines


def _known(record: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in record.items() if not pd.isna(value)}


def _value(record: Mapping[str, Any], column: Column) -> str:
    """Format a column for an arm; where some cases lack the number, with how many have it."""
    if column.of == "mean":
        text = _mean(record, column)
    elif column.of == "rate":
        text = f"{100 * record['mean']:.{column.digits or 0}f} %"
    else:
        text = short(record[column.of], digits=column.digits)
    return text + (f" ({record['cases']:g} of {record['cases'] + record['missing']:g})" if record["missing"] else "")


def _mean(record: Mapping[str, Any], column: Column) -> str:
    """Format mean ± sd over the cases, and in brackets the sd of the seeds' means."""
    mean, digits = float(record["mean"]), column.digits
    text = short(mean, digits=digits) + (f" ± {short(record['sd'], mean, digits)}" if "sd" in record else "")
    return text + (f" [{short(record['sd of seeds'], mean, digits)}]" if "sd of seeds" in record else "")


def _comparison(record: Mapping[str, Any], column: Column) -> str:
    """Format the difference of the means with its p, or one mean as a share of the other."""
    if column.against == "difference":
        if "difference" not in record:
            return ""
        digits = 3 if column.digits is None else column.digits
        return f"{record['difference']:+.{digits}f}" + (f" (p {record['p']:.1g})" if "p" in record else "")
    ratio = record.get("ratio")
    if ratio is None:
        return ""
    if 0 < ratio < FEW:
        return f"÷ {1 / ratio:.3g}"
    return f"× {ratio:.3g}" if ratio >= MANY else f"{100 * (ratio - 1):+.0f} %"
