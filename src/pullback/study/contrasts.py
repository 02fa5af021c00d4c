"""The questions that a study asks of its results, as data: contrasts that are corrected together.

BENEFIT = Contrasts("benefit of guidance", mann_whitney, [("guided", "unsupervised")], side="less")
DESIGNS = TukeyRange("contrasts between designs", ["unsupervised", "guided", "self-training"])
records = compared(results, "tre mm", [DESIGNS, BENEFIT])
write_csv(records, out / "tests.csv")
console.print(printed("Contrasts", formatted(records), console))
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch

from pullback.errors import InputError
from pullback.numerics.random import make_generator
from pullback.study.compare import Rows, by_case, frame_of
from pullback.study.statistics import Contrast, Side, Values, benjamini_hochberg, tukey

SIGNS = {"less": "<", "greater": ">", "two-sided": "≠"}

Groups = Mapping[str, np.ndarray]
"""Numbers by the name of their group: in each, one per image pair, the same at the same place; NaN where missing."""


class GroupTest(Protocol):
    """A test of two groups: `paired` or `mann_whitney`."""

    def __call__(self, a: Values, b: Values, generator: torch.Generator, side: Side) -> Contrast: ...


@dataclass(frozen=True)
class Contrasts:
    """The contrasts of pairs of groups, corrected together after Benjamini and Hochberg.

    Attributes:
        name: the question that they answer.
        test: `paired` where the numbers of both groups belong together pair by pair, or `mann_whitney`.
        pairs: the names of the groups, a against b.
        side: what is asked of a.
    """

    name: str
    test: GroupTest
    pairs: Sequence[tuple[str, str]]
    side: Side = "two-sided"

    @property
    def groups(self) -> Sequence[str]:
        return list(dict.fromkeys(name for pair in self.pairs for name in pair))

    def contrasts(self, groups: Groups, seed: int) -> dict[tuple[str, str], Contrast]:
        """Return the contrasts by the names of their groups; all intervals use the same random numbers.

        Raises:
            InputError: two groups that cannot be tested against each other.
        """
        found = {}
        for a, b in self.pairs:
            try:
                found[a, b] = self.test(groups[a], groups[b], make_generator(seed), self.side)
            except InputError as error:
                raise InputError(f"{a} against {b}: {error}") from error
        return found

    def corrected(self, p: Sequence[float | None]) -> list[float | None]:
        return benjamini_hochberg(p)


@dataclass(frozen=True)
class TukeyRange:
    """The contrasts of every two of several groups by Tukey's range test, whose p hold for all of them together.

    Attributes:
        name: the question that they answer.
        groups: their names.
    """

    name: str
    groups: Sequence[str]

    def contrasts(self, groups: Groups, seed: int) -> dict[tuple[str, str], Contrast]:
        """Return the contrasts by the names of their groups."""
        return tukey({name: groups[name] for name in self.groups})

    def corrected(self, p: Sequence[float | None]) -> list[float | None]:
        return list(p)


def compared(
    results: Mapping[str, Rows],
    measure: str,
    families: Sequence[Contrasts | TukeyRange],
    seed: int = 0,
    unit: str = "",
) -> list[dict[str, Any]]:
    """Return one record per contrast: its family, test and groups, its numbers, and p corrected within the family.

    Args:
        results: by the name of the group: a row per case, as of `evaluate` or `tables.over_seeds`.
        measure: the number that is compared.
        seed: of the intervals.
        unit: the column of the rows by whose values cases are averaged first, such as `"subject"`; "" for none.

    Raises:
        InputError: a group is not among the results, has no such number or two for one case, or a test is not possible.
    """
    records = []
    for family in families:
        try:
            contrasts = family.contrasts(_groups(results, measure, family.groups, unit), seed)
        except InputError as error:
            raise InputError(f"{family.name}, {measure}: {error}") from error
        corrected = family.corrected([found.p for found in contrasts.values()])
        for ((a, b), found), p in zip(contrasts.items(), corrected, strict=True):
            asked = {"family": family.name, "measure": measure, "a": a, "side": found.side, "b": b}
            how = {"test": found.test, "n of a": found.n[0], "n of b": found.n[1], "effect size": found.scale}
            records.append(asked | how | found.numbers | {"p corrected": p})
    return records


def _groups(results: Mapping[str, Rows], measure: str, names: Sequence[str], unit: str) -> Groups:
    """Return the numbers of these groups, each in the common order of all cases, or units.

    Raises:
        InputError: as of `compared`.
    """
    values = {}
    for name in names:
        if name not in results:
            raise InputError(f"no results of {name!r}; there is {', '.join(map(repr, results))}")
        there = dict.fromkeys(column for row in results[name] for column in row)
        for column in filter(None, (measure, unit)):
            if column not in there:
                raise InputError(f"{name!r} has no {column!r}; its rows have {', '.join(there) or 'nothing'}")
        frame = frame_of({name: results[name]})
        rows, cases = len(frame[measure].dropna()), frame["case"].nunique()
        if rows > cases:
            raise InputError(f"{name!r} has {rows} rows for {cases} cases; take the mean over seeds first")
        values[name] = by_case(frame, name, measure, unit)
    return {name: column.to_numpy() for name, column in pd.DataFrame(values).items()}


def formatted(records: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the records of `compared` in words, a row per contrast, with the experiment where it is named."""
    lines = []
    for record in records:
        n = dict.fromkeys(f"{record[f'n of {group}']:g}" for group in "ab")
        family = filter(None, (*str(record.get("experiment", "")).split("/"), record["family"]))
        interval = "" if record.get("low") is None else f" [{record['low']:+.3g}, {record['high']:+.3g}]"
        effect = "·" if record.get("effect") is None else f"{record['effect']:+.2f}, {record['effect size']}"
        lines.append(
            {
                "": ", ".join(family),
                "asked": f"{record['a']} {SIGNS[record['side']]} {record['b']}",
                "measure": record["measure"],
                "test": record["test"],
                "n": ", ".join(n),
                "difference": f"{record['difference']:+.3g}{interval}",
                "effect": effect,
                **{name: "·" if record.get(name) is None else f"{record[name]:.2g}" for name in ("p", "p corrected")},
            }
        )
    return lines
