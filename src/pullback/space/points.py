"""Landmarks and point clouds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from pullback.space.short_repr import short_repr

PointColumn = Tensor | tuple[str, ...]
"""What is known of each point: numbers `(B, N, …)`, or `(1, N, …)` for all of a batch; or N words."""


@dataclass(frozen=True, eq=False)
class Points:
    """Points of the world: `data` is `(B, N, d)` in RAS mm.

    `columns` hold what is known of each point and stays with it wherever it goes: `label`, integers `(B, N)`, and
    `name`, a tuple of N strings, mean the same everywhere. What turns with the space, such as normals, is no column:
    `normals` makes them anew where the points lie.

    Raises:
        ValueError: another shape, a column of another length, or labels or names of another kind.
    """

    data: Tensor
    columns: Mapping[str, PointColumn] = field(default_factory=dict)

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if self.data.ndim != 3 or self.data.shape[-1] not in (2, 3):
            raise ValueError(f"Points: (B, N, 2 or 3) expected, got {tuple(self.data.shape)}")
        batch, count = self.data.shape[:2]
        for title, column in self.columns.items():
            if isinstance(column, tuple):
                fits, found = len(column) == count, f"{len(column)} words"
            else:
                fits = column.ndim > 1 and column.shape[0] in (1, batch) and column.shape[1] == count
                found = str(tuple(column.shape))
            if not fits:
                raise ValueError(f"Points: column {title!r} for {batch} × {count} points expected, got {found}")
        label, name = self.columns.get("label"), self.columns.get("name")
        if label is not None and (isinstance(label, tuple) or label.ndim != 2 or label.is_floating_point()):
            raise ValueError("Points: the column 'label' holds integers, (B, N); words are of the column 'name'")
        if name is not None and not isinstance(name, tuple):
            raise ValueError("Points: the column 'name' is a tuple of strings; numbers are of the column 'label'")

    @property
    def label(self) -> Tensor | None:
        """The column of integers `(B, N)`, or None."""
        label = self.columns.get("label")
        return label if isinstance(label, Tensor) else None

    @property
    def name(self) -> tuple[str, ...]:
        """The column of N names; none at all where there is no such column."""
        name = self.columns.get("name", ())
        return name if isinstance(name, tuple) else ()

    def __getitem__(self, which: slice | Sequence[int] | Tensor) -> Self:
        """Select points of each cloud, with their columns, by a slice, indices, or a mask `(N,)`.

        Raises:
            TypeError: one number, or other than these.
        """
        if not isinstance(which, slice):
            which = torch.as_tensor(which).cpu()
            if which.ndim != 1:
                raise TypeError(f"Points: a slice, a list of indices or a mask (N,) expected, got {which!r}")
            which = which if len(which) else which.long()
        index = torch.arange(self.data.shape[1])[which]

        def taken(column: PointColumn) -> PointColumn:
            if isinstance(column, tuple):
                return tuple(column[row] for row in index.tolist())
            return column[:, index.to(column.device)]

        columns = {title: taken(column) for title, column in self.columns.items()}
        return replace(self, data=self.data[:, index.to(self.data.device)], columns=columns)

    def to(self, device: torch.device) -> Self:
        columns = {
            title: column if isinstance(column, tuple) else column.to(device) for title, column in self.columns.items()
        }
        return replace(self, data=self.data.to(device), columns=columns)

    @property
    def batch(self) -> int:
        """Number of clouds in the batch."""
        return len(self.data)

    def nth(self, n: int) -> Self:
        """Return the n-th cloud of the batch, with its columns; a batch of one returns itself, whatever n."""
        if self.batch == 1:
            return self
        columns = {
            title: column if isinstance(column, tuple) or len(column) == 1 else column[n : n + 1]
            for title, column in self.columns.items()
        }
        return replace(self, data=self.data[n : n + 1], columns=columns)
