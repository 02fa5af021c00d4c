"""Tiles of arrays: cut out, laid side by side, or blended where they overlap."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

Window = Callable[[int], Tensor]
"""From the edge of a tile in voxels, n, to the weights of its voxels along one axis, `(n,)`, all above 0."""


def hat(n: int) -> Tensor:
    """Return weights that fall by 1 a voxel from the middle, `(n,)` float64; of the outermost voxels they are ½."""
    at = torch.arange(n, dtype=torch.float64) + 0.5
    return torch.minimum(at, n - at)


def bell(n: int) -> Tensor:
    """Return a Gaussian about the middle, `(n,)` float64, whose deviation is an eighth of the edge, as in nnU-Net."""
    at = torch.arange(n, dtype=torch.float64) - (n - 1) / 2
    return torch.exp(-0.5 * (8 * at / n) ** 2)


@dataclass(frozen=True)
class Tiling:
    """Tiles of one size that cover an array, at most `stride` apart.

    Tiles that overlap are spread evenly along each axis, the first from voxel 0 on and the last flush with the end.
    Tiles that do not, `stride` as large as `size`, lie one after the other, and the last may reach beyond the end, as
    does one that is larger than the array: what is cut there is 0, and what is laid there is cut off.

    Attributes:
        shape: of the array, d axes.
        size: of a tile.
        stride: how far apart tiles are at most, no further than their size.

    Raises:
        ValueError: other numbers of axes, or sizes and strides that leave gaps.
    """

    shape: tuple[int, ...]
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        alike = len(self.shape) == len(self.size) == len(self.stride) > 0
        if not alike or min(self.shape) < 1 or not all(0 < t <= s for t, s in zip(self.stride, self.size, strict=True)):
            raise ValueError(
                f"Tiling: sizes of 1 or more and strides from 1 to the size along each axis expected, got shape "
                f"{self.shape}, size {self.size}, stride {self.stride}"
            )

    @cached_property
    def starts(self) -> tuple[tuple[int, ...], ...]:
        """The first voxels of the tiles along each axis."""
        return tuple(map(_starts, self.shape, self.size, self.stride))

    @property
    def places(self) -> tuple[tuple[int, ...], ...]:
        """The first voxel of each tile, the last axis fastest."""
        return tuple(itertools.product(*self.starts))

    def __len__(self) -> int:
        return math.prod(map(len, self.starts))

    def cut(self, values: Tensor) -> Tensor:
        """Return the tiles `(N, B, C, *size)` of values `(B, C, *shape)`, in the order of `places`.

        Raises:
            ValueError: values of another shape.
        """
        if tuple(values.shape[2:]) != self.shape:
            raise ValueError(f"Tiling.cut: values of shape {self.shape} expected, got {tuple(values.shape[2:])}")
        beyond = [starts[-1] + s - n for starts, s, n in zip(self.starts, self.size, self.shape, strict=True)]
        if any(more > 0 for more in beyond):
            values = F.pad(values, [pad for more in reversed(beyond) for pad in (0, more)])
        return torch.stack([values[_within(place, self.size)] for place in self.places])

    def laid(self, parts: Tensor) -> Tensor:
        """Return values `(B, C, *shape)` of tiles `(N, B, C, *size)` that do not overlap: the inverse of `cut`.

        Raises:
            ValueError: tiles that overlap, or another number or size of them.
        """
        if self.stride != self.size:
            raise ValueError(f"Tiling.laid: tiles of {self.size} that are {self.stride} apart overlap; blend them")
        self._check(parts.shape[0], parts.shape[3:])
        d = len(self.shape)
        apart = parts.unflatten(0, [len(starts) for starts in self.starts])  # (n₁, …, B, C, s₁, …)
        order = [axis for a in range(d) for axis in (a, d + 2 + a)]  # (B, C, n₁, s₁, …)
        whole = apart.permute(d, d + 1, *order)
        for axis in range(d):
            whole = whole.flatten(2 + axis, 3 + axis)
        return whole[_within((0,) * d, self.shape)]

    def blended(self, parts: Iterable[Tensor], window: Window = hat) -> Tensor:
        """Return the means `(B, C, *shape)` of tiles `(B, C, *size)`, by weights that add up to 1 at each voxel.

        Tiles are asked for one by one, so that one at a time needs to be held.

        Args:
            parts: the tiles, in the order of `places`; a tensor `(N, B, C, *size)` is such.
            window: weights along an axis, before they are made to add up to 1.

        Raises:
            ValueError: another number or size of tiles.
        """
        shares = [self._shares(axis, window) for axis in range(len(self.shape))]
        total: Tensor | None = None
        for part, numbers in zip(parts, self._numbers, strict=True):
            self._check(len(self), part.shape[2:])
            if total is None:
                total = part.new_zeros(*part.shape[:2], *self.shape)
            place = [starts[n] for starts, n in zip(self.starts, numbers, strict=True)]
            seen = [min(s, n - first) for s, n, first in zip(self.size, self.shape, place, strict=True)]
            weighted = part[_within((0,) * len(seen), seen)]
            for axis, (share, n) in enumerate(zip(shares, numbers, strict=True)):
                weighted = weighted * share[n, : seen[axis]].to(part).view(-1, *[1] * (len(seen) - axis - 1))
            total[_within(place, seen)] += weighted
        assert total is not None
        return total

    @property
    def _numbers(self) -> list[tuple[int, ...]]:
        """The number of each tile along each axis."""
        return [*itertools.product(*(range(len(starts)) for starts in self.starts))]

    def _shares(self, axis: int, window: Window) -> Tensor:
        """Return the weights of the tiles along an axis, `(tiles, size)`, which add up to 1 at each voxel."""
        size, starts = self.size[axis], self.starts[axis]
        weights = window(size)
        total = weights.new_zeros(starts[-1] + size)
        for first in starts:
            total[first : first + size] += weights
        return torch.stack([weights / total[first : first + size] for first in starts])

    def _check(self, count: int, size: Sequence[int]) -> None:
        if count != len(self) or tuple(size) != self.size:
            raise ValueError(f"Tiling: {len(self)} tiles of {self.size} expected, got {count} of {tuple(size)}")


def _starts(n: int, size: int, stride: int) -> tuple[int, ...]:
    if size >= n:
        return (0,)
    if size == stride:
        return tuple(range(0, n, size))
    count = math.ceil((n - size) / stride)
    return tuple((2 * step * (n - size) + count) // (2 * count) for step in range(count + 1))  # rounded


def _within(place: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    """Return the index of a box in `(B, C, *shape)`."""
    return (slice(None), slice(None), *(slice(a, a + n) for a, n in zip(place, size, strict=True)))
