"""Evaluation of a network on examples that it does not learn from."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar, Protocol

import torch

from pullback.data import Test, Validation
from pullback.data.case import person_of
from pullback.errors import InputError
from pullback.metrics import STANDARD, Metric
from pullback.training.measure import evaluating, mean_of, measure, score

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
class VideoEvaluation(PairEvaluation):
    """The evaluation of a register on the videos of a split, whose pairs are frames of one video each.

    A row is of a video: the means over its pairs, and for each number in `steady` its variance over them.

    Attributes:
        steady: numbers of the metrics whose variance over time is told, as `variance of …`.
    """

    steady: Sequence[str] = ()

    def __len__(self) -> int:
        return len({person_of(fixed) for fixed, _ in self.pairs.pairs})

    def rows(self, network: Any, device: torch.device) -> Iterator[Row]:
        """Yield one row per video."""
        owners = [person_of(fixed) for fixed, _ in self.pairs.pairs]
        rows = zip(owners, measure(network, self.pairs, self.metrics, device), strict=True)
        for owner, numbered in groupby(rows, key=lambda row: row[0]):
            frames = [row for _, row in numbered]
            variances = {
                f"variance of {name}": _variance([f[name] for f in frames if name in f]) for name in self.steady
            }
            yield {"pair": owner, "subject": owner, **mean_of(frames), **variances}


def _variance(values: Sequence[Any]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)


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
