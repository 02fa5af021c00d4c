"""Slices to a volume: the one pose of a few slices in a scan of another contrast.

Abbas et al. 2022, an intermediate report. From it: slices that are emulated from the volume and compared with the real
ones by mutual information, and a binary search by vote over the angle about their common axis. The rough start by a
body that is made of the slices is in `radial`. Decided here: thickness, all six degrees of freedom, starts about a
known one, and what is told of directions that the slices leave free.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair
from pullback.data import normalised
from pullback.energies import MI
from pullback.energies.information import Information
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.solvers import Converged, Descend, within_view
from pullback.space import (
    Affine,
    Grid,
    Image,
    Linear,
    Motion,
    emulated,
    layers_of,
    placed,
    resampled,
    slice_frame,
    thin_axis,
)
from pullback.stats import Stats

LEAST = 0.5  # of the slices' pixels that must lie in the volume
CONDITION = 1e4  # of the greatest curvature to one that determines nothing
TOGETHER = 32  # poses that are compared at once


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
        fixed, moved = self._all if len(which) > 1 else self._pixels[which[0]], _listed(shown)
        return -self.energy.each(Alignment(Pair(fixed, self._range), Affine.identity(3)).showing(moved))

    @cached_property
    def _pixels(self) -> tuple[Image, ...]:
        return tuple(_listed([one]) for one in self.slices)

    @cached_property
    def _all(self) -> Image:
        return _listed(self.slices)

    @cached_property
    def _range(self) -> Image:
        """Two voxels with the ends of the volume's intensities, of which an energy makes its bins."""
        data, mask = self.volume.data, self.volume.mask
        ends = torch.stack((data if mask is None else data[mask]).aminmax()).view(1, 1, 2, 1, 1)
        return Image(ends, Grid((2, 1, 1), torch.eye(4, dtype=torch.float64)), torch.ones_like(ends, dtype=torch.bool))


def _listed(slices: Sequence[Image]) -> Image:
    """Return the pixels of all slices as one row, `(B, 1, N, 1, 1)`, with a mask where any has one."""
    data = torch.cat([one.data.flatten(2) for one in slices], 2)[..., None, None]
    mask = None
    if any(one.mask is not None for one in slices):
        masks = [torch.ones_like(one.data[:, :1], dtype=torch.bool) if one.mask is None else one.mask for one in slices]
        mask = torch.cat([each.flatten(2) for each in masks], 2)[..., None, None]
    return Image(data, Grid(tuple(data.shape[2:]), torch.eye(4, dtype=torch.float64)), mask)


@dataclass(frozen=True, eq=False)
class Freedom:
    """How well each direction of a pose is determined, by the curvature of the energy about it.

    Attributes:
        curvatures: `(6,)`, eigenvalues of the Hessian, ascending, per mm²: a unit of each direction moves the slices'
            rim by about 1 mm.
        directions: `(6, 6)`, a row each: a turn, as a vector, times the radius of the slices, and a shift, in RAS.
        centre: `(3,)` mm, about which they turn.
        radius: mm.
    """

    curvatures: Tensor
    directions: Tensor
    centre: Tensor
    radius: float

    @property
    def free(self) -> Tensor:
        """Which directions are not determined, `(6,)` bool: curved less than a 10⁻⁴th of the most curved one."""
        return self.curvatures <= self.curvatures.max().clamp(min=0) / CONDITION

    @property
    def in_words(self) -> tuple[str, ...]:
        """The directions that are not determined, in words."""
        return tuple(self._said(direction) for direction in self.directions[self.free])

    def _said(self, direction: Tensor) -> str:
        turn, shift = direction[:3], direction[3:]
        if shift.norm() >= turn.norm():
            return f"a shift along {_vector(shift / shift.norm())}"
        about = self.centre + torch.linalg.cross(turn / self.radius, shift) / (turn / self.radius).square().sum()
        return f"a turn about {_vector(turn / turn.norm())} through {_vector(about, 1)} mm"


def _vector(values: Tensor, digits: int = 2) -> str:
    """Return a vector in words; of a direction, the sign with which its largest part is positive."""
    sign = 1.0 if digits == 1 else float(values[values.abs().argmax()].sign())
    return "(" + ", ".join(f"{sign * value + 0.0:.{digits}f}" for value in values.tolist()) + ")"


@dataclass(frozen=True, eq=False)
class LocatedSlices:
    """The pose of slices in a volume.

    Attributes:
        transform: points of the slices → points of the volume.
        poses: of each slice: all the same, unless each had one of its own.
        energies: `(K,)`, of each slice by itself.
        overlap: share of the slices' pixels that lie in the volume.
        freedom: which directions are determined.
        stats: the start, its lead over rivals, where a search had any, and the descents.
    """

    transform: Affine
    poses: tuple[Affine, ...]
    energies: Tensor
    overlap: float
    freedom: Freedom
    stats: Stats


