"""Synthetic pairs, whose moving image is made from the fixed one, with their true transform.

The augmentation layer of DDMR: Pérez de Frutos et al. 2023, "Preprocessing". It gives the limits of the draws
(rigid displacement 30 mm, non-rigid 6 mm on 8×8×8 points, 10° about any axis, gamma 0.5 to 2, brightness ±20 %); their
distributions below these, and the order in which they act, are ours.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from pullback.alignment import Pair
from pullback.data.case import Case, Test, Validation, pair_of
from pullback.errors import InputError
from pullback.numerics.random import drawn_number, make_generator
from pullback.numerics.rotation import nearby
from pullback.numerics.separable import apply_along, spline_weights
from pullback.numerics.spline import spline
from pullback.space import Affine, BSpline, Composite, Displacement, Grid, Image, Labels, inverted, pull, push, resample

STEEPEST = 0.9  # mm of displacement per mm: below 1 nothing folds, and the inverse is found by going there and back

Listed = TypeVar("Listed", Validation, Test)


@dataclass(frozen=True)
class ContrastChange:
    """An increasing function of intensities from 0 … 1 onto 0 … 1: a power, then a shift, cut off and stretched.

    Background stays 0. A positive shift takes the brightest intensities to 1, a negative one the darkest to 0.
    """

    gamma: float
    brightness: float

    def __call__(self, data: Tensor) -> Tensor:
        return ((data**self.gamma + min(self.brightness, 0)) / (1 - abs(self.brightness))).clamp(0, 1)


@dataclass(frozen=True)
class Synthesis:
    """A generator of synthetic pairs: at y, the moving image shows the fixed image at ψ(y), for a random ψ.

    ψ is a rotation about the image's centre and a translation, then a thin-plate spline through the random
    displacements of a lattice of control points over the image. Lengths of displacements and of the translation are
    uniform below their limits, and their directions too; angles and brightness are uniform, gamma is so in its
    logarithm. The spline is scaled down as a whole where a voxel would move beyond `displacement`, or where it would be
    so steep that it folds, as on images of few millimetres.

    The spline is solved in units of the lattice's cells, so that one factor serves all images. It is evaluated exactly
    at `fineness` points to a cell along each axis, carried to all voxels by cubic B-splines, and linear between them.

    Attributes:
        displacement: the longest of the spline, mm.
        controls: control points along each axis.
        moving: how many of them move, others each time; None moves all.
        degrees: largest rotation, about each axis in turn.
        translation: the longest, mm.
        gamma: intensities are raised to a power between 1/gamma and gamma.
        brightness: largest shift of the intensities, as a share of their range.
        shape: number of voxels to which both images are resampled first, between their outermost voxel centres; None
            leaves them.
        fineness: of the evaluation; `benchmarks/synthesis.py` measures its cost and its accuracy.

    Raises:
        InputError: a limit below 0, too few controls or voxels, or a brightness or gamma that leaves no contrast.
    """

    displacement: float = 6.0
    controls: int = 8
    degrees: float = 10.0
    translation: float = 30.0
    gamma: float = 2.0
    brightness: float = 0.2
    shape: tuple[int, ...] | None = None
    fineness: int = 4
    moving: int | None = None

    def __post_init__(self) -> None:
        limits = {name: getattr(self, name) for name in ("displacement", "degrees", "translation")}
        wrong = {name: value for name, value in limits.items() if not 0 <= value < math.inf}
        if not 1 <= self.gamma < math.inf:
            wrong["gamma"] = self.gamma
        if not 0 <= self.brightness < 1:
            wrong["brightness"] = self.brightness
        if wrong:
            raise InputError(
                f"synthesis: limits of 0 or more expected, of brightness below 1, and of gamma 1 or more, got {wrong}"
            )
        if self.controls < 2 or self.fineness < 1 or min(self.shape or (2,)) < 2 or (self.moving or 0) < 0:
            raise InputError(
                f"synthesis: two or more controls, of which some move, a fineness of 1 or more and two or more voxels "
                f"along each axis expected, got {self.controls}, {self.moving}, {self.fineness} and {self.shape}"
            )

    @torch.no_grad()
    def __call__(self, pair: Pair, generator: torch.Generator) -> Pair:
        """Return a pair of the fixed image, scaled to 0 … 1, and a synthetic moving image on the same grid.

        The given moving image is not used. Labels, mask and points follow; `truth` is the inverse of ψ, computed where
        it is asked for.
        """
        grid = self._grid(pair)
        fixed, labels = _ranged(_on(pair.fixed, grid), pair.name), pair.fixed_labels and _labels_on(pair, grid)
        there = self.transform(grid, generator, fixed.data)
        seen, truth = pull(fixed, there, onto=grid), inverted(there)
        return Pair(
            fixed,
            replace(seen, data=self.contrast(generator)(seen.data)),
            labels,
            labels and pull(labels, there, onto=grid),
            pair.fixed_points,
            pair.fixed_points and push(pair.fixed_points, truth),
            truth,
            pair.name,
        )

    def transform(self, grid: Grid, generator: torch.Generator, like: Tensor) -> Composite:
        """Draw ψ, moving → fixed, both on `grid`: the spline after the rigid motion.

        It is drawn on the CPU, and made in the dtype and on the device of `like`. Beyond the image the spline is
        continued by its border for as far as it can move a point, so that within the image there is an inverse.
        """
        d = grid.ndim
        vectors = _vectors(self.controls**d, d, self.displacement, generator)
        if self.moving is not None:
            vectors[torch.randperm(len(vectors), generator=generator)[self.moving :]] = 0
        bent = self._bent(grid, vectors.to(like))
        turn = nearby(torch.eye(d, dtype=torch.float64)[None], 1, self.degrees, generator)[0]
        rigid = Affine.about(turn, grid.centre, grid.centre + _vectors(1, d, self.translation, generator)[0])
        return Composite(bent, Affine(rigid.matrix.to(like)))

    def contrast(self, generator: torch.Generator) -> ContrastChange:
        """Draw the change of a moving image's intensities."""
        power, shift = (2 * torch.rand(2, generator=generator, dtype=torch.float64) - 1).tolist()
        return ContrastChange(self.gamma**power, self.brightness * shift)

    def _bent(self, grid: Grid, controls: Tensor) -> Displacement:
        """Return the spline of displacements `(controls^d, d)` in mm, within the limits, continued beyond the grid."""
        field = thin_plate(controls, self.controls, grid, self.fineness).displacement(grid)
        mm = grid.to_mm(field)
        longest, steepest = mm.square().sum(1).max().sqrt(), _steepest(mm, grid)
        field = field * torch.stack([self.displacement / longest, STEEPEST / steepest]).nan_to_num(0).min().clamp(max=1)
        margins = (torch.ceil(self.displacement / grid.spacing).long() + 1).tolist()
        return Displacement(field, grid).continued(margins)

    def _grid(self, pair: Pair) -> Grid:
        grid = pair.fixed.grid
        if len(self.shape or grid.shape) != grid.ndim or min(grid.shape) < 2:
            raise InputError(
                f"{pair.name or 'a pair'}: the fixed image has shape {grid.shape}, of which synthesis.shape "
                f"{self.shape} cannot be made; two voxels or more along each of as many axes are expected"
            )
        return grid if self.shape is None else grid.between_ends(self.shape)


