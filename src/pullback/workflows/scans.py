"""Scans of many people in a folder, with what a table says of them, read one at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import torch
from torch import Tensor

from pullback.data import FileCase, Learn2Reg, PairFolder
from pullback.data.pattern import some
from pullback.errors import InputError, did_you_mean
from pullback.space import Image, Labels
from pullback.study.recipe import changed
from pullback.workflows.gathered import told_of

FAR = 50.0
"""The ratio of two ages, above which their units may differ."""


@dataclass(frozen=True)
class Scans:
    """The scans of a folder.

    Attributes:
        root: the folder.
        cases: in the order of their names.
        about: what tables say of each.
        notes: what a person should know.
    """

    root: Path
    cases: Sequence[FileCase]
    about: Sequence[Mapping[str, float | str]] = ()
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def names(self) -> list[str]:
        """The names of the scans."""
        return [case.name for case in self.cases]

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read."""
        return tuple(path for case in self.cases for path in case.files if path is not None)

    def ages(self, column: str) -> Tensor:
        """Return the number in a column of the tables for each scan, `(n,)` float64.

        Raises:
            InputError: there is no such column, or scans have no number in it.
        """
        known = sorted({key for row in self.about for key in row})
        if column not in known:
            there = ", ".join(known) or "nothing"
            raise InputError(
                f"--column {column}: is not there{did_you_mean(column, known)}; known of the scans: {there}"
            )
        without = [
            name
            for name, row in zip(self.names, self.about, strict=True)
            if not isinstance(row.get(column), float | int)
        ]
        if without:
            raise InputError(
                f"{column}: no number for {len(without)} of {len(self.cases)} scans: {some(without)}; complete the "
                f"table, or leave these scans out by --set data.without"
            )
        return torch.tensor([float(row[column]) for row in self.about], dtype=torch.float64)


def read_scans(root: Path, settings: Mapping[str, str], table: Path | None = None) -> Scans:
    """List the scans of a folder of Learn2Reg, or of one of patterns.

    Args:
        settings: of the data set, by `data.…`, as `PairFolder` takes them.
        table: of people, whose first known column names them; what BIDS' `participants.tsv` says is known anyway.

    Raises:
        InputError: fewer than two scans, or as of `told_of`.
    """
    listed = [path for path in root.glob("*_dataset.json") if not path.name.startswith(".")]
    kind: PairFolder | Learn2Reg = Learn2Reg(str(root)) if listed else PairFolder(str(root))
    data = changed(kind, {key.removeprefix("data."): value for key, value in settings.items()})
    left = {*data.without} if isinstance(data, PairFolder) else set()
    cases = [case for case in data.cases if case.name not in left]
    if len(cases) < 2:
        raise InputError(f"{root}: {len(cases)} scans; two or more are needed")
    about: list[Mapping[str, float | str]] = [dict(case.about) for case in cases]
    if table is None:
        return Scans(root, cases, about)
    told = told_of([case.name for case in cases], table)
    missing = [case.name for case, row in zip(cases, told, strict=True) if not row]
    notes = [f"not in {table.name}: {some(missing)}"] if missing else []
    return Scans(root, cases, [{**a, **b} for a, b in zip(about, told, strict=True)], notes)


class ScanImages(Sequence[Image]):
    """The images of cases, each read when it is asked for."""

    def __init__(self, cases: Sequence[FileCase]) -> None:
        self.cases = cases

    def __len__(self) -> int:
        return len(self.cases)

    @overload
    def __getitem__(self, n: int) -> Image: ...
    @overload
    def __getitem__(self, n: slice) -> "ScanImages": ...
    def __getitem__(self, n: int | slice) -> "Image | ScanImages":
        if isinstance(n, slice):
            return ScanImages(self.cases[n])
        return self.cases[n].load().image

    def labels(self, n: int) -> Labels | None:
        """Return the labels of a case, or None where it has none."""
        return self.cases[n].load().labels
