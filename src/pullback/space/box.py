"""The box in which an image lies, along orthonormal axes near its own."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.space.grid import Grid
from pullback.space.image import Image


@dataclass(frozen=True, eq=False)
class Box:
    """Extent of an image's mask, or else of its field of view.

    Attributes:
        axes: orthonormal, one per column, the nearest to the image's own, `(d, d)`.
        low: the first voxel centres along them, mm, `(d,)`.
        high: the last ones, mm, `(d,)`.
    """

    axes: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, image: Image) -> "Box":
        """Return the box that holds what a mask shows.

        Raises:
            InputError: a mask is empty.
        """
        left, _, right = torch.linalg.svd(image.grid.affine[:-1, :-1] / image.grid.spacing)
        seen = torch.ones(image.grid.shape) if image.mask is None else image.mask[0, 0].cpu()
        where = seen.nonzero().double()
        if not len(where):
            raise InputError("a mask is empty, so there is nothing to align; give one with voxels inside, or none")
        ends = torch.cartesian_prod(*torch.stack([where.amin(0), where.amax(0)], 1))
        corners = (left @ right).T @ image.grid.to_world(ends.T[None])[0]
        return cls(left @ right, corners.amin(1), corners.amax(1))

    @property
    def edges(self) -> Tensor:
        """Length between the outermost voxel centres, mm, `(d,)`."""
        return self.high - self.low

    def lattice(self, shape: tuple[int, ...], spacing: Tensor) -> Grid:
        """Return a grid with voxels of `spacing` `(d,)` mm along the box's axes.

        Its middle is that of the box. Where the grid is larger than the box, it begins a whole number of voxels before
        it, so that voxels of the same size as the image's lie on the image's own; the middle is then right to half a
        voxel.
        """
        d = len(shape)
        affine = torch.eye(d + 1, dtype=torch.float64)
        affine[:d, :d] = self.axes * spacing
        before = (torch.tensor(shape, dtype=torch.float64) - 1 - self.edges / spacing) / 2
        before = torch.where(before > 0, torch.ceil(before - 0.5 - 1e-6), before)
        affine[:d, d] = self.axes @ (self.low - spacing * before)
        return Grid(shape, affine)

    def filled(self, spacing: float) -> tuple[int, ...]:
        """Return how many voxels of `spacing` mm fit into the box along each axis, with no centre beyond it."""
        return tuple((self.edges / spacing + 1e-6).long().add(1).tolist())
