"""The variational principle: maps that are made of a volume change and a rotation, and registration by these.

Zhou, Liao: An image registration framework with controllable diffeomorphisms, WBIR 2022 (equations below), after Zhou
and Liao, arXiv:2105.09302 (inverse maps), and Chen and Liao, arXiv:1507.03715 (maps by determinant and curl).

A map φ = id + u solves Δu = F(f, g) = ∇f − ∇×g in the box between the outermost voxel centres, with u = 0 on its
border. As Δu = ∇(∇·u) − ∇×(∇×u), the controls f and g are the determinant and the curl of φ to first order, up to a
harmonic function: they mimic them and do not prescribe them. Each derivative by a control passes through Poisson's
equation (2), so descent is smooth without any regularity.

The paper is silent about step sizes, when a grid is regenerated and when the descent stops; these were decided here.
The Hessian (3) is left out: nothing in the paper uses it, and it is not positive.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import matmul

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair, one_by_one
from pullback.energies import MSE
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.methods.pair.determinant_and_curl import LEAST, controlled, in_voxels, poisson
from pullback.metrics import foreground
from pullback.numerics.difference import determinant, jacobian, least_determinant
from pullback.numerics.integrate import compose
from pullback.numerics.separable import apply_along
from pullback.numerics.sine import sine_weights
from pullback.solvers import Levels
from pullback.space import Displacement, Grid, Image, Transform, resample
from pullback.stats import Stats

FIRST, GROWTH, HALVINGS = 0.2, 1.3, 12
"""Of steps: the largest change of a control in the first, the factor after one that succeeded, and after how many
halvings one has failed."""
BELOW = 0.9  # of the floor: a step to a lesser determinant is halved
SAME = 1e-9  # of the mean square of an image: a loss below it is of interpolation's rounding
STALLED = 0.5  # ratio of losses above which little was aligned
AT_BORDER = 0.01  # share of the foreground

Controls = tuple[Tensor, ...]


@dataclass(frozen=True)
class VariationalPrinciple:
    """Registration by the controls of volume change and rotation, which descends ½ ∫ (I_m ∘ φ − I_f)², equation (1).

    The answer is composed of stages: each starts with fresh controls on the moving image as it was moved so far, and
    ends when its least determinant falls below `floor` (the paper's regridding). In each stage f = J_min + f̂² (4).
    J_min is no bound on the determinant: descents with f ≥ 0.5 everywhere fold where nothing else holds them. Here no
    step takes the determinant of a stage below 0.9 × `floor`, in any corner of any cell between voxels; so in 2-D each
    stage is one-to-one between voxels, too, and so is their composition. And a stage is halved while the whole, by
    central differences on the fixed grid, folds.

    Intensities are compared as they are. Nothing crosses the border of the fixed grid, which does not move: an object
    that touches it wants padding.

    Attributes:
        least: J_min of the paper.
        floor: determinant below which a stage ends; None never ends one, and bounds no step.
        controls: `"fg"`, f̂ and g (4), or `"F"`, the right-hand side itself (2).
        levels: of resolution, each of whose grids spans the same box.
        steps: at most, on each level.
        ratio: of the loss to that without motion, at which a level ends.

    Raises:
        InputError: `least` or `floor` not between 0 and 1, or other controls.
    """

    least: float = 0.5
    floor: float | None = 0.7
    controls: str = "fg"
    levels: Levels = Levels(coarsest=32)
    steps: int = 200
    ratio: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("least", self.least), ("floor", self.floor)):
            if value is not None and not 0 < value < 1:
                raise InputError(f"VariationalPrinciple: {name} lies between 0 and 1, got {value:g}")
        if self.controls not in ("fg", "F"):
            raise InputError(f'VariationalPrinciple: controls are "fg" or "F", not {self.controls!r}')

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
        """Align two images, fixed → moving, from `start` or as the headers say; each pair of a batch by itself.

        `stats.numbers` holds the ratio of the losses, the least and the greatest determinant, and the number of stages.
        Warns where the foreground touches the border, and where most of the loss was left.

        Raises:
            InputError: fewer than four voxels along an axis of the fixed image.
        """
        if min(fixed.grid.shape) < LEAST:
            raise InputError(
                f"VariationalPrinciple: {LEAST} voxels or more along each axis expected, the fixed image has "
                f"{'×'.join(map(str, fixed.grid.shape))}: only voxels within the border can move"
            )
        batch = max(fixed.batch, moving.batch, 1 if start is None else start.batch)
        if batch == 1:
            return self._one(fixed, moving, start)
        found = [self._one(fixed.nth(n), moving.nth(n), start and start.nth(n)) for n in range(batch)]
        most = max(len(one.transform.parts) for one in found)
        alike = iter([_padded(one, most) for one in found])  # a batch is of transforms of one kind
        return one_by_one(lambda *_: next(alike), fixed, moving, start)

    def _one(self, fixed: Image, moving: Image, start: Transform | None) -> Alignment:
        pair, begin = Pair(fixed, moving), start or Displacement.identity(fixed.grid, fixed.data)
        stages: list[Displacement] = []
        stats = Stats(start=start)
        for level in _levels(pair, self.levels):
            found, descent = self._descended(level, (begin, *stages), fixed)
            stages, stats = [*stages, *found], stats.then(descent)
        whole = reduce(matmul, stages or [Displacement.identity(fixed.grid, fixed.data)])
        answer = Alignment(pair, whole if start is None else start @ whole)
        loss, left = (float(MSE()(one)) for one in (Alignment(pair, begin), answer))
        numbers = {
            "ratio": left / loss if loss > SAME * float(fixed.data.square().mean()) else 0.0,
            "least determinant": float(answer.jacobian.min()),
            "greatest determinant": float(answer.jacobian.max()),
            "stages": float(len(stages)),
        }
        _warn(answer, numbers)
        return replace(answer, stats=replace(stats, numbers=numbers))

    def _descended(self, level: Pair, before: Sequence[Transform], fixed: Image) -> tuple[list[Displacement], Stats]:
        """Return the stages that follow `before`, found on a level, and the statistics of their descents."""
        grid, like = level.fixed.grid, level.fixed.data
        goal = self.ratio * float(MSE()(Alignment(level, before[0]))) / 2
        stages: list[Displacement] = []
        values: list[float] = []
        stopped = ""
        while not stopped:
            so_far = reduce(matmul, (*before, *stages)).displacement(grid).to(like)
            field, seen, stopped = self._stage(_Loss(level, so_far), goal, self.steps - len(values))
            values += seen
            stage = None if field is None else _carried(Displacement(field, grid), fixed)
            if stage is not None and self.floor is not None:
                stage = _without_folds((*before, *stages), stage)
            if stage is None:
                stopped = stopped or "converged"
                break
            stages.append(stage)
        return stages, Stats(energies=torch.tensor(values), steps=len(values), stopped=stopped)

    @torch.enable_grad()
    def _stage(self, loss: "_Loss", goal: float, steps: int) -> tuple[Tensor | None, list[float], str]:
        """Descend from no motion by fresh controls, in at most so many steps or until the loss is at its goal.

        Returns:
            The displacement, None where no step succeeded; the loss before each step; and why the descent is over, ""
            where only the stage is.
        """
        first = here = self._look(self._still(loss), loss)
        values: list[float] = []
        size, stopped = 0.0, "steps"
        while len(values) < steps:
            values.append(float(here.loss.detach()))
            if values[-1] <= goal and here is not first:  # seen again as a stage of the whole
                stopped = ""
                break
            slopes = torch.autograd.grad(here.loss, here.controls)
            steepest = max(float(slope.abs().max()) for slope in slopes)
            taken = None
            if values[-1] > goal and steepest > 0:
                taken = self._step(here, slopes, size or FIRST / steepest, loss)
            if taken is None:
                stopped = "converged"
                break
            here, size = taken[0], GROWTH * taken[1]
            if self.floor is not None and here.least < self.floor:
                stopped = ""
                break
        return None if here is first else here.field.detach(), values, stopped

    def _step(self, here: "_Look", slopes: Controls, size: float, loss: "_Loss") -> "tuple[_Look, float] | None":
        """Return what a step down the slopes leads to, halved until it succeeds, and its size; None where none does."""
        for _ in range(HALVINGS + 1):
            there = self._look(
                tuple(one.detach() - size * slope for one, slope in zip(here.controls, slopes, strict=True)), loss
            )
            lower = bool(there.loss < here.loss)
            if lower and (self.floor is None or there.least >= BELOW * self.floor):
                return there, size
            size /= 2
        return None

    def _still(self, loss: "_Loss") -> Controls:
        """Return the controls of no motion."""
        zero = torch.zeros_like(loss.so_far)
        if self.controls == "F":
            return (zero,)
        g = zero if zero.shape[1] == 3 else zero[:, :1]
        return torch.full_like(zero[:, :1], (1 - self.least) ** 0.5), g

    def _look(self, controls: Controls, loss: "_Loss") -> "_Look":
        controls = tuple(one.requires_grad_() for one in controls)
        edges = loss.level.fixed.grid.spacing.tolist()
        if self.controls == "F":
            field = in_voxels(poisson(controls[0], edges), edges)
        else:
            field = controlled(self.least + controls[0].square(), controls[1], edges)
        return _Look(controls, field, loss(field))


@dataclass(frozen=True, eq=False)
class _Loss:
    """The loss of a displacement u on a level, ½ the mean of (I_m ∘ φ ∘ (id + u) − I_f)²; `so_far` is that of φ."""

    level: Pair
    so_far: Tensor

    def __call__(self, u: Tensor) -> Tensor:
        whole = Displacement(compose(self.so_far, u), self.level.fixed.grid)
        return MSE()(Alignment(self.level, whole)) / 2


@dataclass(frozen=True, eq=False)
class _Look:
    """Controls, their displacement `(1, d, *spatial)` in voxels, and its loss."""

    controls: Controls
    field: Tensor
    loss: Tensor

    @property
    def least(self) -> float:
        """The least determinant of the stage, also between voxels."""
        return float(least_determinant(self.field.detach()).min())


def _without_folds(before: Sequence[Transform], stage: Displacement) -> Displacement | None:
    """Return a stage, halved while the whole folds on its grid and did not before; None where none is small enough."""
    if _folds(before, stage.grid):
        return stage
    for _ in range(HALVINGS):
        if not _folds((*before, stage), stage.grid):
            return stage
        stage = replace(stage, field=stage.field / 2)
    return None


def _folds(parts: Sequence[Transform], grid: Grid) -> bool:
    return bool(determinant(jacobian(reduce(matmul, parts).displacement(grid))).min() <= 0)


def _levels(pair: Pair, levels: Levels) -> Iterator[Pair]:
    """Yield the pair's images at each level, coarse to fine, the fixed one on a grid that spans the same box.

    In 2-D they are float64: the loss is flat near its end.
    """
    if pair.fixed.grid.ndim == 2:
        fixed, moving = (replace(image, data=image.data.double()) for image in pair.images)
        pair = Pair(fixed, moving)
    for level in levels(pair):
        shape = tuple(max(n, LEAST - 1) for n in level.fixed.grid.shape)
        if shape == pair.fixed.grid.shape:
            yield Pair(pair.fixed, level.moving)
        else:
            yield Pair(resample(pair.fixed, pair.fixed.grid.between_ends(shape)), level.moving)


def _carried(stage: Displacement, fixed: Image) -> Displacement:
    """Return a stage on the grid of the fixed image, which spans the same box, interpolated by sines."""
    field, ratios = stage.field, []
    for axis, (m, n) in enumerate(zip(stage.grid.shape, fixed.grid.shape, strict=True)):
        if m != n:
            where = torch.arange(n, dtype=torch.float64) * (m - 1) / (n - 1)
            field = apply_along(sine_weights(where, m).to(field), field, axis)
        ratios.append((n - 1) / (m - 1))
    return Displacement((field * field.new_tensor(ratios).view(-1, *[1] * len(ratios))).to(fixed.data), fixed.grid)


def _padded(found: Alignment, parts: int) -> Alignment:
    """Return the answer with further stages that move nothing, so that its transform has so many parts."""
    still = Displacement.identity(found.pair.fixed.grid, found.pair.fixed.data)
    return replace(found, transform=reduce(matmul, [found.transform, *[still] * (parts - len(found.transform.parts))]))


def _warn(answer: Alignment, numbers: dict[str, float]) -> None:
    lit = foreground(answer)
    inside = lit
    for axis in range(2, lit.ndim):
        inside = inside.narrow(axis, 1, lit.shape[axis] - 2)
    share = 1 - float(inside.sum()) / max(float(lit.sum()), 1)
    if share > AT_BORDER:
        _tell(f"the object touches the border ({100 * share:.0f} % of it lies there), which does not move: pad first")
    if numbers["ratio"] > STALLED:
        _tell(
            f"stalled: {100 * numbers['ratio']:.0f} % of the loss is left, with a least determinant of "
            f"{numbers['least determinant']:.2f}; align linearly before, begin coarser or lower the floor"
        )


def _tell(doubt: str) -> None:
    warnings.warn(f"VariationalPrinciple: {doubt}", UserWarning, stacklevel=2)


METHOD = Method(
    about="maps made of a volume change and a rotation, large motion without folds; no training",
    aligns=("pair",),
    papers=(
        Paper(
            "zhou2022image",
            "Zhou, Zicong and Liao, Guojun",
            "An Image Registration Framework with Controllable Diffeomorphisms",
            "Biomedical Image Registration (WBIR)",
            2022,
        ),
    ),
    register=VariationalPrinciple(),
    solves=("identity", "smooth"),
)
