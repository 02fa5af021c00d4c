"""Flows and geodesics as transforms: against velocities and matrix exponentials, there and back, descended."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from pullback.alignment import Alignment, Pair
from pullback.energies import MSE, Kinetic
from pullback.errors import InputError
from pullback.numerics.difference import determinant, jacobian
from pullback.numerics.integrate import compose, euler, midpoint
from pullback.numerics.kernel import Gaussian, Sobolev
from pullback.numerics.random import make_generator
from pullback.numerics.sample import voxels
from pullback.solvers import DeformableStage, Descend, Levels
from pullback.space import Flow, Geodesic, Grid, Image, Points, Velocity, push

SHAPES = [(24, 20), (16, 14, 15)]
every_shape = pytest.mark.parametrize("shape", SHAPES)
KERNEL = Sobolev(9.0, 3, unit="mm")


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=make_generator(seed))


def smooth(grid, largest, seed=0, batch=1, kernel=KERNEL):
    """A velocity that the kernel makes of noise, at most `largest` voxels."""
    velocity = kernel.smooth(noise(batch, grid.ndim, *grid.shape, seed=seed), grid.spacing.tolist())
    return velocity * largest / velocity.abs().max()


def linear(matrix, shape):
    middle = (torch.tensor(shape, dtype=torch.float64) - 1) / 2
    offset = voxels(shape, middle) - middle.view(-1, *[1] * len(shape))
    return torch.einsum("ab,b...->a...", torch.as_tensor(matrix), offset)[None]


def blob(grid, centre, radii):
    """A soft ellipsoid, `(1, 1, *shape)`, by voxels."""
    axes = torch.tensor(radii).view(-1, *[1] * grid.ndim)
    off = (grid.voxels(torch.zeros(1)) - torch.tensor(centre).view(axes.shape)) / axes
    return Image(torch.sigmoid(6 * (1 - off.norm(dim=0)))[None, None], grid)


@every_shape
def test_one_piece_is_a_velocity_to_the_bit(shape):
    grid = Grid.centred(shape)
    field = smooth(grid, 1.5)
    assert torch.equal(Flow(field, grid, 1, 7).own_displacement, Velocity(field, grid).own_displacement)


@every_shape
@pytest.mark.parametrize("way", [{"squarings": 4}, {"squarings": 0, "scheme": midpoint}])
def test_pieces_that_are_alike_are_one_velocity(shape, way, smooth_field):
    """To 0.06 voxels, of which each squaring of the velocity, resampling linearly, has its share."""
    grid, field = Grid.centred(shape), smooth_field(shape, seed=3, amplitude=1.5)
    ours = Flow((field / 8).repeat(8, *[1] * (grid.ndim + 1)), grid, 8, **way)
    assert (ours.own_displacement - Velocity(field, grid).own_displacement).abs().max() < 0.06
    torch.testing.assert_close(ours.motion_on(grid)[0], field.expand(8, *field.shape))


@every_shape
def test_pieces_are_composed_from_left_to_right(shape):
    d, rng = len(shape), np.random.default_rng(0)
    a, b = 0.12 * rng.normal(size=(2, d, d))
    grid, pieces = Grid.centred(shape), torch.cat([linear(m, shape) for m in (a, b)])
    near = (..., *[slice(n // 2 - 2, n // 2 + 3) for n in shape])
    products = [x @ y - np.eye(d) for x, y in ((expm(a), expm(b)), (expm(b), expm(a)))]
    expected, wrong = (linear(m, shape)[near] for m in products)
    ours = Flow(pieces, grid, 2, 7).own_displacement[near]
    torch.testing.assert_close(ours, expected, rtol=0, atol=5e-3)
    assert (ours - wrong).abs().max() > 0.03
    steps = linear((np.eye(d) + a) @ (np.eye(d) + b) - np.eye(d), shape)[near]
    torch.testing.assert_close(Flow(pieces, grid, 2, 0).own_displacement[near], steps, rtol=0, atol=1e-10)


@every_shape
def test_to_first_order_a_geodesic_is_the_velocity_it_sets_out_with(shape):
    grid, differences = Grid.centred(shape, [1.0, 1.4, 0.8][: len(shape)]), []
    for size in (1.0, 0.5):
        field = smooth(grid, size)
        ours = Geodesic(field, grid, KERNEL, 5).own_displacement
        differences.append(float((ours - Velocity(field, grid).own_displacement).abs().max()))
        assert (ours - field).abs().max() < 0.4 * size
    assert differences[0] / differences[1] >= 3.5  # of second order in the velocity's size


def kinds(grid):
    field = smooth(grid, 1.5)
    pieces = torch.cat([smooth(grid, 0.4, seed) for seed in range(4)])
    return {
        "flow": Flow(pieces, grid, 4, 2),
        "flow, midpoint": Flow(pieces, grid, 4, 0, midpoint),
        "geodesic": Geodesic(field, grid, KERNEL, 8),
        "geodesic, euler": Geodesic(field, grid, KERNEL, 8, euler),
    }


@every_shape
def test_there_and_back_is_where_one_was(shape, oblique):
    """Largest residual in voxels, of what moves by 1 to 1.5; the tolerances are twice what was measured."""
    grid = oblique(shape, seed=1)
    within = {"flow": 0.06, "flow, midpoint": 0.04, "geodesic": 0.15, "geodesic, euler": 0.3}
    for name, there in kinds(grid).items():
        back = there.inverse()
        assert type(back) is type(there)
        residuals = [compose(a.own_displacement, b.own_displacement) for a, b in ((there, back), (back, there))]
        assert there.own_displacement.abs().max() > 0.6
        assert max(float(r.abs().max()) for r in residuals) < within[name], name
        again = back.inverse()
        assert (again.field - there.field).norm() < 0.1 * there.field.norm(), name
        points = Points(grid.to_world(0.4 * grid.voxels(there.field)[None] + 4).flatten(2).mT)
        home = push(push(points, there), back)
        assert (home.data - points.data).norm(dim=-1).max() < 2 * within[name], name


@every_shape
def test_pieces_not_turned_round_are_no_way_back(shape):
    grid = Grid.centred(shape)
    there = Flow(torch.cat([smooth(grid, 1.0, seed) for seed in range(3)]), grid, 3, 2, midpoint)
    back, wrong = there.inverse(), Flow(-there.field, grid, 3, 2, midpoint)
    right, off = (float(compose(there.own_displacement, t.own_displacement).abs().mean()) for t in (back, wrong))
    assert right < 0.4 * off


@every_shape
def test_a_geodesics_way_is_a_flow_that_ends_where_it_does(shape):
    grid = Grid.centred(shape)
    geodesic = Geodesic(smooth(grid, 1.5), grid, KERNEL, 6)
    way = geodesic.flow
    assert torch.equal(way.own_displacement, geodesic.own_displacement)
    torch.testing.assert_close(Flow(way.field, grid, 6, 0, midpoint).own_displacement, way.own_displacement)
    velocities, _ = way.motion_on(grid)
    lengths = [float((v * KERNEL.sharpen(v, [1.0] * len(shape))).sum()) for v in velocities]
    assert max(lengths) / min(lengths) < 1.12  # what linear interpolation takes: see test_epdiff.py
    assert (velocities[0] - geodesic.field).abs().max() < 0.2
    assert (determinant(jacobian(way.own_displacement)) > 0).all()


@every_shape
def test_batches_are_each_as_alone(shape):
    grid = Grid.centred(shape)
    fields = [smooth(grid, 1.0, seed) for seed in range(6)]
    one, two = (torch.cat(fields[n::2]) for n in (0, 1))
    both = Flow(torch.stack([one, two], 1).flatten(0, 1), grid, 3)
    pair = Geodesic(torch.cat(fields[:2]), grid, KERNEL, 3)
    for ours, alone in (
        (both, [Flow(f, grid, 3) for f in (one, two)]),
        (pair, [Geodesic(f, grid, KERNEL, 3) for f in fields[:2]]),
    ):
        assert ours.batch == 2
        for n in range(2):
            expected = alone[n].own_displacement
            torch.testing.assert_close(ours.own_displacement[n : n + 1], expected, rtol=0, atol=1e-12)
            torch.testing.assert_close(ours.inverse().own_displacement[n : n + 1], alone[n].inverse().own_displacement)
            torch.testing.assert_close(ours.nth(n).own_displacement, expected, rtol=0, atol=1e-12)
            assert ours.nth(n).batch == 1
        assert torch.equal(alone[0].stack(alone[1:]).field, ours.field)
        assert (ours.ndim, ours.parts, ours.grids) == (grid.ndim, (ours,), (grid,))


@every_shape
def test_parameters_make_it_again(shape, oblique):
    grid = oblique(shape, seed=2)
    for kernel in (KERNEL, Sobolev(0.01, 2, 0.1, "side"), Gaussian((3.0, 0.3), (1.0, 0.02))):
        geodesic = Geodesic(smooth(grid, 1.5, kernel=kernel), grid, kernel, 3)
        again = geodesic.with_params(*geodesic.params)
        torch.testing.assert_close(again.field, geodesic.field, rtol=0, atol=1e-4)
        even = torch.zeros_like(geodesic.field)
        even[(..., *[slice(3, -3)] * grid.ndim)] = 1.0
        moved = geodesic.with_params(even).field  # a momentum of 1 wherever it is smooth moves voxels by up to 1
        assert 0.2 < float(moved.abs().max()) < 1.5
    flow = Flow(smooth(grid, 1.0, batch=4), grid, 2, 3, midpoint)
    assert flow.with_params(*flow.params).field is flow.field
    assert flow.with_params(2 * flow.field).squarings == 3


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(5, 6), (4, 5, 4)])
@pytest.mark.parametrize("frugal", [True, False])
def test_gradients(shape, frugal):
    grid, kernel = Grid.centred(shape), Sobolev(1, 2)
    pieces = (0.4 + 0.1 * noise(4, grid.ndim, *shape)).requires_grad_()  # none is still: on voxels samples have kinks
    field = smooth(grid, 0.6, kernel=kernel).requires_grad_()
    weights = noise(2, grid.ndim, *shape, seed=3)
    check = partial(torch.autograd.gradcheck, eps=1e-7, atol=1e-4, fast_mode=True)
    for way in ({"squarings": 1}, {"squarings": 0, "scheme": midpoint}):
        assert check(
            lambda f, way=way: (Flow(f, grid, 2, **way, frugal=frugal).own_displacement * weights).sum(), pieces
        )
    assert check(lambda f: (Geodesic(f, grid, kernel, 2, frugal=frugal).own_displacement * weights).sum(), field)
    assert check(lambda f: (Geodesic(f, grid, kernel, 2, frugal=frugal).inverse().field * weights).sum(), field)


def test_computed_again_it_is_the_same_to_the_bit():
    grid = Grid.centred((12, 14))
    for kind, field in (
        (partial(Flow, pieces=3), smooth(grid, 1.0, batch=3)),
        (partial(Geodesic, kernel=KERNEL, steps=3), smooth(grid, 1.0)),
    ):
        gradients = []
        for frugal in (True, False):
            f = field.clone().requires_grad_()
            gradients.append(torch.autograd.grad(kind(f, grid, frugal=frugal).own_displacement.square().sum(), f)[0])
        assert torch.equal(*gradients)


@every_shape
def test_on_a_finer_grid_it_is_the_same_motion(shape):
    """Of the world: to the error of what is linear between the coarse grid's voxels."""
    grid = Grid.centred(shape, [1.0, 1.4, 0.8][: len(shape)])
    fine = grid.between_ends(tuple(2 * n - 1 for n in shape))
    geodesic = Geodesic(smooth(grid, 1.5), grid, KERNEL, 5)
    carried = geodesic.on(fine)
    assert carried.grid == fine
    torch.testing.assert_close(carried.on(grid).field, geodesic.field, rtol=0, atol=1e-12)
    assert (carried.displacement(grid) - geodesic.own_displacement).abs().max() < 0.06
    image = Image(torch.zeros(1, 1, *shape), grid)
    energies = [float(Kinetic(KERNEL)(Alignment(Pair(image, image), t))) for t in (geodesic, carried)]
    assert energies[1] == pytest.approx(
        energies[0], rel=0.35
    )  # the border's share of the voxels, and the stencil's error
    flow = Flow(smooth(grid, 0.5, batch=3), grid, 3)
    assert (flow.on(fine).displacement(grid) - flow.own_displacement).abs().max() < 0.06


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "centres"), [((28, 26), ((12.0, 14.0), (16.0, 11.0))), ((16, 15, 14), ((7.0, 8.0, 7.0), (9.0, 6.0, 6.0)))]
)
@pytest.mark.parametrize(
    "kernel", [Sobolev(4, 2), Sobolev(0.01, 4, unit="side"), Gaussian((4.0, 0.7), (1.0, 0.1))], ids=repr
)
def test_a_descent_on_a_geodesic_aligns_two_shapes(shape, centres, kernel):
    """By plain steps of a quarter voxel, whatever the kernel's order: its momentum is what is moved."""
    grid, d = Grid.centred(shape), len(shape)
    size = min(shape) / 26
    radii = [7.0 * size, 5.0 * size, 6.0 * size][:d], [4.5 * size, 6.5 * size, 6.0 * size][:d]
    pair = Pair(*(blob(grid, centre, radius) for centre, radius in zip(centres, radii, strict=True)))
    start = Geodesic(torch.zeros(1, d, *shape), grid, kernel, 2)
    energy = MSE() + 1e-4 * Kinetic(kernel)
    found, _ = Descend(14, 0.3)(energy.on(pair), start)
    before, after = (float(MSE()(Alignment(pair, t))) for t in (start, found))
    assert after < 0.35 * before
    assert float(Alignment(pair, found).jacobian.min()) > 0


