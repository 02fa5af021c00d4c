"""Deformable registration by gradient descent, coarse to fine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from pullback.alignment import Alignment, Pair, one_by_one
from pullback.energies import LNCC, Diffusion, Energy
from pullback.energies.regularity import stiffened
from pullback.solvers.constraint import Constraint, constrained
from pullback.solvers.descend import Converged, Descend
from pullback.solvers.levels import Levels
from pullback.solvers.linear_stage import within_view
from pullback.space import (
    Affine,
    Dense,
    Displacement,
    Grid,
    Image,
    Linear,
    Transform,
    Velocity,
    as_field,
    placed,
    split,
)
from pullback.stats import Stats


@dataclass(frozen=True)
class DeformableStage:
    """A register that descends `energy` by a field, after a linear start.

    The moving image is not resampled for the start: its grid is moved instead. So the field lives in the fixed world,
    and the answer is start ∘ field. Similarity is a mean over the voxels that the masks leave to compare, regularity a
    mean over the whole grid: its weight grows as the masks shrink, so that a voxel has the same weight with a mask as
    without.

    Attributes:
        energy: similarity and regularity.
        coarse: the energy on all levels but the last, where images have less noise; None is `energy`.
        kind: of the field: `Velocity` (diffeomorphic), `Displacement` or `BSpline`.
        draft: another kind with the same field, used during the descent: a velocity's exponential by few squarings is
            nearly the same and costs half.
        levels: of resolution.
        steps: at most, of the last levels, coarse to fine; the first number is that of the coarsest level, and of all
            levels before these.
        solver: the descent on each level; its step is in voxels of the field.
        ratio: voxels of the field in voxels of the level: 1, or for `BSpline` the distance of its control points.
        constraint: of labels and landmarks of the one pair at hand, added to the energy of each level.
    """

    energy: Energy = LNCC(9, noise=1e-4) + 1.0 * Diffusion()
    coarse: Energy | None = None
    kind: Callable[[Tensor, Grid], Dense] = Velocity
    draft: Callable[[Tensor, Grid], Dense] | None = None
    levels: Levels = Levels()
    steps: tuple[int, ...] = (80, 60, 30)
    solver: Descend = Descend(step_size=0.1, until=Converged())
    ratio: int = 1
    constraint: Constraint | None = None

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
        """Align two images, fixed → moving; each pair of a batch by itself.

        A `start` that is a field itself is refined as it is, on the finest level alone.
        """
        return one_by_one(self._one, fixed, moving, start)

    def _one(self, fixed: Image, moving: Image, start: Transform | None) -> Alignment:
        begin, field = _split(start, fixed)
        pair = Pair(fixed, placed(moving, begin))
        levels = [replace(level, moving=within_view(level.moving)) for level in self.levels(pair)]
        stiffness = 1 / _compared(pair)
        if field is None:
            field, stats = self._descend(fixed, levels, stiffness, begin)
        else:
            objective = constrained(stiffened(self.energy, stiffness), levels[-1], begin, self.constraint)
            field, stats = self._solver(0)(objective, start=field)
        whole = begin @ field if start is None or start.parts[0].as_affine is not None else field
        return Alignment(Pair(fixed, moving), whole, stats=Stats(start=start).then(stats))

    def _descend(self, fixed: Image, levels: Sequence[Pair], stiffness: float, begin: Linear) -> tuple[Dense, Stats]:
        grids = [self._grid(level.fixed.grid) for level in levels]
        field, stats = (self.draft or self.kind)(Displacement.identity(grids[0], fixed.data).field, grids[0]), Stats()
        for n, (level, grid) in enumerate(zip(levels, grids, strict=True)):
            energy = self.energy if self.coarse is None or n == len(levels) - 1 else self.coarse
            solver = self._solver(len(levels) - 1 - n if n else len(self.steps))
            objective = constrained(stiffened(energy, stiffness), level, begin, self.constraint)
            field, descent = solver(objective, start=field.on(grid))
            stats = stats.then(descent)
        return self.kind(field.field, field.grid), stats

    def _grid(self, level: Grid) -> Grid:
        return level if self.ratio == 1 else level.at_spacing(tuple((self.ratio * level.spacing).tolist()))

    def _solver(self, finer: int) -> Descend:
        """Return the solver of the level that `finer` levels follow."""
        return replace(self.solver, steps=self.steps[max(len(self.steps) - 1 - finer, 0)])


def _compared(pair: Pair) -> float:
    """Return the share of the fixed grid that the masks leave to compare; 1 where they leave nothing."""
    mask = Alignment(pair, Affine.identity(pair.fixed.grid.ndim)).mask
    return 1.0 if mask is None or not mask.any() else float(mask.float().mean())


def _split(start: Transform | None, fixed: Image) -> tuple[Affine, Dense | None]:
    """Split a start into a linear map and the field before it, if any.

    A map before the linear one that is no field becomes one on the fixed grid.
    """
    if start is None:
        return Affine.identity(fixed.grid.ndim), None
    if start.as_affine is not None:
        return start.as_affine, None
    affine, rest = split(start.to(fixed.data.device))
    return affine, None if rest is None else as_field(rest, fixed.grid)
