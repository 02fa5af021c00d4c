"""The variational principle: its gradients are the paper's, its answers do not fold, and letters become letters."""

import math
import warnings
from dataclasses import replace

import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.errors import InputError
from pullback.methods.method import methods
from pullback.methods.pair.determinant_and_curl import controlled, inverse_by, poisson
from pullback.methods.pair.variational_principle import VariationalPrinciple
from pullback.numerics.difference import curl, divergence, least_determinant
from pullback.numerics.random import make_generator
from pullback.numerics.sample import sample, voxels
from pullback.numerics.smooth import gaussian
from pullback.solvers import Levels
from pullback.space import Affine, Grid, Image
from pullback.studies._letters import letter
from pullback.testing import check_register, problems
from pullback.testing.problems import PROBLEMS

ONE_LEVEL = Levels(coarsest=10**6)
QUICK = VariationalPrinciple(steps=40)
pytestmark = pytest.mark.filterwarnings("ignore:VariationalPrinciple")


# ---- gradients


def problem_of(ndim):
    """Two smooth images, and controls that move something."""
    shape = (14, 12) if ndim == 2 else (9, 8, 10)
    fixed, moving, f, *g = (
        gaussian(torch.randn(1, 1, *shape, dtype=torch.float64, generator=make_generator(n)), 1.5)
        for n in range(4 if ndim == 2 else 6)
    )
    return fixed, moving, 0.7 + f, 4 * torch.cat(g, 1)


def loss_of(fixed, moving, u):
    where = voxels(tuple(u.shape[2:]), u) + u
    return (sample(moving, where, padding="border") - fixed).square().sum() / 2


