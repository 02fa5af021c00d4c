"""Values whose gradients are computed in the same pass over the data."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Sweep = Callable[..., tuple[Tensor, tuple[Tensor | None, ...]]]
"""A function `sweep(wanted, *inputs)` to a value, and for each input its gradient, or None where it is not wanted."""


def value_with_gradient(sweep: Sweep, *inputs: Tensor) -> Tensor:
    """Return the value of `sweep`, differentiable by the gradients that it computes itself.

    Only these are kept for the backward pass, and they cannot be differentiated again. The value is a scalar, `()`, or
    has the leading axes of the gradients, of which each part then belongs to one value. A gradient may be larger than
    an input that was broadcast: it is summed to its size.
    """
    return _WithGradient.apply(sweep, *inputs)


class _WithGradient(torch.autograd.Function):
    """The value f(x) and its gradient ∇f(x): for a gradient g by the value, the gradient by x is g ∇f(x)."""

    @staticmethod
    def forward(ctx, sweep, *inputs):
        value, gradients = sweep(ctx.needs_input_grad[1:], *inputs)
        ctx.save_for_backward(*gradients)
        ctx.shapes = [one.shape for one in inputs]
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        found: list[Tensor | None] = []
        for gradient, shape in zip(ctx.saved_tensors, ctx.shapes, strict=True):
            if gradient is None:
                found.append(None)
                continue
            each = upstream[(..., *[None] * (gradient.ndim - upstream.ndim))]  # (B, C, 1, …), or (1, 1, 1, …)
            found.append((each * gradient).sum_to_size(shape))
        return None, *found
