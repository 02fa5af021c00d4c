"""A register over pairs."""

import time
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import nn

from pullback.alignment import Alignment, Pair, Register
from pullback.metrics import Metric, numbers_of


def align(register: Register, pair: Pair) -> Alignment:
    """The whole pair, labels and all, seen through what the register makes of its images; without gradient."""
    if isinstance(register, nn.Module) and register.training:
        register.eval()
        try:
            return align(register, pair)
        finally:
            register.train()
    with torch.no_grad():
        return Alignment(pair, register(pair.fixed, pair.moving).transform)


def measure(
    register: Register, pairs: Iterable[Pair], metrics: Sequence[Metric], device: torch.device
) -> Iterator[dict[str, float | str]]:
    """One row per pair: its name, the metrics in their order, and the seconds that the register took."""
    for pair in pairs:
        known = pair.to(device)
        start = time.perf_counter()
        alignment = align(register, known)
        _ = alignment.transform.displacement(known.fixed.grid)  # a velocity is only now integrated
        if device.type != "cpu":
            torch.accelerator.synchronize()
        seconds = time.perf_counter() - start
        yield {"pair": known.name, **numbers_of(alignment, metrics), "seconds": seconds}