@pytest.mark.parametrize("ndim", [2, 3])
def test_gradients_are_those_of_the_paper(ndim):
    """∂L/∂F = b (2), ∂L/∂f̂ = −2 f̂ ∇·b and ∂L/∂g = −∇×b (4), where Δb = (m − I_f) (∇I_m)∘φ and b = 0 on the border.

    ∇I_m is the slope of the interpolant. Near the border the adjoint of one-sided differences is another.
    """
    fixed, moving, f, g = (one.requires_grad_() for one in problem_of(ndim))
    edges = (1.0,) * ndim
    u = controlled(0.5 + f.square(), g, edges)
    assert float(u.detach().abs().max()) > 0.3
    pull, to_f, to_g = torch.autograd.grad(loss_of(fixed, moving, u), (u, f, g))
    b = poisson(pull, edges)
    inside = (..., *[slice(2, -2)] * ndim)
    torch.testing.assert_close((-2 * f * divergence(b))[inside], to_f[inside], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(-curl(b)[inside], to_g[inside], rtol=1e-10, atol=1e-12)
    force = torch.zeros_like(u).requires_grad_()
    (to_force,) = torch.autograd.grad(loss_of(fixed, moving, u.detach() + poisson(force, edges)), force)
    torch.testing.assert_close(to_force, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("ndim", [2, 3])
def test_gradients_are_those_of_finite_differences(ndim):
    fixed, moving, f, g = problem_of(ndim)
    edges = (1.0,) * ndim

    def loss(f, g):
        return loss_of(fixed, moving, controlled(0.5 + f.square(), g, edges))

    slopes = torch.autograd.grad(loss(f.requires_grad_(), g.requires_grad_()), (f, g))
    ways = [torch.randn(one.shape, dtype=torch.float64, generator=make_generator(9)) for one in (f, g)]
    h = 1e-6
    with torch.no_grad():
        up, down = (float(loss(*(c + s * h * w for c, w in zip((f, g), ways, strict=True)))) for s in (1, -1))
    expected = sum(float((slope * way).sum()) for slope, way in zip(slopes, ways, strict=True))
    assert (up - down) / (2 * h) == pytest.approx(expected, rel=1e-5)


# ---- answers


@pytest.mark.parametrize("ndim", [2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", PROBLEMS)
def test_it_keeps_the_promises_of_a_register(name, ndim):
    (problem,) = problems(name, ndim=ndim)
    solves = name in methods()["variational-principle"].solves
    check_register(VariationalPrinciple(steps=40), problem, solves=solves, **({} if solves else {"rounding": math.inf}))


def blurred(n, shape, grid=None):
    data = gaussian(torch.rand(1, 1, *shape, generator=make_generator(n)), 2.0)
    return Image((data - data.min()) / (data.max() - data.min()), grid or Grid.centred(shape))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("controls", ["fg", "F"])
def test_no_answer_folds_and_the_border_stays(seed, controls):
    """Two images that have nothing in common; also between voxels, and on a grid of any kind."""
    shape = ((40, 36), (15, 14, 13))[seed % 2]
    grid = Grid.centred(shape, (1.0, 2.0, 1.5)[: len(shape)])
    fixed, moving = blurred(seed, shape, grid), blurred(seed + 10, shape, grid)
    found = VariationalPrinciple(controls=controls, steps=30)(fixed, moving)
    stages = found.transform.parts
    assert found.stats.numbers["stages"] == len(stages) >= 1
    for stage in stages:
        assert float(least_determinant(stage.field).min()) > 0.5
    assert float(found.jacobian.min()) > 0
    assert found.stats.numbers["least determinant"] == pytest.approx(float(found.jacobian.min()))
    u = found.transform.displacement(grid)
    for axis in range(2, u.ndim):
        assert float(u.select(axis, 0).abs().max()) < 1e-5
        assert float(u.select(axis, -1).abs().max()) < 1e-5
    assert found.stats.numbers["ratio"] < 0.9


def test_determinants_of_stages_multiply():
    """det ∇(φ₁ ∘ φ₂) = (det ∇φ₁) ∘ φ₂ · det ∇φ₂, but for interpolation; so a product of positive numbers."""
    fixed, moving = (letter(name, 64) for name in "VJ")
    found = VariationalPrinciple(levels=ONE_LEVEL, steps=12, floor=0.9)(fixed, moving)
    first, *others = found.transform.parts
    at, product = fixed.grid.voxels(torch.zeros(1, dtype=torch.float64))[None], 1.0
    for stage in (*reversed(others), first):
        product = product * sample(Alignment(found.pair, stage).jacobian.double(), at, padding="border")
        at = at + sample(stage.field.double(), at, padding="border")
    off = (product - found.jacobian).abs()
    assert len(others) >= 2
    assert float(off.mean()) < 0.1 * float((found.jacobian - 1).abs().mean())


def test_stages_go_on_from_a_start_and_images_may_lie_apart():
    fixed, moving = blurred(5, (40, 36)), blurred(5, (40, 36))
    moving = Image(gaussian(moving.data, 1.0), moving.grid)
    shift = torch.eye(3, dtype=torch.float64)
    shift[0, -1] = 50.0
    away = Image(moving.data, Grid(moving.grid.shape, shift @ moving.grid.affine))
    plain = QUICK(fixed, moving).transform
    found = QUICK(fixed, away, start=Affine(shift)).transform
    assert found.parts[0].as_affine is not None
    off = ((Affine(torch.linalg.inv(shift)) @ found).displacement(fixed.grid) - plain.displacement(fixed.grid)).abs()
    assert float(off.max()) < 0.02


def test_identical_images_stay():
    image = blurred(0, (30, 28))
    found = QUICK(image, image)
    assert not found.transform.displacement(image.grid).any()
    assert found.stats.numbers == {"ratio": 0.0, "least determinant": 1.0, "greatest determinant": 1.0, "stages": 0.0}


def test_a_batch_is_its_pairs_though_their_stages_differ_in_number():
    one, two = (blurred(6, (40, 36)), blurred(7, (40, 36))), (blurred(8, (40, 36)), blurred(8, (40, 36)))
    fixed, moving = (a.stack([b]) for a, b in zip(one, two, strict=True))
    found = QUICK(fixed, moving)
    assert found.batch == 2
    for n, (a, b) in enumerate((one, two)):
        alone = QUICK(a, b).transform
        off = found.transform.nth(n).displacement(fixed.grid) - alone.displacement(fixed.grid)
        assert float(off.abs().max()) < 1e-5


def test_the_descent_ends_where_it_was_asked_to():
    fixed, moving = letter("V", 64), letter("J", 64)
    found = VariationalPrinciple(ratio=0.2)(fixed, moving)
    far = VariationalPrinciple(ratio=0.05)(fixed, moving)
    assert 0.05 < found.stats.numbers["ratio"] <= 0.2
    assert far.stats.numbers["ratio"] <= 0.05
    assert found.stats.stopped == "converged"
    assert VariationalPrinciple(steps=3, levels=ONE_LEVEL)(fixed, moving).stats.steps == 3


def test_a_mask_says_where_to_look():
    """What it hides of the fixed image has no influence."""
    fixed, moving = blurred(6, (40, 36)), blurred(7, (40, 36))
    mask = torch.zeros(1, 1, 40, 36, dtype=torch.bool)
    mask[:, :, :20] = True
    other = torch.where(mask, fixed.data, 5.0)
    one, two = (
        VariationalPrinciple(steps=10, levels=ONE_LEVEL)(Image(data, fixed.grid, mask), moving).transform
        for data in (fixed.data, other)
    )
    torch.testing.assert_close(one.displacement(fixed.grid), two.displacement(fixed.grid))


# ---- bad input


@pytest.mark.parametrize("bad", [{"least": 0.0}, {"least": 1.0}, {"floor": 1.2}, {"controls": "f"}])
def test_numbers_that_cannot_be_are_refused(bad):
    with pytest.raises(InputError, match=r"between 0 and 1|controls are"):
        VariationalPrinciple(**bad)


def test_a_thin_image_is_refused():
    image = Image(torch.rand(1, 1, 3, 30), Grid.centred((3, 30)))
    with pytest.raises(InputError, match="4 voxels or more along each axis expected, the fixed image has 3×30"):
        VariationalPrinciple()(image, image)


def told(fixed, moving, register=QUICK):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        register(fixed, moving)
    return " ".join(str(one.message) for one in caught)


def test_it_tells_of_the_border_and_of_a_descent_that_stalled():
    fixed, moving = blurred(1, (30, 28)), blurred(2, (30, 28))
    assert "touches the border" in told(fixed, moving)
    padded = Image(torch.nn.functional.pad(fixed.data, [6] * 4), Grid.centred((42, 40)))
    other = replace(padded, data=padded.data.flip(2))
    assert "border" not in told(padded, other)
    assert "stalled" in told(padded, other, VariationalPrinciple(steps=1, levels=ONE_LEVEL, floor=0.99))


# ---- the paper's letters


@pytest.mark.slow
def test_j_becomes_v_and_back():
    """Table 1: ratio 0.0034, DICE 0.9657; table 2: DICE 0.9581. Brief on both: det above 0, round trip 0.02 voxel."""
    v, j = letter("V"), letter("J")
    found = VariationalPrinciple(ratio=0.0034)(v, j)
    assert found.stats.numbers["ratio"] <= 0.0034
    assert found.stats.numbers["least determinant"] > 0
    assert overlap(found.moved, v) > 0.985
    back = inverse_by(found.transform, v.grid)
    undone = Alignment(Pair(j, v), back)
    assert overlap(undone.moved, j) > 0.95
    assert float(undone.jacobian.min()) > 0
    trip = (back @ found.transform).displacement(v.grid).norm(dim=1)
    assert float(trip.mean()) < 0.02


def overlap(one, other):
    a, b = one.data >= 0.5, other.data >= 0.5
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


@pytest.mark.slow
def test_a_hole_is_closed_without_a_fold():
    """The disc becomes C: half of it is squeezed into nothing, on coarse levels, and still no voxel folds."""
    c, disc = letter("C"), letter("disc")
    found = VariationalPrinciple(ratio=0.02, steps=60)(c, disc)
    assert float(found.jacobian.min()) > 0
    assert overlap(found.moved, c) > 0.9


@pytest.mark.slow
def test_what_holds_the_map_together_is_the_floor():
    """Without it the same descent folds, though f ≥ 0.5 everywhere: J_min is no bound."""
    v, j = letter("V"), letter("J")
    free = VariationalPrinciple(floor=None, steps=100)(v, j)
    assert free.stats.numbers["stages"] == 3
    assert free.stats.numbers["least determinant"] < 0
