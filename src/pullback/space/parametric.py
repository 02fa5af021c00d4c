"""Parameters that a solver may change, of one thing or several."""

from collections.abc import Sequence
from typing import Protocol, Self, TypeVar

from torch import Tensor


class Parametric(Protocol):
    """A thing with parameters: a transform, a template image, a group of them."""

    @property
    def params(self) -> tuple[Tensor, ...]:
        """The parameters that may change."""
        ...

    def with_params(self, *params: Tensor) -> Self:
        """Return the same thing with other parameters."""
        ...


Part = TypeVar("Part", bound=Parametric)


def params_of(parts: Sequence[Parametric]) -> tuple[Tensor, ...]:
    """Return the parameters of all parts, in their order."""
    return tuple(param for part in parts for param in part.params)


def with_params_of(parts: Sequence[Part], params: Sequence[Tensor]) -> tuple[Part, ...]:
    """Return the parts with other parameters, which come in the order of `params_of`."""
    left, moved = list(params), []
    for part in parts:
        count = len(part.params)
        moved.append(part.with_params(*left[:count]))
        del left[:count]
    return tuple(moved)