@dataclass(frozen=True)
class Synthetic:
    """A maker of synthetic pairs in advance, always the same, for the validation and test splits of a dataset.

    Each pair depends on `seed`, its subject's name and its number alone, and nothing of it is kept on disk.

    Attributes:
        synthesis: the generator: makes a pair of an image's pair with itself.
        per_subject: pairs of each subject.
        seed: of all draws.

    Raises:
        InputError: less than one pair of each subject.
    """

    synthesis: Callable[[Pair, torch.Generator], Pair] = Synthesis()
    per_subject: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.per_subject < 1:
            raise InputError(f"synthetic: one pair or more of each subject expected, got {self.per_subject}")

    def __call__(self, case: Case, number: int) -> Pair:
        """Return the pair at `number` in the list of a split."""
        number %= self.per_subject
        generator = make_generator(self.seed, round(drawn_number(0, case.name) * 2**48), number)
        return replace(self.synthesis(pair_of(case, case), generator), name=f"{case.name} ← synthetic {number + 1}")

    def listed(self, kind: type[Listed], cases: Sequence[Case]) -> Listed:
        """Return a split of these subjects' pairs."""
        return kind([(case, case) for case in cases for _ in range(self.per_subject)], make=self)


def thin_plate(values: Tensor, controls: int, grid: Grid, fineness: int) -> BSpline:
    """Return the thin-plate spline through displacements of a lattice of control points that spans a grid.

    Args:
        values: `(controls^d, d)` in mm, the last axis of the lattice running fastest.
        controls: points of the lattice along each axis.
        grid: its outermost voxel centres are those of the lattice.
        fineness: points to each cell of the lattice, along each axis, at which it is exact; cubic between.
    """
    d = grid.ndim
    nodes = grid.between_ends(((controls - 1) * fineness + 1,) * d)
    coefficients = _plate(controls, fineness, d, values.device).to(values) @ values
    steps = coefficients @ torch.linalg.inv(nodes.affine[:-1, :-1]).mT.to(values)
    return BSpline(steps.mT.reshape(1, d, *nodes.shape), nodes)  # (nodes, d) to (1, d, …)


