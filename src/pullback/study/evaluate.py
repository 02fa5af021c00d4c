"""Evaluation of networks and registers on the test split."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from pullback.alignment import Alignment, Pair
from pullback.data import FileCase, PickledCase, Test, subject_of
from pullback.data.case import person_of
from pullback.errors import InputError
from pullback.metrics import Metric
from pullback.records.manifest import forget_peak_memory, peak_memory_mb
from pullback.space import Affine, Image
from pullback.training import Evaluation, PairEvaluation, Row, mean_of


def evaluate(
    networks: Mapping[str, Any],
    test: Test,
    evaluates: Callable[[Test], Evaluation] | Sequence[Metric] = PairEvaluation,
    device: torch.device = torch.device("cpu"),
    console: Console | None = None,
) -> dict[str, list[Row]]:
    """Evaluate every network, or register, on every example of the test split.

    Args:
        evaluates: makes the evaluation, as `Recipe.evaluates`, or metrics of pairs; by default the standard ones.

    Returns:
        One row per example, by network, with the process's peak memory and the example's `subject`; for a pair, that of
        the fixed image, and whether it is `of` one person or two. Rows of several examples each, such as videos, say
        themselves whose they are. Examples of files that cannot be read have none, and
        these are told.

    Raises:
        TypeError: not a test split.
        InputError: nothing answers on its examples, or none can be read.
    """
    if not isinstance(test, Test):
        raise TypeError(f"evaluate reports on a test split, got {type(test).__name__}")
    test, missing = readable(test)
    if missing:
        _tell(missing, console)
    evaluation = PairEvaluation(test, evaluates) if isinstance(evaluates, Sequence) else evaluates(test)
    results = {}
    for name, network in networks.items():
        forget_peak_memory(device)
        rows = track(evaluation.rows(network, device), name, len(evaluation), console=console, transient=True)
        results[name] = [
            {**row, "peak MB": round(peak_memory_mb(device), 1), **whose, **row}
            for row, whose in zip(rows, _whose(test, len(evaluation)), strict=True)
        ]
        evaluation.score(mean_of(results[name]))  # or nothing was measured
    return results


def readable(test: Test) -> tuple[Test, dict[str, str]]:
    """Return a split without the examples whose files cannot be read, and why not, by the names of cases.

    Raises:
        InputError: none is left.
    """
    missing: dict[str, str] = {}
    for case in dict.fromkeys(case for pair in test.pairs for case in pair):
        if isinstance(case, FileCase | PickledCase):
            try:
                case.load()
            except InputError as error:
                missing[case.name] = str(error)
    kept = test.without(missing) if missing else test
    if missing and not len(kept):
        raise InputError(f"no test example can be read: {'; '.join(missing.values())}")
    return kept, missing


def _tell(missing: Mapping[str, str], console: Console | None) -> None:
    """Name the cases that are missing from what is measured."""
    said = f"{len(missing)} images cannot be read, and what they are part of is not reported: " + "; ".join(
        f"{name} ({why})" for name, why in sorted(missing.items())
    )
    if console is None:
        warnings.warn(said, UserWarning, stacklevel=3)
    else:
        console.print(said, style="bold red", highlight=False)


def _whose(test: Test, rows: int) -> list[Row]:
    """Return whose each row is, where there is one for each example; else nothing."""
    if rows != len(test):
        return [{} for _ in range(rows)]
    return [{"subject": subject, **whose} for subject, whose in zip(subjects(test), people(test), strict=True)]


def subjects(test: Test) -> list[str]:
    """Return the subject of each example; for a pair, that of the fixed image."""
    return [subject_of(fixed) for fixed, _ in test.pairs]


ONE, TWO = "one person", "two people"


def people(test: Test) -> list[Row]:
    """Return of each pair of two subjects' images whether they are `of` one person or two; {} of other examples."""
    if test.make is not None or test.atlas is not None:
        return [{} for _ in test.pairs]
    return [{"of": ONE if person_of(fixed) == person_of(moving) else TWO} for fixed, moving in test.pairs]


def by_people(results: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, list[Row]]]:
    """Return the rows of several networks apart, of one person and of two; {} where they are all of one kind."""
    kinds = {str(row["of"]) for rows in results.values() for row in rows if "of" in row}
    return {
        kind: {name: [row for row in rows if row.get("of") == kind] for name, rows in results.items()}
        for kind in ((ONE, TWO) if len(kinds) > 1 else ())
    }


@contextmanager
def left_out(said: str, console: Console) -> Iterator[None]:
    """Let a register that cannot take the images end without rows, within a `with`.

    `said` is printed, with the reason.
    """
    try:
        yield
    except InputError as error:
        console.print(f"{said}: {error}", highlight=False)


def unmoved(fixed: Image, moving: Image) -> Alignment:
    """Return the alignment by the identity: how things stood before."""
    return Alignment(Pair(fixed, moving), Affine.identity(fixed.grid.ndim))
