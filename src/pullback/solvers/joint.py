"""Several things that one descent moves."""

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from pullback.space import Parametric, params_of, short_repr, with_params_of


@dataclass(frozen=True, eq=False)
class Joint:
    """Parts that are descended together, such as a template image and the maps that lead from it."""

    parts: tuple[Parametric, ...]

    __repr__ = short_repr

    @property
    def params(self) -> tuple[Tensor, ...]:
        """Those of its parts, in their order."""
        return params_of(self.parts)

    def with_params(self, *params: Tensor) -> Self:
        """The same parts with other parameters."""
        return type(self)(with_params_of(self.parts, params))