@dataclass(frozen=True)
class Search:
    """Starts about a known one, of which the best descend a little at low resolution.

    Attributes:
        starts: how many, evenly over all six directions (Sobol's sequence); 0 takes the known start alone.
        shift: mm, of the furthest start along each axis.
        turn: degrees, of the furthest about each axis.
        kept: of them descend.
        pixels: of all slices together, about as many.
        solver: of that descent; its step in pixels.
        seed: of the sequence.
    """

    starts: int = 512
    shift: float = 20.0
    turn: float = 30.0
    kept: int = 12
    pixels: int = 2000
    solver: Descend = Descend(steps=50, step_size=0.4, last=0.2)
    seed: int = 0


@dataclass(frozen=True)
class SliceToVolume:
    """A search for the rigid pose of slices in a volume, by what the volume shows in their place.

    All slices move as one, for they were measured in one session; or, if `free`, each by itself in the end, held
    near to the others.

    Attributes:
        energy: mutual information, for any contrast, or another energy of a joint histogram.
        shared: whether the slices have one contrast: one histogram of all of them.
        search: of the start.
        solver: of the descent in six degrees of freedom; its step is in voxels of the volume.
        layers: through the thickness of a slice; 0 for as many as its thickness asks for.
        most: pixels of all slices together; finer ones are averaged first.
        free: whether each slice has a pose of its own in the end.
        tether: that holds those together, per mm².
    """

    energy: Information = MI()
    shared: bool = True
    search: Search = Search()
    solver: Descend = Descend(steps=150, step_size=0.25, until=Converged(20, 0.002))
    layers: int = 0
    most: int = 60_000
    free: bool = False
    tether: float = 0.01

    def __call__(self, slices: Sequence[Image], volume: Image, start: Affine | None = None) -> LocatedSlices:
        """Return the pose of slices, `(1, 1, X, Y, 1)` each, in a volume, `(1, 1, X, Y, Z)`.

        Args:
            slices: one voxel thick, where their headers put them; pixels outside their masks do not count.
            volume: its own mask says where to look; by default everywhere but at its rim.
            start: points of the slices → points of the volume, or several, `(S, 4, 4)`, which are all tried; by default
                as the headers say or, where these leave most of the slices outside the volume, the middle of the slices
                in the middle of the volume.

        Raises:
            InputError: no slice, one that is no slice in space, a volume that is none, or one that shows less than half
                of the slices wherever they were sought.
        """
        _check(slices, volume)
        frame = common_frame(slices)
        likeness = self.likeness([placed(one, frame) for one in slices], volume)
        starts, origin = self._starts(likeness, start, frame)
        stats = Stats(Affine(starts.matrix[0] @ torch.linalg.inv(frame.matrix)), origin)
        begun, lead = self._sought(likeness, starts)
        stats = replace(stats, confidence=lead)
        overlap = float(likeness.measured(begun)[1])
        if overlap < LEAST:
            raise InputError(
                f"the volume shows {overlap:.0%} of the slices, and half of them is needed; are they of one body part, "
                f"and their headers in one space? Say where they lie by a start, or search further"
            )
        box = box_of(likeness.slices)
        edge = float(volume.grid.spacing.min())
        solver = replace(self.solver, step_size=self.solver.step_size * edge)
        motion, descent = solver(likeness, start=Motion.rigid(begun, box))
        found = Affine(motion.matrix.detach())
        poses, stats = [found] * len(slices), stats.then(descent)
        if self.free and len(slices) > 1:
            poses, more = self._each(likeness, found, box, solver)
            stats = stats.then(more)
        freedom = freedom_of(likeness, found, box, frame, edge)
        back = torch.linalg.inv(frame.matrix)
        with torch.no_grad():
            energies = torch.stack([likeness.each(pose)[0, k] for k, pose in enumerate(poses)])
        return LocatedSlices(
            Affine(found.matrix @ back),
            tuple(Affine(pose.matrix @ back) for pose in poses),
            energies,
            float(likeness.measured(found)[1]),
            freedom,
            stats,
        )

    def likeness(self, slices: Sequence[Image], volume: Image) -> Likeness:
        """Return the energy of the pose of slices in a volume, with intensities normalised and large slices averaged.

        Raises:
            InputError: a slice, or the volume, is constant.
        """
        pixels = sum(one.data.numel() for one in slices)
        finest = (pixels / self.most) ** 0.5
        seen = [_averaged(one, finest * float(one.grid.spacing.min())) if finest > 1 else one for one in slices]
        if self.shared:
            window = normalised(_listed(seen)).data.flatten()
            parts = window.split([one.data.numel() for one in seen])
            seen = [replace(one, data=part.view_as(one.data)) for one, part in zip(seen, parts, strict=True)]
        else:
            seen = [normalised(one) for one in seen]
        layers = tuple(self.layers or layers_of(one.grid, volume.grid) for one in seen)
        return Likeness(tuple(seen), within_view(normalised(volume)), self.energy, layers, self.shared)

    def _starts(self, likeness: Likeness, start: Affine | None, frame: Affine) -> tuple[Affine, str]:
        """Return the starts from the common frame, `(S, 4, 4)`, and where they come from."""
        given = torch.eye(4, dtype=torch.float64) if start is None else start.matrix.double()
        begun = Affine((given @ frame.matrix).reshape(-1, 4, 4))
        if start is not None or float(likeness.measured(begun)[1]) >= LEAST:
            return begun, "header" if start is None else "given"
        middle = Affine.about(frame.matrix[:3, :3], torch.zeros(3).double(), likeness.volume.grid.centre)
        return Affine(middle.matrix[None]), "centres"

    def _sought(self, likeness: Likeness, starts: Affine) -> tuple[Affine, float | None]:
        """Return the best of many starts, after a short descent at low resolution, and its lead over the next.

        Chance is the median of all that were tried; an answer gains what it is better than that, and leads by the
        share of its gain that the best other answer, some pixels away, lacks.
        """
        search, box = self.search, box_of(likeness.slices)
        if not search.starts and len(starts.matrix) == 1:
            return Affine(starts.matrix[0]), None
        edge = (sum(_area(one.grid) for one in likeness.slices) / search.pixels) ** 0.5
        spacing = [max(edge, own) for own in likeness.volume.grid.spacing.tolist()]
        coarse = replace(
            likeness,
            slices=tuple(_averaged(one, edge) for one in likeness.slices),
            volume=resampled(likeness.volume, spacing),
            layers=(1,) * len(likeness.slices),
        )
        tried = Affine(torch.cat([starts.matrix, self._about(Affine(starts.matrix[0]), box).matrix]))
        energies = _measured(coarse, tried)
        chance = float(energies[energies.isfinite()].median()) if energies.isfinite().any() else 0.0
        kept = energies.argsort()[: search.kept]
        kept = kept if (kept == 0).any() else torch.cat([torch.zeros(1).long(), kept[:-1]])  # the known one always
        solver = replace(search.solver, step_size=search.solver.step_size * edge)
        ended, _ = solver(coarse, start=Motion.rigid(Affine(tried.matrix[kept]), box))
        matrices = ended.matrix.detach()
        values = _measured(coarse, Affine(matrices))
        best = int(values.argmin())
        corners = torch.cat([_corners(one.grid) for one in likeness.slices]).T[None]
        away = (Affine(matrices).at(corners) - Affine(matrices[best]).at(corners)).norm(dim=1).mean(1)
        gains = (chance - values) / (chance - values[best]).clamp(min=1e-12)
        return Affine(matrices[best]), 1 - float(gains[away > 3 * edge].clamp(min=0).amax(0, keepdim=True).sum())

    def _about(self, start: Affine, box: Grid) -> Affine:
        """Return the starts about a known one, `(N, 4, 4)`."""
        search, motion = self.search, Motion.rigid(start, box)
        if not search.starts:
            return Affine(start.matrix.new_zeros(0, 4, 4))
        reach = torch.tensor([torch.pi / 180 * search.turn * radius_of(box)] * 3 + [search.shift] * 3)
        draws = torch.quasirandom.SobolEngine(6, scramble=True, seed=search.seed).draw(search.starts)
        return Affine(motion.with_params(((2 * draws - 1) * reach).double()).matrix)

    def _each(self, likeness: Likeness, found: Affine, box: Grid, solver: Descend) -> tuple[list[Affine], Stats]:
        """Return a pose of each slice, held near to their mean."""
        count = len(likeness.slices)
        motion = Motion.rigid(Affine(found.matrix.expand(count, 4, 4)), box)

        def objective(poses: Motion) -> Tensor:
            spread = (poses.coefficients - poses.coefficients.mean(0)).square().sum(1).mean()
            return likeness.apart([poses.nth(k) for k in range(count)]) + self.tether * spread

        ended, stats = solver(objective, start=motion)
        return [Affine(matrix) for matrix in ended.matrix.detach()], stats


