"""Fields that are known, found from coarse to fine."""

import itertools

import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.energies import LNCC, MSE, Diffusion
from pullback.numerics.random import make_generator
from pullback.solvers import Converged, DeformableStage, Descend, InstanceOptimisation, Levels
from pullback.space import Affine, BSpline, Composite, Displacement, Grid, Image, Velocity, placed, pull

SHAPES = {2: (36, 34), 3: (28, 30, 26)}
KINDS = {"velocity": (Velocity, 1), "displacement": (Displacement, 1), "spline": (BSpline, 3)}
ENERGY = LNCC(7) + 0.3 * Diffusion()


def quick(name: str = "velocity", **other) -> DeformableStage:
    """Small images: two levels."""
    kind, ratio = KINDS[name]
    return DeformableStage(
        **{"energy": ENERGY, "kind": kind, "draft": kind, "ratio": ratio, "levels": Levels(coarsest=12), "steps": (40,)}
        | other
    )


def small_affine(ndim: int, seed: int = 3) -> Affine:
    matrix = torch.eye(ndim + 1, dtype=torch.float64)
    matrix[:-1, :-1] += 0.08 * torch.randn(ndim, ndim, dtype=torch.float64, generator=make_generator(seed))
    matrix[:-1, -1] = 1.5
    return Affine(matrix)


@pytest.fixture(scope="module")
def scene(waves, oblique, smooth_field):
    """A textured image of the moving world, and the fixed one, which sees it through a field (and a linear map)."""

    def make(ndim: int, linear: Affine | None = None):
        shape = SHAPES[ndim]
        grid = oblique(shape, 2, 1.0, 1.3)
        outer = linear or Affine.identity(ndim)
        truth = outer @ Velocity(smooth_field(shape, 5, amplitude=2.0, shortest=24), grid)
        around = placed(Image(torch.zeros(1, 1, *shape), grid), outer.inverse()).grid.affine  # where the truth looks
        affine = around.clone()
        affine[:-1, -1] -= around[:-1, :-1] @ torch.full((ndim,), 3.0, dtype=torch.float64)
        affine[:-1, :-1] *= 0.93
        other = Grid(tuple(n + 10 for n in shape), affine)
        value = waves(ndim, 1, 7.0, count=12)
        world = grid.to_world(grid.voxels(affine)[None])
        seen = truth.at(world)
        fixed = Image((0.5 + value(seen)).float(), grid)
        moving = Image((0.5 + value(other.to_world(other.voxels(affine)[None]))).float(), other)
        return fixed, moving, truth

    return make


def end_point_error(found, truth, grid: Grid) -> float:
    """Mean, in voxels, three voxels from the border on."""
    core = (slice(None), slice(None), *[slice(3, -3)] * grid.ndim)
    difference = found.displacement(grid).double() - truth.displacement(grid)
    return float(difference[core].norm(dim=1).mean())


@pytest.mark.slow
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("name", KINDS)
def test_a_smooth_field_is_found(scene, ndim, name):
    """Between different grids: more than half of the error goes, the energy falls, and velocities do not fold."""
    fixed, moving, truth = scene(ndim)
    answer = quick(name)(fixed, moving)
    before = end_point_error(Affine.identity(ndim), truth, fixed.grid)
    assert isinstance(answer, Alignment)
    assert before > 0.6
    assert end_point_error(answer.transform, truth, fixed.grid) < 0.5 * before
    start = Alignment(answer.pair, Displacement.identity(fixed.grid, fixed.data))
    assert LNCC(7)(answer) < 0.5 * LNCC(7)(start)
    if name == "velocity":
        assert float(answer.jacobian.min()) > 0
    assert isinstance(answer.transform, Composite)
    assert isinstance(answer.transform.inner, KINDS[name][0])
    assert not answer.transform.inner.field.requires_grad


@pytest.mark.slow
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_linear_start_is_kept_and_the_field_found_within_it(scene, ndim):
    linear = small_affine(ndim)
    fixed, moving, truth = scene(ndim, linear)
    answer = quick()(fixed, moving, start=linear).transform
    torch.testing.assert_close(answer.outer.matrix, linear.matrix)
    before = end_point_error(linear, truth, fixed.grid)
    assert end_point_error(answer, truth, fixed.grid) < 0.5 * before


