"""How a network comes about as a whole."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from torch import nn

from pullback.example import Supervision
from pullback.training.evaluation import Evaluation
from pullback.training.train import Training, train


@dataclass(frozen=True)
class Task:
    """What is to be learned, from what, and where it is kept.

    Attributes:
        make: an untrained network, by number: another for each.
        examples: what is learned from, as `Examples`; of a procedure that makes labels, as `Several`.
        supervision: how it learns.
        training: the numbers of the loop.
        evaluation: of the validation split: by its score the weights are chosen; None keeps the last.
        out: a folder for the logs and the weights to use, `best.safetensors`; None keeps nothing.
        resume: what an interrupted call left there is gone on with.
        console: where progress is shown.
    """

    make: Callable[[int], Any]
    examples: Any
    supervision: Supervision
    training: Training = Training()
    evaluation: Evaluation | None = None
    out: Path | None = None
    resume: bool = False
    console: Console | None = None

    def trained(self, network: Any) -> nn.Module:
        """The network after one training, its best weights in `out`."""
        begun = self.resume and self.out is not None and (self.out / "last.safetensors").is_file()
        return train(
            network,
            self.examples,
            self.supervision,
            self.training,
            self.evaluation,
            self.out,
            begun,
            console=self.console,
        )

    def part(self, name: str, training: Training) -> "Task":
        """The same with other numbers, in a folder of its own within."""
        return replace(self, training=training, out=None if self.out is None else self.out / name)


class Procedure(Protocol):
    """From untrained networks to a trained one."""

    def __call__(self, task: Task) -> nn.Module: ...


@dataclass(frozen=True)
class Once:
    """One training, from the first weights to the best."""

    def __call__(self, task: Task) -> nn.Module:
        return task.trained(task.make(0))