def _measured(likeness: Likeness, poses: Affine) -> Tensor:
    """Return the energy of poses `(N, 4, 4)`, `(N,)`; infinite where less than half lies in the volume."""
    values = []
    for some in poses.matrix.split(TOGETHER):
        energies, overlap = likeness.measured(Affine(some))
        values.append(energies.where(overlap >= LEAST, torch.inf))
    return torch.cat(values)


def freedom_of(likeness: Likeness, found: Affine, box: Grid, frame: Affine, step: float) -> Freedom:
    """Return how the energy curves about a pose, by differences of its slope over `step` mm to either side.

    Args:
        likeness: of the slices, in the frame.
        found: points of the frame → points of the volume.
        box: of which the generators of the pose are.
        frame: points of the frame → points of the slices' world.
        step: mm.
    """
    motion = Motion.rigid(found, box)
    at = (step * torch.cat([torch.eye(6), -torch.eye(6)]).double()).requires_grad_()
    with torch.enable_grad():
        (slopes,) = torch.autograd.grad(likeness.of(motion.with_params(at)).sum(), at)
    hessian = (slopes[:6] - slopes[6:]) / (2 * step)
    curvatures, vectors = torch.linalg.eigh((hessian + hessian.T) / 2)
    turns = torch.stack([vectors[2], -vectors[1], vectors[0]])  # the planes 01, 02, 12 of rotations, as axes
    turned = frame.matrix[:3, :3]
    return Freedom(curvatures, torch.cat([turned @ turns, turned @ vectors[3:]]).T, frame.matrix[:3, 3], radius_of(box))


