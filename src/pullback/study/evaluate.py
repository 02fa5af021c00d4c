"""Registers over the test split."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from rich.console import Console
from rich.progress import track

from pullback.alignment import Alignment, Pair, Register
from pullback.data import Test
from pullback.errors import InputError
from pullback.files.manifest import forget_peak_memory, peak_memory_mb
from pullback.metrics import Metric
from pullback.space import Affine, Image
from pullback.training import measure


def evaluate(
    registers: Mapping[str, Register],
    test: Test,
    metrics: Sequence[Metric],
    device: torch.device = torch.device("cpu"),
    console: Console | None = None,
) -> dict[str, list[dict[str, float | str]]]:
    """Every register on every pair of the test split: one row per pair, by register, with the process's peak memory.

    Raises:
        TypeError: not a test split.
        InputError: no metric answers on its pairs.
    """
    if not isinstance(test, Test):
        raise TypeError(f"evaluate reports on a test split, got {type(test).__name__}")
    results: dict[str, list[dict[str, float | str]]] = {}
    for name, register in registers.items():
        forget_peak_memory(device)
        rows = track(measure(register, test, metrics, device), name, len(test), console=console, transient=True)
        results[name] = [row | {"peak MB": round(peak_memory_mb(device), 1)} for row in rows]
        if not any(metric.name in row for metric in metrics for row in results[name]):
            raise InputError("no metric answers on the test pairs: they lack labels, landmarks or a known truth")
    return results


@contextmanager
def left_out(said: str, console: Console) -> Iterator[None]:
    """Within it, a register that cannot take the images ends without a row, and it is `said`, and why."""
    try:
        yield
    except InputError as error:
        console.print(f"{said}: {error}", highlight=False)


def unmoved(fixed: Image, moving: Image) -> Alignment:
    """The register that does nothing: how things stood before."""
    return Alignment(Pair(fixed, moving), Affine.identity(fixed.grid.ndim))
