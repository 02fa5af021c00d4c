"""Procedures: how a network is trained as a whole, once or in rounds."""

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
    """A task of training: untrained networks, examples, supervision, and a folder for the results.

    Attributes:
        make: makes an untrained network for each number.
        examples: the training examples, as `Examples`; for a procedure that makes labels, as `Several`.
        supervision: gives the losses.
        training: the numbers of the loop.
        evaluation: of the validation split, by whose score the weights are chosen; None keeps the last.
        out: a folder for the logs and the weights to use, `best.safetensors`; None keeps nothing.
        resume: continue from what an interrupted call left in the folder.
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
        """Train a network once and return it, with its best weights in `out`."""
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
        """Return the task with other numbers, in a folder of its own within."""
        return replace(self, training=training, out=None if self.out is None else self.out / name)


class Procedure(Protocol):
    """A function from a task to a trained network."""

    def __call__(self, task: Task) -> nn.Module: ...


@dataclass(frozen=True)
class Once:
    """The procedure of one training, from the first weights to the best."""

    def __call__(self, task: Task) -> nn.Module:
        return task.trained(task.make(0))
