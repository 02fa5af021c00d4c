"""Grids of voxels: a shape and an affine."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.numerics.sample import voxels
from pullback.numerics.singular import spans


@dataclass(frozen=True, eq=False)
class Grid:
    """A lattice of voxels in the world.

    Attributes:
        shape: voxels along each axis, d of them (d = 2 or 3).
        affine: `(d+1, d+1)` float64 on the CPU; takes voxel coordinates i, j, k to RAS mm. Any invertible affine:
            oblique, anisotropic, flipped.

    Raises:
        ValueError: other than 2 or 3 axes, or an affine of another size, or one that has no inverse. Voxels may be of
            any size: of nanometres as of kilometres.
    """

    shape: tuple[int, ...]
    affine: Tensor

    def __post_init__(self) -> None:
        d = len(self.shape)
        if d not in (2, 3) or tuple(self.affine.shape) != (d + 1, d + 1):
            raise ValueError(
                f"Grid: shape of 2 or 3 axes and an affine one larger, got {self.shape}, {tuple(self.affine.shape)}"
            )
        if not torch.isfinite(self.affine).all() or not spans(self.affine[:d, :d]):
            raise ValueError(f"Grid: the affine cannot be inverted:\n{self.affine}")

    @classmethod
    def centred(cls, shape: tuple[int, ...], spacing: tuple[float, ...] | float = 1.0) -> "Grid":
        """Return a grid with axes along R, A, S, its middle at the world's origin, and voxels of `spacing` mm."""
        return cls(tuple(shape), torch.eye(len(shape) + 1, dtype=torch.float64))._recentred(spacing)

    def _recentred(self, spacing: tuple[float, ...] | float) -> "Grid":
        affine = self.affine.clone()
        affine[:-1, :-1] *= torch.as_tensor(spacing, dtype=torch.float64)
        middle = (torch.tensor(self.shape, dtype=torch.float64) - 1) / 2
        affine[:-1, -1] = -(affine[:-1, :-1] @ middle)
        return Grid(self.shape, affine)

    def about_origin(self, shape: tuple[int, ...]) -> "Grid":
        """Return a grid of this orientation and spacing with `shape` voxels, whose middle is the world's origin."""
        return Grid(tuple(shape), self.affine)._recentred(1.0)

    def at_spacing(self, spacing: tuple[float, ...]) -> "Grid":
        """Return a grid with the same axes and first voxel, with voxels of `spacing` mm; it reaches at least as far."""
        factor = torch.tensor(spacing, dtype=torch.float64) / self.spacing
        affine = self.affine.clone()
        affine[:-1, :-1] *= factor
        reach = (torch.tensor(self.shape, dtype=torch.float64) - 1) / factor
        return Grid(tuple(int(n) + 1 for n in torch.ceil(reach - 1e-6)), affine)

    def between_ends(self, shape: tuple[int, ...]) -> "Grid":
        """Return a grid of `shape` voxels, two or more along each axis, between the same outermost voxel centres.

        Raises:
            ValueError: fewer than two voxels along an axis.
        """
        if min(*self.shape, *shape) < 2:
            raise ValueError(
                f"Grid.between_ends: two voxels or more along each axis expected, of {self.shape}, {shape}"
            )
        affine = self.affine.clone()
        affine[:-1, :-1] *= (torch.tensor(self.shape) - 1) / (torch.tensor(shape, dtype=torch.float64) - 1)
        return Grid(tuple(shape), affine)

    def padded(self, margins: tuple[int, ...]) -> "Grid":
        """Return a grid with `margins` more voxels before the first and after the last along each axis."""
        affine = self.affine.clone()
        affine[:-1, -1] -= affine[:-1, :-1] @ torch.tensor(margins, dtype=torch.float64)
        return Grid(tuple(n + 2 * margin for n, margin in zip(self.shape, margins, strict=True)), affine)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def spacing(self) -> Tensor:
        """Voxel edge lengths in mm, `(d,)`."""
        return self.affine[:-1, :-1].norm(dim=0)

    @property
    def centre(self) -> Tensor:
        """The middle of the grid in mm, `(d,)`."""
        middle = (torch.tensor(self.shape, dtype=torch.float64) - 1) / 2
        return self.affine[:-1, :-1] @ middle + self.affine[:-1, -1]

    def __repr__(self) -> str:
        shape, spacing = ("×".join(f"{n:g}" for n in each) for each in (self.shape, self.spacing.tolist()))
        return f"Grid({shape}, {spacing} mm)"

    def __eq__(self, other: object) -> bool:
        """Return whether shapes are the same and no corner is further apart than a hundredth of a voxel."""
        if not isinstance(other, Grid):
            return NotImplemented
        if self is other:
            return True
        if self.shape != other.shape:
            return False
        shift = torch.linalg.solve(self.affine, other.affine) - torch.eye(self.ndim + 1, dtype=torch.float64)
        reach = torch.tensor([*self.shape, 1], dtype=torch.float64)
        return float((shift.abs() @ reach).max()) < 0.01

    __hash__ = None  # type: ignore[assignment]  # equality is approximate

    def voxels(self, like: Tensor) -> Tensor:
        """Return voxel coordinates, `(d, *shape)`, in the dtype and on the device of `like`."""
        return voxels(self.shape, like)

    def to_world(self, where: Tensor) -> Tensor:
        """Convert voxel coordinates `(B, d, …)` to RAS mm, `(B, d, …)`."""
        return transform_channels(self.affine, where)

    def to_voxels(self, where: Tensor) -> Tensor:
        """Convert RAS mm `(B, d, …)` to voxel coordinates, `(B, d, …)`."""
        return transform_channels(torch.linalg.inv(self.affine), where)

    def holds(self, where: Tensor, margin: float = 0.0) -> Tensor:
        """Return whether points `(B, d, N)` in RAS mm lie on the grid: `(B, N)` bool.

        Args:
            margin: voxels beyond the outermost voxel centres that still count.
        """
        at = self.to_voxels(where)
        last = at.new_tensor(self.shape).view(-1, 1) - 1
        return ((at >= -margin) & (at <= last + margin)).all(1)

    def to_mm(self, displacement: Tensor) -> Tensor:
        """Convert displacements `(B, d, …)` from voxels to RAS mm."""
        return turned(self.affine[:-1, :-1], displacement)

    def from_mm(self, displacement: Tensor) -> Tensor:
        """Convert displacements `(B, d, …)` from RAS mm to voxels."""
        return turned(torch.linalg.inv(self.affine[:-1, :-1]), displacement)


def turned(matrix: Tensor, vectors: Tensor) -> Tensor:
    """Apply a matrix `(d, d)` to vectors `(B, d, …)`."""
    return (matrix.to(vectors) @ vectors.flatten(2)).unflatten(2, vectors.shape[2:])  # (B, d, N) to (B, d, …)


def transform_channels(matrix: Tensor, where: Tensor) -> Tensor:
    """Apply a homogeneous matrix `(d+1, d+1)` or `(B, d+1, d+1)` to coordinates `(B, d, …)`."""
    matrix = matrix.to(where)
    flat = where.flatten(2)  # (B, d, N)
    linear, shift = matrix[..., :-1, :-1], matrix[..., :-1, -1:]
    moved = linear @ flat + shift
    return moved.unflatten(2, where.shape[2:])
