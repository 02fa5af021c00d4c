"""The likeness of slices and what a volume shows in their place, and the frame in which their pose is sought."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair
from pullback.energies.information import Information
from pullback.space import Affine, Grid, Image, Linear, emulated, resampled, slice_frame


@dataclass(frozen=True, eq=False)
class Likeness:
    """The likeness of slices and what a volume shows in their place, as an energy of the pose.

    Attributes:
        slices: one voxel thick each, anywhere in one world, intensities 0 … 1.
        volume: with a mask of what it measures.
        energy: by a joint histogram.
        layers: of each slice, as in `emulated`.
        shared: whether the slices have one contrast: one histogram of all; else one each, and the mean of those.
    """

    slices: tuple[Image, ...]
    volume: Image
    energy: Information
    layers: tuple[int, ...]
    shared: bool

    def __call__(self, transform: Linear) -> Tensor:
        """Return the energy of a pose, `()`; of a batch of poses their mean."""
        return self.of(transform).mean()

    def of(self, transform: Linear) -> Tensor:
        """Return the energy of each pose of a batch, `(B,)`."""
        return self._of(self.shown([transform] * len(self.slices)))

    def each(self, transform: Linear) -> Tensor:
        """Return the energy of each slice by itself at each pose of a batch, `(B, K)`."""
        shown = self.shown([transform] * len(self.slices))
        return torch.stack([self._compared([k], [one]) for k, one in enumerate(shown)], 1)

    def apart(self, transforms: Sequence[Linear]) -> Tensor:
        """Return the energy of slices of which each has a pose of its own, `()`."""
        return self._of(self.shown(transforms)).mean()

    def shown(self, transforms: Sequence[Linear]) -> list[Image]:
        """Return what the volume shows in the place of each slice."""
        three = zip(self.slices, transforms, self.layers, strict=True)
        return [emulated(self.volume, transform, one, layers) for one, transform, layers in three]

    def measured(self, transform: Linear) -> tuple[Tensor, Tensor]:
        """Return the energy of each pose of a batch, and the share of the pixels in the volume, `(B,)` each."""
        with torch.no_grad():
            shown = self.shown([transform] * len(self.slices))
            return self._of(shown), self._overlap(shown)

    def _overlap(self, shown: Sequence[Image]) -> Tensor:
        counts = []
        for one, there in zip(self.slices, shown, strict=True):
            assert there.mask is not None
            own = torch.ones_like(there.mask) if one.mask is None else one.mask
            both = torch.stack([(own & there.mask).flatten(1).sum(1), own.expand_as(there.mask).flatten(1).sum(1)])
            counts.append(both.double())
        seen, of_all = torch.stack(counts).sum(0)
        return seen / of_all

    def _of(self, shown: Sequence[Image]) -> Tensor:
        if self.shared:
            return self._compared(range(len(self.slices)), shown)
        return torch.stack([self._compared([k], [one]) for k, one in enumerate(shown)]).mean(0)

    def _compared(self, which: Sequence[int], shown: Sequence[Image]) -> Tensor:
        """Return the energy of the pixels of some slices in one histogram, `(B,)`."""
        fixed, moved = self._all if len(which) > 1 else self._pixels[which[0]], listed(shown)
        return -self.energy.each(Alignment(Pair(fixed, self._range), Affine.identity(3)).showing(moved))

    @cached_property
    def _pixels(self) -> tuple[Image, ...]:
        return tuple(listed([one]) for one in self.slices)

    @cached_property
    def _all(self) -> Image:
        return listed(self.slices)

    @cached_property
    def _range(self) -> Image:
        """Two voxels with the ends of the volume's intensities, of which an energy makes its bins."""
        data, mask = self.volume.data, self.volume.mask
        ends = torch.stack((data if mask is None else data[mask]).aminmax()).view(1, 1, 2, 1, 1)
        return Image(ends, Grid((2, 1, 1), torch.eye(4, dtype=torch.float64)), torch.ones_like(ends, dtype=torch.bool))


def listed(slices: Sequence[Image]) -> Image:
    """Return the pixels of all slices as one row, `(B, 1, N, 1, 1)`, with a mask where any has one."""
    data = torch.cat([one.data.flatten(2) for one in slices], 2)[..., None, None]
    mask = None
    if any(one.mask is not None for one in slices):
        masks = [torch.ones_like(one.data[:, :1], dtype=torch.bool) if one.mask is None else one.mask for one in slices]
        mask = torch.cat([each.flatten(2) for each in masks], 2)[..., None, None]
    return Image(data, Grid(tuple(data.shape[2:]), torch.eye(4, dtype=torch.float64)), mask)


def common_frame(slices: Sequence[Image]) -> Affine:
    """Return the map from a frame along the first slice, its origin in the middle of all, to the slices' world.

    What is sought in it does not depend on how the world lies.
    """
    matrix = slice_frame(slices[0].grid)
    matrix[:3, 3] = torch.cat([corners_of(one.grid) for one in slices]).mean(0)
    return Affine(matrix)


def box_of(slices: Sequence[Image]) -> Grid:
    """Return a cube about the middle of slices whose radius, for `Motion`, is the mean distance of their corners."""
    corners = torch.cat([corners_of(one.grid) for one in slices])
    middle = corners.mean(0)
    radius = (corners - middle).square().sum(1).mean().sqrt()
    affine = torch.diag(torch.cat([(2 * radius).expand(3), torch.ones(1).double()]))
    affine[:3, 3] = middle - radius
    return Grid((2, 2, 2), affine)


def radius_of(box: Grid) -> float:
    """Return the distance in mm at which a generator of `Motion` on this cube moves points by 1 mm."""
    return float(box.spacing[0]) / 2


def corners_of(grid: Grid) -> Tensor:
    """Return the corners of a slice, `(4, 3)` mm."""
    ends = [torch.tensor([0.0, n - 1.0], dtype=torch.float64) if n > 1 else torch.zeros(1).double() for n in grid.shape]
    return grid.to_world(torch.cartesian_prod(*ends).T[None])[0].T


def edges_of(grid: Grid) -> list[tuple[int, float]]:
    return list(zip(grid.shape, grid.spacing.tolist(), strict=True))


def area_of(grid: Grid) -> float:
    """Return the area of a slice in mm²."""
    return math.prod(n * s for n, s in edges_of(grid) if n > 1)


def averaged(image: Image, edge: float) -> Image:
    """Return a slice with pixels of `edge` mm or more."""
    return resampled(image, [own if n == 1 else max(own, edge) for n, own in edges_of(image.grid)])
