"""Statistics of a registration: where it began, what was done, and how the descents went."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from pullback.space import Transform


@dataclass(frozen=True)
class Stage:
    """A stage of a registration.

    Attributes:
        name: such as "affine".
        seconds: that it took.
        steps: of its descents; 0 where there was none.
        stopped: why the last of them ended, as in `Stats`.
    """

    name: str
    seconds: float
    steps: int = 0
    stopped: str = ""


@dataclass(frozen=True, eq=False)
class Stats:
    """Statistics of how a transform was found.

    Attributes:
        start: the initial transform, fixed → moving; None where that was as the headers say.
        origin: how the start was found, such as "header", "masses" or "search"; "" where nothing sought it.
        confidence: the lead of the start over its rivals; None where that was not measured.
        stages: what was done, in order.
        energies: `(n,)`, what was descended, before each step and where a descent stopped by itself; of several
            descents one after the other.
        steps: of all descents.
        stopped: why the last descent ended: "steps" (all were taken), "converged", or "not finite".
        numbers: what else a method knows of its answer, by name.
    """

    start: Transform | None = None
    origin: str = ""
    confidence: float | None = None
    stages: tuple[Stage, ...] = ()
    energies: Tensor = field(default_factory=lambda: torch.zeros(0))
    steps: int = 0
    stopped: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether a descent met a value that is not finite."""
        return self.stopped == "not finite" or not bool(self.energies.isfinite().all())

    def then(self, later: "Stats | None") -> Self:
        """Return these statistics followed by `later`: its start is dropped, for it began where these ended."""
        if later is None:
            return self
        return replace(
            self,
            stages=self.stages + later.stages,
            energies=torch.cat([self.energies.to(later.energies), later.energies]),
            steps=self.steps + later.steps,
            stopped=later.stopped or self.stopped,
            numbers={**self.numbers, **later.numbers},
        )

    def as_stage(self, name: str, seconds: float) -> Self:
        """Return the statistics with all stages summed up as one."""
        return replace(self, stages=(Stage(name, seconds, self.steps, self.stopped),))

    @classmethod
    def of_all(cls, each: Sequence["Stats"]) -> "Stats":
        """Return the statistics of a batch's pairs, one after the other, with the least confidence and worst end."""
        first, *others = each
        starts = [one.start for one in each if one.start is not None]
        confidences = [one.confidence for one in each if one.confidence is not None]
        total = first
        for other in others:
            total = total.then(other)
        return replace(
            total,
            start=starts[0].stack(starts[1:]) if len(starts) == len(each) else None,
            origin=", ".join(dict.fromkeys(one.origin for one in each if one.origin)),
            confidence=min(confidences, default=None),
            stopped="not finite" if any(one.failed for one in each) else total.stopped,
        )
