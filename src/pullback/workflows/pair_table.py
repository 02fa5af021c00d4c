"""Tables of pairs: CSV with a column for each kind of file."""

import csv
from collections.abc import Sequence
from pathlib import Path

from pullback.errors import InputError, did_you_mean


def read_pair_table(path: Path, known: Sequence[str], needed: Sequence[str]) -> list[dict[str, str]]:
    """Read the rows of a table, without blanks around cells; the first is line 2 of the file.

    Args:
        known: names of columns.
        needed: those that no row may lack.

    Raises:
        InputError: no such file or no rows, a column that is not known or missing, or an empty cell where a file is
            needed.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table: {error}") from error
    if not rows:
        raise InputError(f"{path}: no rows; a line of column names ({', '.join(known)}) and one for each pair expected")
    for name in rows[0]:
        if name not in known:
            told = did_you_mean(str(name), known)
            raise InputError(f"{path}: column {name!r} is not known{told}; known are {list(known)}")
    for name in needed:
        empty = [n for n, row in enumerate(rows, 2) if not (row.get(name) or "").strip()]
        if empty:
            raise InputError(f"{path}, line {empty[0]}: no {name}; every pair needs it")
    return [{name: (cell or "").strip() for name, cell in row.items()} for row in rows]
