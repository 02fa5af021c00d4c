"""Records as CSV."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pullback.records.atomic import atomic_write

AS_NAMED: Any = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
"""How a table is opened: names of files in it are kept byte by byte, also where they are no UTF-8."""


def write_csv(records: Sequence[Mapping[str, object]], path: Path) -> None:
    """Write a column per key, in the order in which they first appear."""
    names = list(dict.fromkeys(key for record in records for key in record))
    with atomic_write(path) as temporary, temporary.open("w", **AS_NAMED) as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(records)


def read_csv(path: Path) -> list[dict[str, float | str]]:
    """Read what `write_csv` wrote: numbers as numbers, and without what a record did not have."""
    return [{k: as_number(v) for k, v in row.items() if v != ""} for row in read_texts(path)]


def read_texts(path: Path) -> list[dict[str, str]]:
    """Read what `write_csv` wrote, as it stands there: subject 007 is not number 7."""
    with path.open(**AS_NAMED) as file:
        return list(csv.DictReader(file))


def as_number(text: str) -> float | str:
    """Return a number where the text is one, else the text."""
    try:
        return float(text)
    except ValueError:
        return text
