"""Bounding boxes of labels, along the axes of the world."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.numerics.boxes import extents
from pullback.space.grid import Grid
from pullback.space.image import Labels
from pullback.space.short_repr import short_repr

OBLIQUE = 1.0  # degrees


@dataclass(frozen=True, eq=False)
class Boxes:
    """The bounding box of each label, for a batch of images.

    Attributes:
        values: of the labels, `(N,)` integers, each once.
        low: where the boxes begin, `(B, N, d)` float64 in RAS mm; NaN where an image has no box of the label.
        high: where they end.

    Raises:
        ValueError: other shapes, a label twice, or a box that ends before it begins.
    """

    values: Tensor
    low: Tensor
    high: Tensor

    __repr__ = short_repr

    def __post_init__(self) -> None:
        count, shape = len(self.values), tuple(self.low.shape)
        if len(shape) != 3 or shape != tuple(self.high.shape) or shape[1] != count or shape[2] not in (2, 3):
            raise ValueError(
                f"Boxes: two corners of (B, {count}, 2 or 3) for {count} labels expected, got {shape} and "
                f"{tuple(self.high.shape)}"
            )
        if len(self.values.unique()) != count:
            raise ValueError(f"Boxes: each label once expected, got {self.values.tolist()}")
        if (self.high <= self.low).any():
            raise ValueError("Boxes: a box ends where it begins, or before; give low corners first")

    @classmethod
    def of(cls, labels: Labels) -> "Boxes":
        """Return the tight boxes of all labels above background.

        Raises:
            InputError: the grid's axes are not those of the world.
        """
        values = labels.data.unique()
        values = values[values > 0].long()
        faces, grid = extents(labels.data, values).cpu(), labels.grid
        order = _along(grid)
        middle = grid.to_world(faces.mean(-1).mT).mT
        half = ((faces[..., 1] - faces[..., 0]) / 2 * grid.spacing)[..., order]
        return cls(values.cpu(), middle - half, middle + half)

    @property
    def batch(self) -> int:
        """Number of images in the batch."""
        return len(self.low)

    def on(self, grid: Grid, values: Tensor) -> Tensor:
        """Return the faces of the boxes of some labels in voxels of a grid, low and high: `(B, L, d, 2)` float64.

        Args:
            grid: where they are wanted.
            values: `(L,)`; of a label that has no box here, the faces are NaN.

        Raises:
            InputError: the grid's axes are not those of the world, or it has other dimensions.
        """
        if grid.ndim != self.low.shape[2]:
            raise InputError(f"boxes of {self.low.shape[2]} axes have no meaning on a {grid.ndim}-D image")
        order = _along(grid)
        middle = grid.to_voxels(((self.low + self.high) / 2).double().mT).mT
        half = ((self.high - self.low) / 2).double()[..., order.argsort()] / grid.spacing.to(self.low.device)
        faces = torch.stack([middle - half, middle + half], -1)
        where = self.values[None] == values.to(self.values)[:, None]  # (L, N)
        found = faces[:, where.int().argmax(1)]
        return torch.where(where.any(1)[None, :, None, None], found, torch.nan)

    def to(self, device: torch.device) -> Self:
        return replace(self, values=self.values.to(device), low=self.low.to(device), high=self.high.to(device))

    def nth(self, n: int) -> Self:
        """Return the boxes of the n-th image; a batch of one returns itself, whatever n."""
        return self if self.batch == 1 else replace(self, low=self.low[n : n + 1], high=self.high[n : n + 1])

    def stack(self, others: Sequence["Boxes"]) -> "Boxes":
        """Return one batch of these boxes and others; what one of them lacks is NaN there."""
        every = (self, *others)
        values = torch.cat([one.values for one in every]).unique()
        corners = [torch.cat([one._at(values, corner) for one in every]) for corner in ("low", "high")]
        return Boxes(values, *corners)

    def _at(self, values: Tensor, corner: str) -> Tensor:
        """Return a corner of the boxes of these labels, all of which are known to be sorted, `(B, L, d)`."""
        known = self.low if corner == "low" else self.high
        out = known.new_full((len(known), len(values), known.shape[2]), torch.nan)
        out[:, torch.searchsorted(values, self.values)] = known
        return out


def _along(grid: Grid) -> Tensor:
    """Return which axis of the grid runs along each axis of the world, `(d,)`.

    Raises:
        InputError: none does.
    """
    cosines = (grid.affine[:-1, :-1] / grid.spacing).abs()  # (world, grid)
    order = cosines.argmax(1)
    if cosines.amax(1).min() < math.cos(math.radians(OBLIQUE)) or len(order.unique()) < grid.ndim:
        raise InputError(
            f"boxes in mm have no meaning on {grid}, whose axes are more than {OBLIQUE:g}° off those of the world: "
            f"bring the images onto a straight grid first, by `pullback prepare`, or give labels"
        )
    return order
