"""Memory for time: what a gradient needs is made again when it is needed."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Answer = TypeVar("Answer")


def checkpointed(step: Callable[..., Answer], *state: Tensor) -> Answer:
    """`step(*state)`, of which only `state` is kept for the gradient; the rest is computed once more in its backward.

    The gradient is the same to the bit, and reaches what `step` holds besides. The step must be repeatable: it draws
    nothing. Where no gradients are recorded it is called as it is.
    """
    if not torch.is_grad_enabled():
        return step(*state)
    return checkpoint(step, *state, use_reentrant=False, preserve_rng_state=False)
