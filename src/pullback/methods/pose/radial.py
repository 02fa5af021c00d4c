"""Radial slices: planes through one axis, and the body that their sections make.

Abbas et al. 2022, 2.1: a femur's outline in six slices, 30° apart, makes a rough body, the hull, which is brought onto
the femur of the volume. The hull takes a section for a silhouette, which it is not: of a circle it makes a regular
polygon. So there is the loft beside it, which interpolates between half-planes about the axis.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from pullback.errors import InputError
from pullback.numerics.sample import sample
from pullback.space import Grid, Image, Labels, slice_frame, through_axis

SHARED = 1.0  # mm, that planes may pass the axis by
PARALLEL = math.sin(math.radians(5.0))
AT_ONCE = 2**17  # points


@dataclass(frozen=True, eq=False)
class Radial:
    """Planes through one axis.

    Attributes:
        point: of the axis, nearest to the middles of the slices, `(3,)` mm.
        axis: its direction, `(3,)`, of length 1.
        directions: `(K, 3)`, in each plane across the axis, of length 1; a slice's r grows along it.
    """

    point: Tensor
    axis: Tensor
    directions: Tensor

    @classmethod
    def of(cls, grids: Sequence[Grid]) -> "Radial":
        """Return the line that the planes of slices share, by least squares, and how each lies about it.

        Raises:
            InputError: fewer than two slices, parallel planes, or planes that share no line within 1 mm.
        """
        if len(grids) < 2:
            raise InputError("radial slices: two or more expected, which share an axis")
        frames = torch.stack([slice_frame(grid) for grid in grids])
        normals, middles = frames[:, :3, 2], frames[:, :3, 3]
        _, sizes, rows = torch.linalg.svd(normals)
        if float(sizes[1]) < PARALLEL * float(sizes[0]):
            raise InputError("radial slices: planes through one axis expected; these are parallel, and share none")
        axis, middle = rows[-1], middles.mean(0)
        heights = (normals * (middles - middle)).sum(1)
        point = middle + torch.linalg.pinv(normals, rtol=1e-6) @ heights
        point = point + axis * ((middle - point) @ axis)
        apart = max(float(((point - middles) * normals).sum(1).abs().max()), _leaning(grids, normals, axis))
        if apart > SHARED:
            raise InputError(
                f"radial slices: planes through one axis expected; these pass the line nearest to all by up to "
                f"{apart:.1f} mm. Slices of any other kind are located without --radial"
            )
        axis = axis * _sign(axis, grids[0])
        directions = torch.linalg.cross(axis.expand_as(normals), normals)
        directions = directions / directions.norm(dim=1, keepdim=True)
        signs = torch.tensor([_sign(each, grid) for each, grid in zip(directions, grids, strict=True)])
        return cls(point, axis, directions * signs[:, None])

    @property
    def first(self) -> Tensor:
        """The direction from which angles are counted, that of the first slice, `(3,)`."""
        return self.directions[0]

    @property
    def angles(self) -> Tensor:
        """The angle of each slice's direction about the axis, `(K,)` radians, 0 … 2π."""
        across = torch.linalg.cross(self.axis, self.first)
        return torch.atan2(self.directions @ across, self.directions @ self.first) % (2 * math.pi)

    def within(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return where points `(N, 3)` are: along the axis and from it, in mm, and about it, radians 0 … 2π."""
        away = points - self.point
        along = away @ self.axis
        across = torch.linalg.cross(self.axis, self.first)
        x, y = away @ self.first, away @ across
        return along, torch.hypot(x, y), torch.atan2(y, x) % (2 * math.pi)

    def seen(self, n: int, image: Image, along: Tensor, r: Tensor) -> Tensor:
        """Return what slice `n` shows at (along the axis, r), in mm, `(N,)`; beyond its rim what is there."""
        points = self.point + along[:, None] * self.axis + r[:, None] * self.directions[n]
        keep = [axis for axis in range(3) if axis != through_axis(image.grid)]
        where = image.grid.to_voxels(points.T[None])[:, keep]
        return sample(image.data.double().flatten(2).reshape(1, 1, *_flat(image.grid)), where, padding="border")[0, 0]


def _flat(grid: Grid) -> tuple[int, ...]:
    return tuple(n for n in grid.shape if n > 1)


def _leaning(grids: Sequence[Grid], normals: Tensor, axis: Tensor) -> float:
    """Return how far the axis leaves the most inclined plane over half the largest slice, in mm."""
    reach = max(float(n * s) for grid in grids for n, s in zip(grid.shape, grid.spacing.tolist(), strict=True)) / 2
    return reach * float((normals @ axis).abs().max())


def _sign(direction: Tensor, grid: Grid) -> float:
    """Return the sign with which a direction points along that axis of a slice which it is closest to."""
    cosines = [direction @ grid.affine[:3, a] / grid.spacing[a] for a in range(3) if a != through_axis(grid)]
    return float(torch.stack(cosines)[torch.stack(cosines).abs().argmax()].sign())


def signed_distance(mask: Labels) -> Image:
    """Return the distance in mm to the border of a region in a slice, `(1, 1, X, Y, 1)`; below 0 within it.

    Borders lie half a pixel beyond the outermost pixels.

    Raises:
        InputError: the region is empty, or fills the slice.
    """
    inside = (mask.data[0, 0] != 0).numpy()
    if not inside.any() or inside.all():
        raise InputError("a slice whose mask is empty, or fills it, has no outline; mark the bone in every slice")
    edges = mask.grid.spacing.tolist()
    half = min(edge for edge, n in zip(edges, inside.shape, strict=True) if n > 1) / 2
    out, within = distance_transform_edt(~inside, sampling=edges), distance_transform_edt(inside, sampling=edges)
    return Image(torch.from_numpy(np.where(inside, half - within, out - half))[None, None], mask.grid)


def hull(radial: Radial, sections: Sequence[Image], onto: Grid) -> Image:
    """Return the hull of sections as a field that is 0 on its surface and below 0 within it (shape from silhouette).

    Each section is extended along the normal of its plane, and what all of them share is the hull. A circle about the
    axis gives a regular 2K-gon, 2.35 % larger with six slices; a body off the axis loses.

    Args:
        radial: how the slices lie.
        sections: of each slice, one voxel thick, such as signed distances: below 0 within the body.
        onto: where the field is wanted.
    """

    def of(points: Tensor) -> Tensor:
        along = (points - radial.point) @ radial.axis
        r = (points - radial.point) @ radial.directions.T
        return torch.stack([radial.seen(n, one, along, r[:, n]) for n, one in enumerate(sections)]).amax(0)

    return _field(of, onto)


def loft(radial: Radial, sections: Sequence[Image], onto: Grid) -> Image:
    """Return the loft of sections as a field that is 0 on its surface and below 0 within it.

    K slices are 2K half-planes. About the axis, at the same height and distance from it, the field goes through its
    values in these by a periodic cubic with Catmull and Rom's slopes; of uneven angles, those of the chords. A body of
    revolution comes out exactly.

    Args:
        radial, sections, onto: as of `hull`.
    """
    starts, which, signs = _half_planes(radial)

    def of(points: Tensor) -> Tensor:
        along, r, about = radial.within(points)
        values = [radial.seen(n, sections[n], along, sign * r) for n, sign in zip(which, signs, strict=True)]
        return _about(torch.stack(values), starts, about)

    return _field(of, onto)


def _half_planes(radial: Radial) -> tuple[Tensor, list[int], list[float]]:
    """Return the angles of the half-planes, ascending, the slice that each belongs to, and the sign of its r."""
    both = torch.cat([radial.angles, (radial.angles + math.pi) % (2 * math.pi)])
    order = both.argsort()
    count = len(radial.angles)
    return both[order], (order % count).tolist(), [1.0 if n < count else -1.0 for n in order.tolist()]


def _about(values: Tensor, starts: Tensor, about: Tensor) -> Tensor:
    """Return the periodic cubic through `values` `(M, N)` at the angles `starts` `(M,)`, at `about` `(N,)`."""
    count = len(starts)
    steps = (starts.roll(-1) - starts) % (2 * math.pi)  # to the next
    slopes = (values.roll(-1, 0) - values.roll(1, 0)) / (steps + steps.roll(1))[:, None]
    n = (torch.searchsorted(starts, about, right=True) - 1) % count
    step = steps[n]
    t = ((about - starts[n]) % (2 * math.pi)) / step
    at = torch.arange(len(about))
    here, there = values[n, at], values[(n + 1) % count, at]
    leaving, coming = slopes[n, at] * step, slopes[(n + 1) % count, at] * step
    return (
        (2 * t**3 - 3 * t**2 + 1) * here
        + (t**3 - 2 * t**2 + t) * leaving
        + (3 * t**2 - 2 * t**3) * there
        + (t**3 - t**2) * coming
    )


def _field(of, onto: Grid) -> Image:
    points = onto.to_world(onto.voxels(torch.zeros(1).double())[None]).flatten(2)[0].T
    return Image(torch.cat([of(some) for some in points.split(AT_ONCE)]).view(1, 1, *onto.shape), onto)


def view_of(radial: Radial, grids: Sequence[Grid], onto: Grid) -> Tensor:
    """Return where slices see their body: within the cylinder that all of them span, `(1, 1, *shape)` bool."""
    corners = [ends_of(radial, n, grid) for n, grid in enumerate(grids)]
    low, high = max(one[0] for one in corners), min(one[1] for one in corners)
    reach = min(one[2] for one in corners)

    def of(points: Tensor) -> Tensor:
        along, r, _ = radial.within(points)
        return ((along >= low) & (along <= high) & (r <= reach)).double()

    return _field(of, onto).data > 0


def ends_of(radial: Radial, n: int, grid: Grid) -> tuple[float, float, float]:
    """Return how far a slice reaches, in mm: the least and the greatest along the axis, and from it to both sides."""
    last = [torch.tensor([0.0, size - 1.0]).double() if size > 1 else torch.zeros(1).double() for size in grid.shape]
    away = grid.to_world(torch.cartesian_prod(*last).T[None])[0].T - radial.point
    along, r = away @ radial.axis, away @ radial.directions[n]
    return float(along.min()), float(along.max()), min(float(r.max()), -float(r.min()))


def about_slices(radial: Radial, grids: Sequence[Grid], edge: float) -> Grid:
    """Return a grid of cubic voxels along R, A, S about all of the slices."""
    ends = [grid.to_world(_cube(grid).T[None])[0].T for grid in grids]
    low, high = torch.cat(ends).amin(0), torch.cat(ends).amax(0)
    affine = torch.diag(torch.tensor([edge] * 3 + [1.0]).double())
    affine[:3, 3] = low
    return Grid(tuple(int(n) + 1 for n in ((high - low) / edge).ceil().tolist()), affine)


def _cube(grid: Grid) -> Tensor:
    ends = [torch.tensor([0.0, n - 1.0]).double() if n > 1 else torch.zeros(1).double() for n in grid.shape]
    return torch.cartesian_prod(*ends)
