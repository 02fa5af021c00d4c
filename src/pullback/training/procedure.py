"""How a network comes about as a whole."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from torch import nn

from pullback.alignment import Supervision
from pullback.data import Dataset
from pullback.metrics import Metric
from pullback.training.train import Training, train


class Procedure(Protocol):
    """From untrained networks to a trained one.

    `make(n)` is an untrained network, another for each n. With `out` the folder gets the logs and the weights to use,
    `best.safetensors`; with `resume` what an interrupted call left there is gone on with.
    """

    def __call__(
        self,
        make: Callable[[int], Any],
        data: Dataset,
        supervision: Supervision,
        training: Training,
        metrics: Sequence[Metric],
        out: Path | None,
        resume: bool,
        console: Console | None,
    ) -> nn.Module: ...


@dataclass(frozen=True)
class Once:
    """One training, from the first weights to the best."""

    def __call__(
        self,
        make: Callable[[int], Any],
        data: Dataset,
        supervision: Supervision,
        training: Training,
        metrics: Sequence[Metric],
        out: Path | None,
        resume: bool,
        console: Console | None,
    ) -> nn.Module:
        begun = resume and out is not None and (out / "last.safetensors").is_file()
        return train(make(0), data.train, supervision, training, data.validation, metrics, out, begun, console=console)
