"""Any size through a network of fixed stride."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def padded(network: Callable[[Tensor], Tensor], values: Tensor, stride: int) -> Tensor:
    """`network(values)` for `(B, C, *spatial)` of any size: zero-padded all round to multiples of `stride`, cropped."""
    before, pad = [], []
    for n in reversed(values.shape[2:]):
        missing = -n % stride
        before.append(missing // 2)
        pad += [missing // 2, missing - missing // 2]
    out = network(F.pad(values, pad) if any(pad) else values)
    for axis, (start, n) in enumerate(zip(reversed(before), values.shape[2:], strict=True)):
        out = out.narrow(axis + 2, start, n)
    return out
