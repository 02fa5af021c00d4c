"""Problems are what they say, and a register that breaks a promise is found."""

from dataclasses import dataclass, replace

import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.energies import MSE
from pullback.errors import InputError
from pullback.methods.pair.classical import FAST, Classical
from pullback.methods.points.graph_propagation import GraphPropagation
from pullback.solvers import Levels
from pullback.space import Affine, Displacement, ThinPlate
from pullback.testing import BrokenContract, PointProblem, check_register, point_problems, problems


def truth_of(problem):
    """A register that knows the answer."""
    return lambda fixed, moving: Alignment(Pair(fixed, moving), problem.pair.truth)


@pytest.mark.parametrize("problem", [*problems(), *point_problems()], ids=str)
def test_the_truth_solves_a_problem_and_no_motion_does_not(problem):
    still = Affine.identity(3 if isinstance(problem, PointProblem) else problem.pair.fixed.grid.ndim)
    assert problem.distance(still) > 2 * problem.within or problem.name == "identity"


@pytest.mark.parametrize("problem", problems(), ids=str)
def test_the_truth_lays_one_image_on_the_other(problem):
    """To the error of linear interpolation; without motion it is several times as far."""
    if problem.batch == 1:
        assert check_register(truth_of(problem), problem) < 1e-9
    if problem.name in ("contrast", "identity"):
        return
    still = Affine.identity(problem.pair.fixed.grid.ndim)
    pair = problem.pair
    hidden = [image.mask for image in pair.images if image.mask is not None]
    off = [(Alignment(pair, each).moved.data - pair.fixed.data).abs()[problem.body] for each in (pair.truth, still)]
    if hidden:  # what the moving mask hides is seen at the body's other end
        seen = Alignment(pair, pair.truth).mask[problem.body]
        off = [each[seen] for each in off]
    assert float(off[0].mean()) < 0.4 * float(off[1].mean())


@pytest.mark.parametrize("problem", point_problems(), ids=str)
def test_the_truth_leads_fixed_points_to_moving_ones(problem):
    """Where they have partners: to the noise."""
    there, moving = problem.pair.truth.data[0], problem.pair.moving.data[0].double()
    nearest = torch.cdist(there, moving).min(1).values.sort().values
    assert float(nearest[: len(there) // 2].max()) < (1e-4 if problem.name != "noise" else 2.0)


(SHIFT,), (BATCH,) = (problems(name, ndim=2) for name in ("shift", "batch"))


def known(change):
    """The answer to the shift, changed."""
    return lambda fixed, moving: Alignment(Pair(fixed, moving), change(SHIFT.pair.truth))


class Forgetful:
    """It answers otherwise each time."""

    def __init__(self):
        self.calls = 0

    def __call__(self, fixed, moving):
        self.calls += 1
        return Alignment(Pair(fixed, moving), known(shifted(1e-3 * self.calls))(fixed, moving).transform)


def shifted(off):
    return lambda truth: Affine(truth.matrix + torch.tensor([[0, 0, off], [0, 0, 0], [0, 0, 0]], dtype=torch.float64))


def field(value):
    return lambda truth: Displacement(torch.full((1, 2, *SHIFT.pair.fixed.grid.shape), value), SHIFT.pair.fixed.grid)


def careless(fixed, moving):
    fixed.data.mul_(0.5)
    return known(lambda truth: truth)(fixed, moving)


def rounding(fixed, moving):
    return known(shifted(0.7 if fixed.data.dtype == torch.float64 else 0.0))(fixed, moving)


def refusing(fixed, moving):
    raise InputError("nothing to be seen")


@dataclass(frozen=True, eq=False)
class Retouched(Alignment):
    """What was moved is not the moving image alone."""

    @property
    def moved(self):
        plain = super().moved
        return replace(plain, data=plain.data + 0.1)


MISTAKES = {
    "from the truth": known(lambda truth: truth.inverse()),
    "from the truth.*3.66 mm": known(lambda truth: Affine.identity(2)),
    "finite": known(field(float("nan"))),
    "the same answer each time": Forgetful(),
    "inputs that stay as they are": careless,
    "float64": rounding,
    "an answer was promised": refusing,
    "`moved`": lambda fixed, moving: Retouched(Pair(fixed, moving), SHIFT.pair.truth),
}


@pytest.mark.parametrize("promise", MISTAKES)
def test_a_mistake_is_found(promise):
    with pytest.raises(BrokenContract, match=promise):
        check_register(MISTAKES[promise], SHIFT)


@pytest.mark.slow
def test_images_swapped_are_found():
    register = Classical(None, FAST.linear[:1], None)
    assert check_register(register, SHIFT) < SHIFT.within
    with pytest.raises(BrokenContract, match="from the truth"):
        check_register(lambda fixed, moving: register(moving, fixed), SHIFT)


@pytest.mark.slow
def test_a_level_left_out_is_found():
    """Small steps reach so far from coarse to fine alone."""
    short = replace(FAST.deformable, levels=Levels(coarsest=10), solver=replace(FAST.deformable.solver, step_size=0.1))
    assert check_register(Classical(None, (), short), SHIFT) < SHIFT.within
    with pytest.raises(BrokenContract, match="from the truth"):
        check_register(Classical(None, (), replace(short, levels=Levels(coarsest=1000))), SHIFT)


def test_a_batch_that_is_not_as_each_alone_is_found_and_one_that_is_refused_is_not():
    def first(fixed, moving):
        return Alignment(
            Pair(fixed, moving), BATCH.pair.truth.nth(0).stack([BATCH.pair.truth.nth(0)] * (fixed.batch - 1))
        )

    def alone(fixed, moving):
        which = int(not torch.equal(fixed.data[:1], BATCH.pair.fixed.data[:1].to(fixed.data)))
        whole = first(fixed, moving)
        return whole if fixed.batch == 2 else replace(whole, transform=BATCH.pair.truth.nth(which))

    def one(fixed, moving):
        if fixed.batch > 1:
            raise ValueError(f"one pair expected, got {fixed.batch}")
        return alone(fixed, moving)

    with pytest.raises(BrokenContract, match="pair 1 of the batch"):
        check_register(alone, BATCH, solves=False)
    assert check_register(one, BATCH, solves=False) == float("inf")


def test_an_objective_that_rises_is_found():
    with pytest.raises(BrokenContract, match="an objective of at most"):
        check_register(known(lambda truth: truth.inverse()), SHIFT, solves=False, energy=MSE())
    check_register(known(lambda truth: truth), SHIFT, energy=MSE())


def test_clouds_swapped_or_left_are_found():
    (problem,) = point_problems("smooth")
    register = GraphPropagation()
    for wrong in (
        lambda pair: register(replace(pair, fixed=pair.moving, moving=pair.fixed)),
        lambda pair: ThinPlate.between(pair.fixed, pair.fixed),
    ):
        with pytest.raises(BrokenContract, match="from the truth"):
            check_register(wrong, problem)


def test_names_of_problems_are_known():
    with pytest.raises(InputError, match=r"no problem 'shfit'.*did you mean 'shift'"):
        problems("shfit")
