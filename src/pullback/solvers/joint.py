"""Joint descent on several things with parameters."""

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from pullback.space import Parametric, params_of, short_repr, with_params_of


@dataclass(frozen=True, eq=False)
class Joint:
    """Things that are descended together, such as a template image and the transforms that lead from it."""

    parts: tuple[Parametric, ...]

    __repr__ = short_repr

    @property
    def params(self) -> tuple[Tensor, ...]:
        """The parameters of its parts, in their order."""
        return params_of(self.parts)

    def with_params(self, *params: Tensor) -> Self:
        """Return the same parts with other parameters."""
        return type(self)(with_params_of(self.parts, params))
