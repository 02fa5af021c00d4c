"""Gradient checkpointing: less memory for more time."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

T = TypeVar("T")


def checkpointed(step: Callable[..., T], *state: Tensor) -> T:
    """Return `step(*state)`, of which only `state` is kept for the gradient.

    The step is computed once more in the backward pass. The gradient is the same to the bit, and also reaches tensors
    that `step` holds itself. The step must be repeatable: it draws no random numbers. Where no gradients are recorded,
    it is called directly.
    """
    if not torch.is_grad_enabled():
        return step(*state)
    return checkpoint(step, *state, use_reentrant=False, preserve_rng_state=False)