@pytest.mark.slow
def test_lddmm_is_a_deformed_of_another_kind():
    """From coarse to fine, with the kernel in mm: what it costs does not depend on the level."""
    grid = Grid.centred((48, 44), 1.5)
    pair = Pair(blob(grid, (21.0, 24.0), (12.0, 8.0)), blob(grid, (26.0, 20.0), (8.0, 11.0)))
    kernel = Sobolev(16.0, 3, unit="mm")
    lddmm = DeformableStage(
        MSE() + 1e-5 * Kinetic(kernel),
        kind=partial(Geodesic, kernel=kernel, steps=3),
        levels=Levels(coarsest=20),
        steps=(16, 6),
        solver=Descend(step_size=0.3),
    )
    found = lddmm(pair.fixed, pair.moving)
    assert float(MSE()(found)) < 0.1 * float(MSE()(Alignment(pair, Velocity(torch.zeros(1, 2, 48, 44), grid))))
    assert float(found.jacobian.min()) > 0


@pytest.mark.parametrize("wrong", [{"pieces": 0}, {"pieces": 4}, {"squarings": -1}])
def test_what_is_no_flow_is_refused(wrong):
    with pytest.raises(InputError, match="Flow"):
        Flow(torch.zeros(6, 2, 5, 6), Grid.centred((5, 6)), **{"pieces": 3, **wrong})


def test_what_is_no_geodesic_is_refused():
    grid = Grid.centred((5, 6))
    with pytest.raises(InputError, match="Geodesic"):
        Geodesic(torch.zeros(1, 2, 5, 6), grid, KERNEL, 0)
    for kind in (Flow, partial(Geodesic, kernel=KERNEL)):
        with pytest.raises(ValueError, match="the field must be"):
            kind(torch.zeros(8, 2, 5, 7), grid)
