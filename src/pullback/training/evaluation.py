"""Evaluation of a network on examples that it does not learn from."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch

from pullback.data import Test, Validation
from pullback.errors import InputError
from pullback.metrics import STANDARD, Metric
from pullback.training.measure import evaluating, measure, score

Row = dict[str, float | str]


class Evaluation(Protocol):
    """A measurement of a network on a split, example by example, with a score that is to grow."""

    @property
    def aligns(self) -> str:
        """The kind of its examples: `"pair"` (of images), `"points"`, `"pose"`, `"slice"` or `"labels"`."""
        ...

    def __len__(self) -> int:
        """Return the number of examples."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the subjects of its examples, sorted."""
        ...

    def rows(self, network: Any, device: torch.device, /) -> Iterator[Row]:
        """Yield one row per example: first its name, as `pair` or another kind, then numbers."""
        ...

    def score(self, means: dict[str, float], /) -> float:
        """Return one number, of which more is better, from the means of the rows' numbers."""
        ...


@dataclass(frozen=True)
class PairEvaluation:
    """The evaluation of a register on the pairs of a split, by metrics.

    Attributes:
        pairs: the split.
        metrics: the first that answers chooses the checkpoint.
    """

    pairs: Validation | Test
    metrics: Sequence[Metric] = STANDARD
    aligns: ClassVar[str] = "pair"

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def names(self) -> tuple[str, ...]:
        return self.pairs.names

    def rows(self, network: Any, device: torch.device) -> Iterator[Row]:
        """Yield the rows of `measure`."""
        return measure(network, self.pairs, self.metrics, device)

    def score(self, means: dict[str, float]) -> float:
        """Return the score by `measure.score`.

        Raises:
            InputError: none of the metrics answered.
        """
        return score(means, self.metrics)


@dataclass(frozen=True)
class ExampleEvaluation:
    """The evaluation of a network on the examples of a split, by one function of both.

    Attributes:
        split: the examples.
        measure: `measure(network, example)` answers with numbers by name; the network does not train meanwhile.
        chooses: the number by which checkpoints are chosen.
        higher_is_better: of that number.
        aligns: as in `Evaluation`.
    """

    split: Validation | Test
    measure: Callable[[Any, Any], dict[str, float]]
    chooses: str
    higher_is_better: bool = True
    aligns: str = "labels"

    def __len__(self) -> int:
        return len(self.split)

    @property
    def names(self) -> tuple[str, ...]:
        return self.split.names

    def rows(self, network: Any, device: torch.device) -> Iterator[Row]:
        """Yield one row per example: its name, and the numbers."""
        for example in self.split:
            with evaluating(network):
                yield {"example": example.name, **self.measure(network, example.to(device))}

    def score(self, means: dict[str, float]) -> float:
        """Return the number that chooses, with its sign such that more is better; NaN is worst.

        Raises:
            InputError: no example has it.
        """
        if self.chooses not in means:
            raise InputError(f"no example has the number {self.chooses!r}, by which checkpoints are chosen")
        value = means[self.chooses] if self.higher_is_better else -means[self.chooses]
        return -math.inf if math.isnan(value) else value
