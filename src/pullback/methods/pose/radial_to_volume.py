"""Radial slices in a volume: their order, the body that their sections make, the vote on their angle, their pose."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pullback.alignment import Alignment, Pair
from pullback.energies import MSE
from pullback.methods.pose.radial import Radial, about_slices, loft, signed_distance, view_of
from pullback.methods.pose.radial_order import Ordered, SliceOrder, in_plane_of, ordered
from pullback.methods.pose.slice_to_volume import LocatedSlices, SliceToVolume
from pullback.numerics.rotation import of_vector
from pullback.numerics.smooth import gaussian
from pullback.solvers import Converged, Descend, Levels, LinearStage
from pullback.solvers.initialise import masses, moments
from pullback.space import Affine, Grid, Image, Labels, Motion

BLUR = 1.0  # voxels, of both bodies
AGAIN = 3  # times that slices may change their planes
TINY = 1e-3  # of mutual information: less gain changes nothing
STAGE = LinearStage(Motion.rigid, MSE(), Levels(most=60_000), Descend(steps=100, step_size=0.5, until=Converged()))

Made = Callable[[Radial, Sequence[Image], Grid], Image]


def body_of(radial: Radial, masks: Sequence[Labels], edge: float, made: Made = loft) -> Image:
    """Return the body whose sections are marked in slices, 0 … 1 with a soft rim, on a grid about them.

    Its mask is where all slices see it.

    Args:
        radial: how the slices lie.
        masks: of each slice, one voxel thick; what is not 0 is the body.
        edge: of its voxels, mm.
        made: `loft`, or `hull` as in the paper.

    Raises:
        InputError: a mask that is empty or fills its slice.
    """
    grids = [mask.grid for mask in masks]
    onto = about_slices(radial, grids, edge)
    field = made(radial, [signed_distance(mask) for mask in masks], onto)
    inside = (0.5 - field.data / edge).clamp(0, 1).float()
    return Image(gaussian(inside, BLUR), onto, view_of(radial, grids, onto))


def place_body(body: Image, bone: Labels, stage: LinearStage = STAGE) -> Affine:
    """Return the rigid map that brings a body onto the same one in a volume, by the least mean square.

    It begins with centre on centre, and with axes on axes in each of four ways.

    Args:
        body: as of `body_of`.
        bone: of the volume; what is not 0 is the body.
        stage: the descent.

    Raises:
        InputError: nothing is marked.
    """
    there = Image(gaussian((bone.data != 0).float(), BLUR), bone.grid)
    starts = [masses(body, there), *moments(body, there)]
    ended = [stage(body, there, start).transform.as_affine for start in starts]
    known = [one for one in ended if one is not None]
    return min(known, key=lambda one: float(MSE()(Alignment(Pair(body, there), one))))


def turns_about(radial: Radial, count: int) -> Tensor:
    """Return `count` even turns about the axis, each also after half a turn across it: `(2 count, 4, 4)`.

    They are what an order of radial slices leaves open.
    """
    angles = 2 * math.pi * torch.arange(count, dtype=torch.float64) / count
    turns = of_vector(angles[:, None] * radial.axis)
    half = of_vector(math.pi * radial.first[None])
    return torch.stack([Affine.about(each, radial.point).matrix for each in torch.cat([turns, turns @ half])])


def turned(radial: Radial, degrees: float) -> Affine:
    """Return a turn about the axis."""
    return Affine.about(of_vector(math.radians(degrees) * radial.axis[None])[0], radial.point)


@dataclass(frozen=True)
class BinarySearch:
    """A binary search for the angle of slices about their common axis, by vote (Abbas et al. 2022, 2.2).

    At each step the slices compare the volume at the present angle and at one step to either side. The paper moves to
    one of the two sides; here the present angle competes too, or a right start would be left.

    Attributes:
        step: degrees, of the first step, half the angle between slices; each is half the one before.
        levels: steps.
        stay: whether the present angle competes; without, as in the paper.
        vote: whether each slice has one vote, of which most win, ties by the mean; else the mean decides.
    """

    step: float = 15.0
    levels: int = 5
    stay: bool = True
    vote: bool = True

    def __call__(self, energies: Callable[[Tensor], Tensor]) -> float:
        """Return the angle in degrees.

        Args:
            energies: of angles `(N,)` in degrees, of each slice, `(N, K)`; less is better.
        """
        angle = 0.0
        for level in range(self.levels):
            step = self.step / 2**level
            tried = torch.tensor([angle, angle - step, angle + step], dtype=torch.float64)[0 if self.stay else 1 :]
            found = energies(tried).double()
            means = found.mean(1)
            votes = torch.bincount(found.argmin(0), minlength=len(tried)) if self.vote else torch.zeros(len(tried))
            most = votes == votes.max()
            angle = float(tried[means.where(most, torch.inf).argmin()])
        return angle


@dataclass(frozen=True, eq=False)
class LocatedRadial:
    """Radial slices in a volume.

    Attributes:
        found: their pose.
        slices: in the planes where they belong.
        radial: the planes.
        order: of the slices, where it was not known; else None.
        neighbours: what the slices alone told of it.
    """

    found: LocatedSlices
    slices: tuple[Image, ...]
    radial: Radial
    order: SliceOrder | None = None
    neighbours: Ordered | None = None


@dataclass(frozen=True)
class RadialToVolume:
    """A search for the pose of radial slices, which share an axis, in a volume.

    1. Where `reorder` asks for it, slices are put in order; both senses of rotation and all starts go on. When a pose
       is found, each slice goes to the plane in which the volume shows it best, and the pose is sought again.
    2. With masks of one bone, the body that these make is laid on that of the volume (Abbas et al. 2022, 2.1).
    3. With `binary`, the angle about the axis is searched by vote (2.2).
    4. The pose is sought, and refined in six degrees of freedom.

    Attributes:
        locate: the last step.
        reorder: whether the order and flips of slices are unknown.
        made: `loft`, or `hull` as in the paper.
        binary: of the angle; None goes without.
    """

    locate: SliceToVolume = SliceToVolume()
    reorder: bool = False
    made: Made = loft
    binary: BinarySearch | None = None

    def __call__(
        self,
        slices: Sequence[Image],
        volume: Image,
        start: Affine | None = None,
        masks: Sequence[Labels] | None = None,
        bone: Labels | None = None,
    ) -> LocatedRadial:
        """Return the pose of radial slices, `(1, 1, X, Y, 1)` each, in a volume, `(1, 1, X, Y, Z)`.

        Args:
            slices: where their headers put their planes.
            volume: of any contrast.
            start: points of the slices → points of the volume; by default as the headers say.
            masks: a bone in each slice; what is not 0.
            bone: the same in the volume.

        Raises:
            InputError: planes that share no axis, or as of `SliceToVolume`, `ordered` and `body_of`.
        """
        radial = Radial.of([one.grid for one in slices])
        if not self.reorder:
            found, placed = self._located(None, radial, slices, volume, start, masks, bone)
            return LocatedRadial(found, tuple(placed), radial)
        told = ordered(slices if masks is None else [signed_distance(mask) for mask in masks], radial)
        orders = [told.order, told.order.mirrored()]
        answers = [self._located(each, radial, slices, volume, start, masks, bone) for each in orders]
        best = min(range(len(answers)), key=lambda n: answers[n][0].energy)
        (found, placed), order = answers[best], orders[best]
        locate = replace(self.locate, search=replace(self.locate.search, starts=0))
        for _ in range(AGAIN):
            better = self._assigned(slices, radial, volume, found.transform)
            laid = better.of(slices, radial)
            again = locate(laid, volume, found.transform)
            if again.energy >= found.energy - TINY:
                break
            stats = replace(again.stats, start=found.stats.start, origin=found.stats.origin)
            found, placed, order = replace(again, stats=stats), laid, better
        return LocatedRadial(found, tuple(placed), radial, order, told)

    def _assigned(self, slices: Sequence[Image], radial: Radial, volume: Image, pose: Affine) -> SliceOrder:
        """Return the order in which the volume, seen through a pose, shows all slices best in their planes."""
        count, flips = len(slices), ((False, False), (False, True), (True, False), (True, True))
        laid = [
            in_plane_of(one, n, radial, slices[plane].grid, plane, False, across, along)
            for plane in range(count)
            for n, one in enumerate(slices)
            for across, along in flips
        ]
        with torch.no_grad():
            energies = self.locate.likeness(laid, volume).each(pose).view(count, count, len(flips))
        least = energies.min(2)
        planes, numbers = linear_sum_assignment(least.values.numpy())
        chosen = [flips[int(least.indices[plane, n])] for plane, n in zip(planes, numbers, strict=True)]
        return SliceOrder(
            tuple(range(count)),
            (1.0,) * count,
            tuple(int(n) for n in numbers),
            tuple(across for across, _ in chosen),
            tuple(along for _, along in chosen),
        )

    def _located(
        self,
        order: SliceOrder | None,
        radial: Radial,
        slices: Sequence[Image],
        volume: Image,
        start: Affine | None,
        masks: Sequence[Labels] | None,
        bone: Labels | None,
    ) -> tuple[LocatedSlices, Sequence[Image]]:
        """Return the pose of slices in one order, and these slices in their planes."""
        placed = slices if order is None else order.of(slices, radial)
        begun = start
        if masks is not None and bone is not None:
            marked = masks if order is None else order.of_labels(masks, radial)
            begun = place_body(body_of(radial, marked, float(bone.grid.spacing.min()), self.made), bone)
        locate = self.locate
        if order is not None:
            turns = turns_about(radial, 2 * len(slices))
            begun = Affine((Affine.identity(3) if begun is None else begun).matrix @ turns)
            locate = replace(locate, search=replace(locate.search, starts=0, kept=len(turns)))
        if self.binary is not None:
            begun = self._by_vote(placed, volume, radial, Affine.identity(3) if begun is None else begun)
        return locate(placed, volume, begun), placed

    def _by_vote(self, slices: Sequence[Image], volume: Image, radial: Radial, start: Affine) -> Affine:
        """Return a start, or each of several, turned about the axis by what slices vote for."""
        assert self.binary is not None
        likeness = self.locate.likeness(slices, volume)
        found = []
        for matrix in start.matrix.reshape(-1, 4, 4):

            def energies(angles: Tensor, matrix: Tensor = matrix) -> Tensor:
                turns = torch.stack([turned(radial, float(angle)).matrix for angle in angles])
                with torch.no_grad():
                    return likeness.each(Affine(matrix @ turns))

            found.append(matrix @ turned(radial, self.binary(energies)).matrix)
        return Affine(torch.stack(found) if start.matrix.ndim == 3 else found[0])
