"""A register over pairs."""

import time
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import nn

from pullback.alignment import Alignment, Pair, Register
from pullback.metrics import Metric


def align(register: Register, pair: Pair) -> Alignment:
    """The whole pair, labels and all, seen through what the register makes of its images; without gradient."""
    training = isinstance(register, nn.Module) and register.training
    if training:
        register.eval()
    with torch.no_grad():
        transform = register(pair.fixed, pair.moving).transform
    if training:
        register.train()
    return Alignment(pair, transform)


def measure(
    register: Register, pairs: Iterable[Pair], metrics: Sequence[Metric], device: torch.device
) -> Iterator[dict[str, float | str]]:
    """One row per pair: its name, the metrics in their order, and the seconds that the register took."""
    for pair in pairs:
        pair = pair.to(device)
        start = time.perf_counter()
        alignment = align(register, pair)
        if device.type != "cpu":
            torch.accelerator.synchronize()
        seconds = time.perf_counter() - start
        row: dict[str, float | str] = {"pair": pair.name}
        for metric in metrics:
            row |= metric(alignment)
        yield row | {"seconds": seconds}
