"""The order and flips of radial slices, where headers are silent, by what neighbouring half-planes show.

Abbas et al. 2022, 2.1, order them by hand, and leave this open.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.methods.pose.radial import Radial, ends_of
from pullback.space import Grid, Image, Labels

MOST = 7  # slices whose orders are all tried
LIKE = 1e-6  # share of the greatest cost up to which orders are equally good


@dataclass(frozen=True, eq=False)
class SliceOrder:
    """An order of radial slices: what belongs in each plane, of which the angles ascend over half a turn.

    Attributes:
        planes: their numbers.
        signs: −1 where the direction of a plane points to the other half of the turn.
        slices: for each plane, the number of the slice that belongs there.
        across: whether it is to be flipped across the axis.
        along: whether it is to be flipped along the axis.
    """

    planes: tuple[int, ...]
    signs: tuple[float, ...]
    slices: tuple[int, ...]
    across: tuple[bool, ...]
    along: tuple[bool, ...]

    def mirrored(self) -> "SliceOrder":
        """Return the order in the other sense of rotation, which neighbours like as much: a mirror image."""
        turned = [(-n) % len(self.slices) for n in range(len(self.slices))]
        return replace(
            self,
            slices=tuple(self.slices[n] for n in turned),
            across=tuple(self.across[n] != (n > 0) for n in turned),
            along=tuple(self.along[n] for n in turned),
        )

    def of(self, images: Sequence[Image], radial: Radial) -> list[Image]:
        """Return for each plane what belongs there, on its grid, with a mask of what was measured."""
        placed = list(images)
        rows = zip(self.planes, self.signs, self.slices, self.across, self.along, strict=True)
        for plane, sign, m, across, along in rows:
            placed[plane] = in_plane_of(images[m], m, radial, images[plane].grid, plane, sign < 0, across, along)
        return placed

    def of_labels(self, masks: Sequence[Labels], radial: Radial) -> list[Labels]:
        """Return for each plane the mask that belongs there, on its grid: 1 where most of it is not 0."""
        images = [Image((mask.data != 0).double(), mask.grid) for mask in masks]
        return [Labels((one.data > 0.5).to(torch.uint8), one.grid) for one in self.of(images, radial)]


def in_plane_of(
    image: Image, n: int, radial: Radial, grid: Grid, plane: int, turned: bool, across: bool, along: bool
) -> Image:
    """Return what slice `n` shows, flipped across or along the axis, on the grid of another plane.

    Its mask says what was measured. With `turned`, the plane's direction points to the other half.
    """
    away = grid.to_world(grid.voxels(radial.axis)[None]).flatten(2)[0].T - radial.point
    u = (away @ radial.axis) * (-1 if along else 1)
    r = (away @ radial.directions[plane]) * (-1 if across != turned else 1)
    points = radial.point + u[:, None] * radial.axis + r[:, None] * radial.directions[n]
    inside = image.grid.holds(points.T[None], 0.5)
    values = radial.seen(n, image, u, r).to(image.data)
    return Image(values.view(1, 1, *grid.shape), grid, inside.view(1, 1, *grid.shape))


@dataclass(frozen=True, eq=False)
class Ordered:
    """The best order of radial slices.

    Attributes:
        order: the first slice stays as it is.
        cost: the sum of the differences between neighbouring half-planes.
        alike: how many orders are as good, itself and its mirror image among them: 2 where it is found.
        next: cost of the best of all others, as a multiple of the least; infinite where there is none.
    """

    order: SliceOrder
    cost: float
    alike: int
    next: float


def ordered(images: Sequence[Image], radial: Radial) -> Ordered:
    """Return the order and flips of radial slices in which neighbouring half-planes are most alike.

    All are tried: (K − 1)! orders, each with 2^(K−1) flips across the axis and as many along it, the first slice as it
    is. What stays open is the sense of rotation, and which plane is the first: a turn of the body, which the volume
    tells.

    Args:
        images: what the slices show, in one contrast; or signed distances of one structure in them.
        radial: the planes.

    Raises:
        InputError: fewer than three slices, of which every order is the same, or more than seven.
    """
    count = len(images)
    if not 3 <= count <= MOST:
        raise InputError(f"the order of radial slices is found for 3 to {MOST} of them; got {count}")
    apart = _differences(images, radial)
    tried = _orders(count)  # (N, K) each: slices, and flips as bits
    nodes = tried[0] * 4 + tried[1] * 2 + tried[2]  # (N, K): slice, across, along
    opposite = nodes + 2 - 4 * tried[1]
    cost = apart[nodes[:, :-1], nodes[:, 1:]].sum(1) + apart[opposite[:, :-1], opposite[:, 1:]].sum(1)
    cost = cost + apart[nodes[:, -1], opposite[:, 0]] + apart[opposite[:, -1], nodes[:, 0]]
    best = int(cost.argmin())
    least = float(cost[best])
    near = cost <= least + LIKE * max(float(cost.max()), 1e-12)
    others = cost[~near]
    following = float(others.min()) / max(least, 1e-12) if len(others) else math.inf
    slices, across, along = (each[best].tolist() for each in tried)
    half = radial.angles.round(decimals=9) % math.pi
    planes = half.argsort()
    signs = torch.where(radial.angles[planes] < math.pi - 1e-6, 1.0, -1.0)
    order = SliceOrder(
        tuple(planes.tolist()),
        tuple(signs.tolist()),
        tuple(slices),
        tuple(map(bool, across)),
        tuple(map(bool, along)),
    )
    return Ordered(order, least, int(near.sum()), following)


def _differences(images: Sequence[Image], radial: Radial) -> Tensor:
    """Return the mean difference of all half-planes, `(4K, 4K)`: by slice, flipped across, flipped along the axis.

    Those of neighbours are counted by the room between them, which grows with the distance from the axis.
    """
    ends = [ends_of(radial, n, image.grid) for n, image in enumerate(images)]
    edge = min(float(s) for image in images for n, s in zip(image.grid.shape, image.grid.spacing, strict=True) if n > 1)
    reach, height = (min(one[2] for one in ends), min(min(-one[0], one[1]) for one in ends))
    r = torch.arange(0.5 * edge, max(reach, edge), edge, dtype=torch.float64)
    u = torch.arange(-math.floor(height / edge), math.floor(height / edge) + 1).double() * edge
    us, rs = (each.flatten() for each in torch.meshgrid(u, r, indexing="ij"))
    halves = [
        radial.seen(n, image, us * (1 - 2 * along), rs * (1 - 2 * across))
        for n, image in enumerate(images)
        for across in (0, 1)
        for along in (0, 1)
    ]
    values = torch.stack(halves) * rs
    return torch.cdist(values, values, p=1) / rs.sum()


def _orders(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return all orders of slices with all flips, the first one as it is: `(N, K)` each."""
    orders = torch.tensor([(0, *rest) for rest in itertools.permutations(range(1, count))])
    bits = torch.tensor([(0, *rest) for rest in itertools.product((0, 1), repeat=count - 1)])
    n, a, b = (
        each.flatten()
        for each in torch.meshgrid(
            torch.arange(len(orders)), torch.arange(len(bits)), torch.arange(len(bits)), indexing="ij"
        )
    )
    return orders[n], bits[a], bits[b]
