"""Networks that can be made again."""

from functools import partial
from typing import Any, Self

from torch import nn


class Network(nn.Module):
    """A module that knows the arguments it was made with, so that a run can record them.

    Attributes:
        made: makes one of the same kind and size, with weights of its own.
    """

    made: partial[Self]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        network = super().__new__(cls)
        object.__setattr__(network, "made", partial(cls, *args, **kwargs))  # a module takes no member before its own
        return network
