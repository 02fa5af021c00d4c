"""Padding, by which a network of fixed stride takes images of any size."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def padded(network: Callable[[Tensor], Tensor], values: Tensor, stride: int) -> Tensor:
    """Return `network(values)` for `(B, C, *spatial)` of any size, zero-padded on all sides to multiples of `stride`.

    The answer is cropped to the size of `values`.
    """
    before, pad = [], []
    for n in reversed(values.shape[2:]):
        missing = -n % stride
        before.append(missing // 2)
        pad += [missing // 2, missing - missing // 2]
    out = network(F.pad(values, pad) if any(pad) else values)
    for axis, (start, n) in enumerate(zip(reversed(before), values.shape[2:], strict=True)):
        out = out.narrow(axis + 2, start, n)
    return out
