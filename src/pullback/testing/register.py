"""The contract of registers of two images, or of two clouds of points."""

from collections.abc import Callable
from typing import Any

import torch

from pullback.alignment import Alignment
from pullback.energies import Energy
from pullback.errors import InputError
from pullback.space import Affine, Transform
from pullback.testing.clouds import PointProblem
from pullback.testing.contract import Untouched, check_finite, require
from pullback.testing.problems import Problem

TOGETHER = 1e-3
"""Of a batch and its pairs, in mm: sums of other lengths are rounded otherwise."""


def check_register(
    register: Callable[..., Any],
    problem: Problem | PointProblem,
    *,
    solves: bool = True,
    energy: Energy | None = None,
    rounding: float | None = None,
) -> float:
    """Hold a register against its contract, on one problem.

    Whatever the problem: the answer is a transform from the fixed to the moving world, finite and the same each time;
    inputs stay as they are; float64 gives what float32 gives; a batch gives what each of its pairs gives alone, or is
    refused with its size; the objective is not above that without motion. A problem that a register does not solve may
    be refused by an `InputError`.

    Args:
        register: called with two images it answers with something that has a `transform`, as an `Alignment` has; called
            with a `PointPair` it answers with a `Transform` or a `PointAlignment`.
        problem: one of `problems()` or of `point_problems()`.
        solves: whether the answer must lie as near to the truth as the problem says.
        energy: objective that the register descends, of images; None where it has none.
        rounding: mm, on average over the body, between the answers in float32 and in float64. None is half of what the
            problem allows for, since a descent may stop a step earlier or later.

    Returns:
        mean distance in mm from the truth; infinity where the problem was refused.

    Raises:
        BrokenContract: a promise was not kept.
    """
    where = f"{_name(register)} on {problem}"
    untouched = Untouched(problem.pair)
    try:
        transform = problem.ask(register)
    except ValueError as refusal:
        if not isinstance(refusal, InputError) and problem.batch == 1:
            raise
        require(not solves, where, "an answer", f"a refusal ({refusal})")
        named = problem.batch == 1 or str(problem.batch) in str(refusal)
        require(named, where, "a refusal that names the size of the batch", f"({refusal})")
        return float("inf")
    check_finite(problem.displacement(transform), where, "displacements")
    again, exact = problem.ask(register), problem.double().ask(register)
    untouched.check(where)
    apart = float(problem.apart(transform, again).max())
    require(apart == 0, where, "the same answer each time", f"one {apart:.3g} mm away")
    rounding = problem.within / 2 if rounding is None else rounding
    apart = float(problem.apart(transform, exact).mean())
    require(apart <= rounding, where, f"the same answer in float64, within {rounding:g} mm", f"one {apart:.3g} mm away")
    if isinstance(problem, Problem):
        _check_batch(register, problem, transform, where)
        if energy is not None:
            _check_objective(energy, problem, transform, where)
    distance = problem.distance(transform)
    if solves:
        promised = f"a mean distance of at most {problem.within:g} mm from the truth ({problem.because})"
        require(distance <= problem.within, where, promised, f"{distance:.2f} mm")
    return distance


def _name(register: Any) -> str:
    return getattr(register, "__name__", type(register).__name__)


def _check_batch(register: Any, problem: Problem, transform: Transform, where: str) -> None:
    for n in range(problem.batch if problem.batch > 1 else 0):
        alone = problem.nth(n)
        apart = float(alone.apart(transform.nth(n), alone.ask(register)).max())
        promised = f"the answer to pair {n} of the batch as it is alone, within {TOGETHER} mm"
        require(apart <= TOGETHER, where, promised, f"one {apart:.3g} mm away")


def _check_objective(energy: Energy, problem: Problem, transform: Transform, where: str) -> None:
    with torch.no_grad():
        still = Affine.identity(transform.ndim)
        before, after = (float(energy(Alignment(problem.pair, each))) for each in (still, transform))
    require(after <= before + 1e-6, where, f"an objective of at most {before:.4g}, as without motion", f"{after:.4g}")
