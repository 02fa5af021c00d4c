"""One-dimensional linear maps along one spatial axis of a volume."""

from torch import Tensor


def apply_along(matrix: Tensor, values: Tensor, axis: int) -> Tensor:
    """`matrix` `(m, n)` times `values` `(B, C, *spatial)` along spatial axis `axis` of length `n`."""
    moved = values.movedim(2 + axis, -1) @ matrix.T
    return moved.movedim(-1, 2 + axis)
