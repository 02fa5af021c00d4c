"""One register after another."""

import time
from dataclasses import dataclass, replace
from typing import Protocol

from pullback.alignment import Alignment, Pair, Register, Registered, seen
from pullback.space import Image, Transform
from pullback.stats import Stats


class Refine(Protocol):
    """A register that can go on from what another found."""

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Registered: ...


@dataclass(frozen=True, eq=False)
class Chain:
    """The register that begins with `first` and goes on with each of `then` from what was found so far.

    Maps and further transforms are handed on, and stages add up.
    """

    first: Register
    then: tuple[Refine, ...]

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
        """Fixed → moving; from a `start`, where `first` takes one."""
        pair = Pair(fixed, moving)
        found = timed(pair, self.first, start)
        for refine in self.then:
            after = timed(pair, refine, found.transform)
            stats = (found.stats or Stats()).then(after.stats)
            maps, transforms = {**found.maps, **after.maps}, {**found.transforms, **after.transforms}
            found = replace(after, maps=maps, transforms=transforms, stats=stats)
        return found


def timed(pair: Pair, register: Register | Refine, start: Transform | None = None, name: str = "") -> Alignment:
    """A register's answer to a pair, whose stages tell the seconds it took.

    They are its own, where it tells any and no `name` makes one of them; else one, by that or by the register's name.
    """
    clock = time.perf_counter()
    images = (pair.fixed, pair.moving)
    answer = seen(pair, register(*images) if start is None else register(*images, start=start))  # type: ignore[call-arg]
    stats = answer.stats or Stats(start=start)
    if name or not stats.stages:
        stats = stats.as_stage(name or type(register).__name__, time.perf_counter() - clock)
    return replace(answer, stats=stats)


def chain(first: Register, *then: Refine) -> Chain:
    """`chain(network, pb.register)`: a network's answer, refined for each pair."""
    return Chain(first, then)
