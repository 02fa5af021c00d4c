"""Measurement of a register over pairs."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from pullback.alignment import Alignment, Pair, Register, seen
from pullback.errors import InputError
from pullback.metrics import Metric, numbers_of


def align(register: Register, pair: Pair) -> Alignment:
    """Align a whole pair, labels and all, by a register's answer to its images, without gradient."""
    with evaluating(register):
        return seen(pair, register(pair.fixed, pair.moving))


@contextmanager
def evaluating(network: Any) -> Iterator[None]:
    """Put a network into evaluation mode, without gradients, for the time of a `with`; afterwards it is as before."""
    training = isinstance(network, nn.Module) and network.training
    if training:
        network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        if training:
            network.train()


def measure(
    register: Register, pairs: Iterable[Pair], metrics: Sequence[Metric], device: torch.device
) -> Iterator[dict[str, float | str]]:
    """Yield one row per pair: its name, the metrics in their order, and the seconds that the register took."""
    for pair in pairs:
        known = pair.to(device)
        start = time.perf_counter()
        alignment = align(register, known)
        _ = alignment.transform.displacement(known.fixed.grid)  # a velocity is only now integrated
        if device.type != "cpu":
            torch.accelerator.synchronize()
        seconds = time.perf_counter() - start
        yield {"pair": known.name, **numbers_of(alignment, metrics), "seconds": seconds}


def mean_of(rows: Iterable[dict[str, float | str]]) -> dict[str, float]:
    """Return the column means of the rows of `measure`; a number missing from a row is left out of its mean."""
    columns: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if not isinstance(value, str):
                columns.setdefault(name, []).append(value)
    return {name: math.fsum(values) / len(values) for name, values in columns.items()}


def in_words(means: dict[str, float]) -> str:
    """Return the numbers in one line, without those of single labels."""
    return ", ".join(f"{k} {v:.4g}" for k, v in means.items() if "/" not in k)


def score(values: dict[str, float], metrics: Sequence[Metric]) -> float:
    """Return the number of the first metric that answered, with its sign such that more is better; NaN is worst.

    Raises:
        InputError: none of the metrics answered.
    """
    for metric in metrics:
        if metric.name in values:
            value = values[metric.name] if metric.higher_is_better else -values[metric.name]
            return -math.inf if math.isnan(value) else value
    raise InputError("no metric answers on these pairs: they lack labels, landmarks or a known truth")
