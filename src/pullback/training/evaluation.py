"""What is measured of a network on examples that it does not learn from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch

from pullback.data import Test, Validation
from pullback.metrics import STANDARD, Metric
from pullback.training.measure import measure, score

Row = dict[str, float | str]


class Evaluation(Protocol):
    """Measures a network on a split, example by example, and says which number is to grow.

    Attributes:
        aligns: what its networks align: `"pair"` (of images), `"points"`, `"pose"`, `"slice"`, `"labels"`.
    """

    aligns: ClassVar[str]

    def __len__(self) -> int:
        """How many examples."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """The subjects of its examples, sorted."""
        ...

    def rows(self, network: Any, device: torch.device, /) -> Iterator[Row]:
        """One per example: first its name, as `pair` or whatever it is, then numbers."""
        ...

    def score(self, means: dict[str, float], /) -> float:
        """Of the means of the rows' numbers, one number of which more is better."""
        ...


@dataclass(frozen=True)
class PairEvaluation:
    """A register on the pairs of a split, by metrics.

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
        """As `measure` yields them."""
        return measure(network, self.pairs, self.metrics, device)

    def score(self, means: dict[str, float]) -> float:
        """As `measure.score`.

        Raises:
            InputError: none of the metrics answered.
        """
        return score(means, self.metrics)
