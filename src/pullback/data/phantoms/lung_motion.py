"""The motion of real lungs, smooth and without folds, with its phases: what the breathing phantom moves by."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pullback.data.lung_matches import SHAPE, SPACING, read_matches
from pullback.errors import InputError
from pullback.numerics.difference import determinant, jacobian
from pullback.numerics.sample import spline_coefficients
from pullback.numerics.smooth import gaussian
from pullback.numerics.spline import Knots
from pullback.space import BSpline, Grid, Transform, inverted

SCAN = Grid.centred(SHAPE, SPACING)
STEP = 8  # voxels of the scan between nodes of the lattice
MARGIN = 3  # nodes beyond the scan
SMOOTHING = (17.5, 35.0, 70.0, 140.0, 280.0, 560.0)  # mm: 10 voxels, and more where the motion would fold
LEAST = 0.1  # determinant
APART = 3.0  # nodes: sigma by which the motion is smoothed that the hysteresis follows


@dataclass(frozen=True, eq=False)
class LungMotion:
    """The way from exhale to inhale through phases: u there, and w aside of it, as cubic B-splines on one lattice.

    At the part s of the way from inhale, 0 … 1, a phase is seen through φ_s(x) = x + s u(x) + sin(πs) w(x): breathing
    with hysteresis, which is seen at both ends alike. With `straight`, each piece of tissue runs straight and evenly
    instead: that of x at exhale is at y = x + (1 − s) u(x), so φ_s(y) = x + u(x), and w has no part in it.

    Attributes:
        there, aside: coefficients of u and w, `(1, d, *lattice.shape)` in its voxels, float64.
        lattice: where they lie.
        straight: whether tissue runs straight.
    """

    there: Tensor
    aside: Tensor
    lattice: Grid
    straight: bool = False

    def phase(self, part: float) -> Transform:
        """Return the map from the phase at `part` of the way, 1 for exhale, to inhale, exact at each point."""
        whole = BSpline(self.there, self.lattice)
        if part == 1:
            return whole
        if self.straight:
            return whole @ inverted(BSpline((1 - part) * self.there, self.lattice))
        return BSpline(part * self.there + math.sin(math.pi * part) * self.aside, self.lattice)

    def least_determinant(self, phases: int) -> float:
        """Return the least determinant of the maps that `phases` are made of, at twice as many points as nodes."""
        fine = self.lattice.at_spacing(tuple((self.lattice.spacing / 2).tolist()))
        fields = []
        for n in range(1, phases + 1):
            aside = 0.0 if n == phases or self.straight else math.sin(math.pi * n / phases)
            fields.append(BSpline(n / phases * self.there + aside * self.aside, self.lattice).displacement(fine))
        edge = (slice(None), slice(None), *[slice(2 * MARGIN - 1, 1 - 2 * MARGIN)] * fine.ndim)
        return min(float(determinant(jacobian(field))[edge].min()) for field in fields)


@dataclass(frozen=True, eq=False)
class Matches:
    """Points of one person's lungs, at exhale and at inhale: `(N, 3)` in mm of the scan, its middle the origin."""

    person: str
    exhale: Tensor
    inhale: Tensor

    @classmethod
    def of(cls, root: str, person: str) -> "Matches":
        """Read the matches of a person from a folder."""
        points = read_matches(root, person)
        return cls(person, *(SCAN.to_world(each.mT[None])[0].mT for each in points))

    @cached_property
    def knots(self) -> Knots:
        return Knots(self.exhale)

    def motion(self, ndim: int, plane: float, bend: float, straight: bool, phases: int) -> LungMotion:
        """Return the smoothing spline of the matches on a lattice; smoother, where one of the phases would fold.

        w is the motion, smoothed and turned by 90° in the sagittal plane, or in the coronal one if that is all there
        is, times `bend`.

        Args:
            ndim: 3, or 2 for the motion within a coronal plane.
            plane: where that is, mm.

        Raises:
            InputError: a phase folds all the same.
        """
        lattice, nodes = _lattice(ndim, plane)
        seen = slice(None) if ndim == 3 else [0, 2]
        for smoothing in SMOOTHING:
            u = self.knots.spline(self.inhale - self.exhale, smoothing)(nodes)[:, seen]
            mm = u.mT.reshape(1, ndim, *lattice.shape)
            smooth = gaussian(mm, APART)
            x, z = smooth[:, -2], smooth[:, -1]
            turned = torch.stack([*[torch.zeros_like(x)] * (ndim - 2), -z, x], 1)
            fields = (spline_coefficients(lattice.from_mm(each)) for each in (mm, bend * turned))
            motion = LungMotion(*fields, lattice, straight)
            if motion.least_determinant(phases) >= LEAST:
                return motion
        raise InputError(
            f"{self.person}: the motion with a bend of {bend:g} folds, however smooth it is; bend it "
            f"less, or check the matches"
        )


def scan_grid(shape: Sequence[int]) -> Grid:
    """Return the grid of `shape` voxels over the scan, 3-D, or 2-D over a coronal plane of it."""
    axes = range(3) if len(shape) == 3 else (0, 2)
    edges = tuple(SHAPE[axis] * SPACING[axis] / n for axis, n in zip(axes, shape, strict=True))
    return Grid.centred(tuple(shape), edges)


def in_the_scan(where: Tensor, plane: float) -> Tensor:
    """Return points `(N, 3)` of the scan for points `(N, 3)`, or `(N, 2)` of a coronal plane."""
    if where.shape[1] == 3:
        return where
    return torch.stack([where[:, 0], torch.full_like(where[:, 0], plane), where[:, 1]], 1)


def _lattice(ndim: int, plane: float) -> tuple[Grid, Tensor]:
    """Return the lattice, and its nodes as points `(N, 3)` of the scan."""
    axes = range(3) if ndim == 3 else (0, 2)
    shape = tuple(SHAPE[axis] // STEP + 2 * MARGIN for axis in axes)
    lattice = Grid.centred(shape, tuple(STEP * SPACING[axis] for axis in axes))
    nodes = lattice.to_world(lattice.voxels(torch.zeros((), dtype=torch.float64))[None])
    return lattice, in_the_scan(nodes[0].flatten(1).mT, plane)
