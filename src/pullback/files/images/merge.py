"""Merging of labels by a table."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from pullback.errors import InputError
from pullback.space import Labels

MOST = 255  # what 8 bits hold


@dataclass(frozen=True)
class Merge:
    """A function that merges labels by a table.

    Attributes:
        table: the new label of each old one, 0 … 255; 0 is background.
        names: of the new labels.
        drop: labels that the table does not name become background; else they stay.
    """

    table: Mapping[int, int]
    names: Mapping[int, str]
    drop: bool = False

    def __call__(self, labels: Labels) -> Labels:
        values, where = labels.data.long().unique(return_inverse=True)
        merged = [self.table.get(value, 0 if self.drop else value) for value in values.tolist()]
        return Labels(torch.tensor(merged, device=where.device)[where], labels.grid)


def read_merge(path: str | Path, drop: bool = False) -> Merge:
    """Read a table of labels to merge: a CSV with columns `label`, `merged` and, optionally, the merged ones' `name`.

    Other columns are ignored.

    Raises:
        InputError: no such table; a row without whole numbers, a merged label beyond 0 … 255, a label or a name that
            was given otherwise before, or a background that would become a structure.
    """
    table: dict[int, int] = {}
    names: dict[int, str] = {}
    for line, (label, merged, name) in _rows(path):
        if not 0 <= merged <= MOST:
            raise InputError(f"{path}: line {line}: merged labels are 0 to {MOST}, which 8 bits hold, not {merged}")
        if label in table:
            raise InputError(f"{path}: line {line}: label {label} stands in the table twice; leave one of the two")
        if label == 0 and merged != 0:
            raise InputError(f"{path}: line {line}: label 0 is background and cannot become {merged}; leave it out")
        if name and names.setdefault(merged, name) != name:
            raise InputError(f"{path}: line {line}: {merged} is {name!r} and, above, {names[merged]!r}; name it once")
        table[label] = merged
    if not table:
        raise InputError(f"{path}: no row below the first line; each says which label becomes which: 17,1")
    return Merge(table, {label: name for label, name in names.items() if label}, drop)


def _rows(path: str | Path) -> Iterator[tuple[int, tuple[int, int, str]]]:
    """Yield the number of each line, with its label, merged label and name."""
    try:
        first, *lines = list(csv.reader(Path(path).read_text(encoding="utf-8-sig").splitlines())) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a table of labels: {error}") from error
    columns = [name.strip().lower() for name in first]
    for name in ("label", "merged"):
        if columns.count(name) != 1:
            raise InputError(
                f"{path}: one column {name!r} is expected among those named in the first line: {','.join(first):.80}"
            )
    for line, cells in enumerate(lines, start=2):
        if not any(cell.strip() for cell in cells):
            continue
        row = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
        try:
            yield line, (int(row["label"]), int(row["merged"]), row.get("name", ""))
        except (KeyError, ValueError) as error:
            raise InputError(f"{path}: line {line} has no whole numbers of labels: {','.join(cells):.80}") from error
