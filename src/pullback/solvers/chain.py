"""Chains of registers, each of which continues from the answer of the one before."""

import time
from dataclasses import dataclass, replace
from typing import Protocol

from pullback.alignment import Alignment, Pair, Register, Registered, seen
from pullback.space import Image, Transform
from pullback.stats import Stats


class Refine(Protocol):
    """A register that can continue from the transform that another one found."""

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Registered: ...


@dataclass(frozen=True, eq=False)
class Chain:
    """A register that runs `first`, and then each of `then` from the transform found so far.

    Maps and further transforms are passed on, and stages add up.

    Attributes:
        first: the one that begins.
        then: those that go on.
        called: the name of the first as a stage; "" takes its own stages, or its class.
    """

    first: Register
    then: tuple[Refine, ...]
    called: str = ""

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
        """Align two images, fixed → moving; from `start`, where `first` takes one."""
        pair = Pair(fixed, moving)
        found = timed(pair, self.first, start, self.called)
        for refine in self.then:
            after = timed(pair, refine, found.transform)
            stats = (found.stats or Stats()).then(after.stats)
            maps, transforms = {**found.maps, **after.maps}, {**found.transforms, **after.transforms}
            found = replace(after, maps=maps, transforms=transforms, stats=stats)
        return found


def timed(pair: Pair, register: Register | Refine, start: Transform | None = None, name: str = "") -> Alignment:
    """Return a register's answer to a pair, with stages that say how many seconds it took.

    These are the register's own stages, where it has any and `name` is empty; else one stage by `name` or its class.
    """
    clock = time.perf_counter()
    images = (pair.fixed, pair.moving)
    answer = seen(pair, register(*images) if start is None else register(*images, start=start))  # type: ignore[call-arg]
    stats = answer.stats or Stats(start=start)
    if name or not stats.stages:
        stats = stats.as_stage(name or type(register).__name__, time.perf_counter() - clock)
    return replace(answer, stats=stats)


def chain(first: Register, *then: Refine) -> Chain:
    """Return a chain of registers; `chain(network, pb.register)` refines a network's answer for each pair."""
    return Chain(first, then)