def common_frame(slices: Sequence[Image]) -> Affine:
    """Return the map from a frame along the first slice, its origin in the middle of all, to the slices' world.

    What is sought in it does not depend on how the world lies.
    """
    matrix = slice_frame(slices[0].grid)
    matrix[:3, 3] = torch.cat([_corners(one.grid) for one in slices]).mean(0)
    return Affine(matrix)


def box_of(slices: Sequence[Image]) -> Grid:
    """Return a cube about the middle of slices whose radius, for `Motion`, is the mean distance of their corners."""
    corners = torch.cat([_corners(one.grid) for one in slices])
    middle = corners.mean(0)
    radius = (corners - middle).square().sum(1).mean().sqrt()
    affine = torch.diag(torch.cat([(2 * radius).expand(3), torch.ones(1).double()]))
    affine[:3, 3] = middle - radius
    return Grid((2, 2, 2), affine)


def radius_of(box: Grid) -> float:
    """Return the distance in mm at which a generator of `Motion` on this cube moves points by 1 mm."""
    return float(box.spacing[0]) / 2


def _corners(grid: Grid) -> Tensor:
    """Return the corners of a slice, `(4, 3)` mm."""
    ends = [torch.tensor([0.0, n - 1.0], dtype=torch.float64) if n > 1 else torch.zeros(1).double() for n in grid.shape]
    return grid.to_world(torch.cartesian_prod(*ends).T[None])[0].T


def _edges(grid: Grid) -> list[tuple[int, float]]:
    return list(zip(grid.shape, grid.spacing.tolist(), strict=True))


def _area(grid: Grid) -> float:
    """Return the area of a slice in mm²."""
    return math.prod(n * s for n, s in _edges(grid) if n > 1)


def _averaged(image: Image, edge: float) -> Image:
    """Return a slice with pixels of `edge` mm or more."""
    return resampled(image, [own if n == 1 else max(own, edge) for n, own in _edges(image.grid)])


def _check(slices: Sequence[Image], volume: Image) -> None:
    if not slices:
        raise InputError("no slice to locate; one or more, each one voxel thick, are expected")
    for n, one in enumerate(slices):
        try:
            thin_axis(one.grid)
        except ValueError as error:
            raise InputError(f"slice {n + 1}: {error}") from error
    if volume.grid.ndim != 3 or min(volume.grid.shape) < 2:
        raise InputError(f"a volume expected in which slices are to be located, got {volume.grid}")


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


METHOD = Method(
    about="the pose of one or a few slices in a volume of another contrast",
    aligns=("pose",),
    papers=(
        Paper(
            "abbas2022quasi",
            "Abbas, Batool and Lattanzi, Riccardo and Petchprapa, Catherine and Gerig, Guido",
            "2D/3D Quasi-Intramodal Registration of Quantitative Magnetic Resonance Images",
            "Workshop on Biomedical Image Registration (WBIR)",
            2022,
        ),
    ),
    commands=("locate SLICE... --in VOLUME",),
)