@pytest.mark.parametrize("ndim", [2, 3])
def test_to_lay_the_grid_elsewhere_is_to_move_the_image(scene, ndim):
    """pull(placed(m, A), id) = pull(m, A): the voxels are the same."""
    fixed, moving, _ = scene(ndim)
    linear = small_affine(ndim, 8)
    there = placed(moving, linear)
    assert there.data is moving.data
    expected = pull(moving, linear, onto=fixed)
    torch.testing.assert_close(pull(there, Affine.identity(ndim), onto=fixed).data, expected.data)
    masked = placed(Image(moving.data, moving.grid, moving.data > 0.5), linear)
    assert torch.equal(masked.mask, moving.data > 0.5)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_linear_start_is_a_moving_image_that_lies_there(scene, ndim):
    linear = small_affine(ndim)
    fixed, moving, _ = scene(ndim, linear)
    solver = quick(steps=(5,))
    one = solver(fixed, moving, start=linear).transform
    two = solver(fixed, placed(moving, linear)).transform
    torch.testing.assert_close(one.inner.field, two.inner.field)
    torch.testing.assert_close(one.displacement(fixed.grid), (linear @ two).displacement(fixed.grid), atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_field_as_a_start_is_refined(scene, ndim):
    """Half the way as a start; its kind, grid and linear part are kept, and its energy falls."""
    linear = small_affine(ndim)
    fixed, moving, truth = scene(ndim, linear)
    half = truth.inner.with_params((0.5 * truth.inner.field).float())
    for start in (linear @ half, linear @ Displacement(half.own_displacement, half.grid)):
        answer = quick()(fixed, moving, start=start)
        assert type(answer.transform.inner) is type(start.inner)
        assert answer.transform.inner.grid == half.grid
        assert torch.equal(answer.transform.outer.matrix, linear.matrix)
        pair = Pair(fixed, moving)
        assert LNCC(7)(answer) < 0.7 * LNCC(7)(Alignment(pair, start))
        assert end_point_error(answer.transform, truth, fixed.grid) < 0.6 * end_point_error(start, truth, fixed.grid)


@pytest.mark.parametrize("ndim", [2, 3])
def test_without_steps_every_start_comes_back(scene, smooth_field, ndim):
    """Also those that are neither linear nor linear ∘ field: as a displacement on the fixed grid."""
    fixed, moving, truth = scene(ndim, small_affine(ndim))
    field, linear = truth.inner, truth.outer
    idle = quick(steps=(0,))
    for start in (None, linear, field, truth, field @ linear, field @ field):
        found = idle(fixed, moving, start=start).transform
        expected = (start or Affine.identity(ndim)).displacement(fixed.grid).float()
        torch.testing.assert_close(found.displacement(fixed.grid).float(), expected, rtol=0, atol=1e-3)


def test_what_a_mask_hides_is_not_matched(scene):
    """Noise in the right half of the fixed image, hidden: its field stays small there, and the left half is found."""
    fixed, moving, truth = scene(2)
    noisy, mask = fixed.data.clone(), torch.ones_like(fixed.data, dtype=torch.bool)
    noisy[..., 20:] = torch.rand(noisy[..., 20:].shape, generator=make_generator(1))
    mask[..., 20:] = False
    answer = quick(levels=Levels(coarsest=30), energy=LNCC(7) + 0.3 * Diffusion())(
        Image(noisy, fixed.grid, mask), moving
    )
    error = (answer.transform.displacement(fixed.grid) - truth.displacement(fixed.grid)).norm(dim=1)[0]
    start = truth.displacement(fixed.grid).norm(dim=1)[0]
    assert float(error[3:-3, 3:16].mean()) < 0.5 * float(start[3:-3, 3:16].mean())


def test_the_steps_belong_to_the_last_levels(scene):
    """Coarse to fine; the first number serves all coarser levels."""
    fixed, moving, _ = scene(2)
    taken = []

    def watched(values):
        taken.append(len(values))
        return False

    solver = DeformableStage(
        MSE() + Diffusion(), levels=Levels(coarsest=4), steps=(3, 2, 1), solver=Descend(step_size=0.01, until=watched)
    )
    solver(fixed, moving)
    ends = [n for n, following in itertools.pairwise([*taken, 1]) if following <= n]
    assert ends == [3, 3, 2, 1][-len(Levels(coarsest=4).of(fixed.grid)) :]
    assert len(ends) == 4


def test_the_same_call_gives_the_same_bits_and_changes_nothing(scene):
    fixed, moving, _ = scene(3)
    before = [image.data.clone() for image in (fixed, moving)]
    one, two = (quick(steps=(5,))(fixed, moving).transform.inner.field for _ in range(2))
    assert torch.equal(one, two)
    assert all(torch.equal(a, image.data) for a, image in zip(before, (fixed, moving), strict=True))


def test_a_descent_that_has_settled_ends(scene):
    fixed, _, _ = scene(2)
    calls = []
    settled = Converged()
    solver = Descend(step_size=0.1, until=lambda values: calls.append(0) or settled(values))
    answer = quick(steps=(200,), solver=solver)(fixed, fixed)
    assert len(calls) <= 2 * 31, "two levels of identical images: nothing to gain, three windows each"
    assert float(answer.transform.displacement(fixed.grid).abs().max()) < 0.05


def test_pairs_of_a_batch_move_by_themselves():
    """Two pairs, moved to either side: each has its own field, as if it were alone."""
    x = torch.arange(24.0)
    blob = torch.exp(-((x[:, None] - 11.5) ** 2 + (x[None] - 11.5) ** 2) / 18)[None, None]
    grid = Grid.centred((24, 24))
    fixed = Image(torch.cat([blob, blob]), grid)
    moving = Image(torch.cat([blob.roll(2, 2), blob.roll(-2, 2)]), grid)
    solver = InstanceOptimisation(MSE() + 0.001 * Diffusion(), Descend(60, 0.1))
    for register in (solver, DeformableStage(MSE() + 0.001 * Diffusion(), kind=Displacement)):
        field = register(fixed, moving).transform.displacement(grid)
        assert field.shape == (2, 2, 24, 24)
        assert [float(each[0, 11:13, 11:13].mean()) for each in field] == pytest.approx([2, -2], abs=0.7)