def _vectors(count: int, ndim: int, longest: float, generator: torch.Generator) -> Tensor:
    """Draw vectors `(count, ndim)` float64 of any direction, and any length up to `longest`."""
    directions = F.normalize(torch.randn(count, ndim, generator=generator, dtype=torch.float64))
    return directions * longest * torch.rand(count, 1, generator=generator, dtype=torch.float64)


@lru_cache(maxsize=2)
def _plate(controls: int, fineness: int, ndim: int, device: torch.device) -> Tensor:
    """Return the matrix from values on a lattice to the B-spline coefficients of their thin-plate spline.

    It is `(((controls - 1) * fineness + 1)^ndim, controls^ndim)` float32; 50 MB for the defaults.
    """
    at = torch.arange((controls - 1) * fineness + 1, dtype=torch.float64)
    lattice, nodes = (torch.cartesian_prod(*[axis] * ndim) for axis in (at[::fineness], at))
    values = spline(lattice, torch.eye(len(lattice), dtype=torch.float64))(nodes).mT
    values = values.reshape(1, len(lattice), *[len(at)] * ndim)  # (1, controls^d, …), a spline per control
    to_coefficients = torch.linalg.inv(spline_weights(at, len(at)))
    for axis in range(ndim):
        values = apply_along(to_coefficients, values, axis)
    return values.flatten(2)[0].mT.float().contiguous().to(device)  # (nodes, controls^d)


def _steepest(field: Tensor, grid: Grid) -> Tensor:
    """Return the largest difference of displacements per mm between two points, of `(1, d, *grid.shape)` in mm.

    It is a bound: where voxels are linear between their corners, each derivative is a mean over a voxel's edges.
    """
    total = torch.zeros((), dtype=field.dtype, device=field.device)
    for axis, spacing in enumerate(grid.spacing.tolist()):
        rise = field.diff(dim=2 + axis).square().sum(1) / spacing**2
        for other in {*range(grid.ndim)} - {axis}:
            n = rise.shape[1 + other]
            rise = torch.maximum(rise.narrow(1 + other, 0, n - 1), rise.narrow(1 + other, 1, n - 1))
        total = total + rise
    return total.max().sqrt()


def _on(image: Image, grid: Grid) -> Image:
    return image if grid is image.grid else resample(image, grid)


def _labels_on(pair: Pair, grid: Grid) -> Labels | None:
    labels = pair.fixed_labels
    if labels is None or grid is pair.fixed.grid:
        return labels
    return pull(labels, Affine.identity(grid.ndim), onto=grid)


def _ranged(image: Image, name: str) -> Image:
    """Scale the least intensity to 0 and the greatest to 1, in each image and channel by itself."""
    axes = tuple(range(2, image.data.ndim))
    low, high = image.data.amin(axes, keepdim=True), image.data.amax(axes, keepdim=True)
    if not bool((high > low).all()):
        raise InputError(f"{name or 'a pair'}: the fixed image is constant, so no moving one can be made of it")
    return replace(image, data=(image.data - low) / (high - low))
