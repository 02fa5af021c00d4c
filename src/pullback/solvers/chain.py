"""One register after another."""

from dataclasses import dataclass
from typing import Protocol

from pullback.alignment import Register, Registered
from pullback.space import Image, Transform


class Refine(Protocol):
    """A register that can go on from what another found."""

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Registered: ...


@dataclass(frozen=True, eq=False)
class Chain:
    """The register that begins with `first` and goes on with each of `then` from what was found so far."""

    first: Register
    then: tuple[Refine, ...]

    def __call__(self, fixed: Image, moving: Image) -> Registered:
        found = self.first(fixed, moving)
        for refine in self.then:
            found = refine(fixed, moving, start=found.transform)
        return found


def chain(first: Register, *then: Refine) -> Chain:
    """`chain(network, pb.register)`: a network's answer, refined for each pair."""
    return Chain(first, then)
