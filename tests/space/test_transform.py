"""Transforms on points: closed forms, composition, inverses, parameters."""

import math

import pytest
import torch

from pullback.space import Affine, BSpline, Composite, Displacement, Grid, Transform, Velocity, inverted

SHAPES = [(14, 12), (12, 10, 11)]


def affine(ndim, seed=0, scale=0.15, shift=1.0):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.eye(ndim + 1, dtype=torch.float64)
    matrix[:-1, :-1] += scale * torch.randn(ndim, ndim, dtype=torch.float64, generator=generator)
    matrix[:-1, -1] = shift * torch.randn(ndim, dtype=torch.float64, generator=generator)
    return Affine(matrix)


def cloud(ndim, count=20, reach=3.0, batch=1, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return reach * (2 * torch.rand(batch, count, ndim, dtype=torch.float64, generator=generator) - 1)


def test_affine_by_hand():
    quarter = Affine(torch.tensor([[0.0, -1, 10], [1, 0, 20], [0, 0, 1]], dtype=torch.float64))
    points = torch.tensor([[1.0, 0], [0, 1], [2, 3]], dtype=torch.float64)
    expected = torch.tensor([[10.0, 21], [9, 20], [7, 22]], dtype=torch.float64)
    torch.testing.assert_close(quarter(points), expected)
    torch.testing.assert_close(quarter(points[None]), expected[None])
    torch.testing.assert_close(quarter.inverse()(expected), points)
    four = quarter @ quarter @ quarter @ quarter  # about its fixed point
    torch.testing.assert_close(four(points), points)


@pytest.mark.parametrize("ndim", [2, 3])
def test_affines_compose_to_an_affine(ndim):
    a, b, points = affine(ndim, 1), affine(ndim, 2), cloud(ndim)
    assert isinstance(a @ b, Affine)
    torch.testing.assert_close((a @ b)(points), a(b(points)))
    torch.testing.assert_close((a @ a.inverse())(points), points)
    torch.testing.assert_close(Affine.identity(ndim)(points), points)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_batch_of_affines_moves_a_batch_of_points(ndim):
    one, two = affine(ndim, 1), affine(ndim, 2)
    both = Affine(torch.stack([one.matrix, two.matrix]))
    points = cloud(ndim, batch=2)
    expected = torch.cat([one(points[:1]), two(points[1:])])
    torch.testing.assert_close(both(points), expected)
    torch.testing.assert_close(both(points[0]), torch.cat([one(points[:1]), two(points[:1])]))
    torch.testing.assert_close(both.inverse()(expected), points)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_displacement_moves_its_voxels_by_its_field(oblique, smooth_field, shape):
    grid = oblique(shape, seed=2)
    field = smooth_field(shape, seed=1, amplitude=1.5, fade=False)
    transform = Displacement(field, grid)
    where = grid.voxels(field)[None]
    moved = transform(grid.to_world(where).flatten(2).mT)
    linear = grid.affine[:-1, :-1]
    expected = grid.to_world(where) + torch.einsum("ab,nb...->na...", linear, field)
    torch.testing.assert_close(moved, expected.flatten(2).mT, rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_displacement_on_another_grid_is_the_same_motion_of_the_world(oblique, smooth_field, shape):
    transform = Displacement(smooth_field(shape, seed=1, amplitude=1.5), oblique(shape, seed=2))
    other = oblique(tuple(n - 3 for n in shape), seed=9)
    where = other.voxels(transform.field)[None]
    moved = other.to_world(where + transform.displacement(other)).flatten(2).mT
    torch.testing.assert_close(moved, transform(other.to_world(where).flatten(2).mT))
    assert transform.displacement(other).abs().max() > 0.5


@pytest.mark.parametrize("kind", [Displacement, Velocity])
def test_beyond_its_grid_a_field_moves_nothing(kind):
    grid = Grid.centred((6, 7), 2.0)
    transform = kind(torch.ones(1, 2, 6, 7, dtype=torch.float64), grid)
    far = torch.tensor([[100.0, 0], [0, -50], [2.0 * 3.6, 0]], dtype=torch.float64)  # a voxel and more beyond
    torch.testing.assert_close(transform(far), far)
    assert (transform(torch.zeros(1, 2, dtype=torch.float64)) - 2).abs().max() < 1e-9


def test_parameters_can_be_changed_and_nothing_else_is():
    grid = Grid.centred((5, 6))
    field = torch.rand(1, 2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = Composite(affine(2), Velocity(field, grid, squarings=3))
    assert len(whole.params) == 2
    doubled = whole.with_params(*(2 * p for p in whole.params))
    assert isinstance(doubled, Composite)
    assert isinstance(doubled.inner, Velocity)
    assert doubled.inner.squarings == 3
    torch.testing.assert_close(doubled.inner.field, 2 * field)
    torch.testing.assert_close(doubled.outer.matrix[:2], 2 * whole.outer.matrix[:2])
    torch.testing.assert_close(doubled.outer.matrix[2], torch.tensor([0, 0, 1], dtype=torch.float64))
    torch.testing.assert_close(whole.inner.field, field)
    again = whole.inner.with_params(torch.zeros_like(field))
    assert not again.own_displacement.any()  # not the integral of the old velocity


@pytest.mark.parametrize("kind", [Displacement, Velocity])
@pytest.mark.parametrize("wrong", [(1, 2, 5, 7), (1, 3, 5, 6), (2, 5, 6)])
def test_a_field_must_fit_its_grid(kind, wrong):
    with pytest.raises(ValueError, match=f"{kind.__name__}: the field must be"):
        kind(torch.zeros(wrong), Grid.centred((5, 6)))


def test_gradients_reach_the_parameters():
    grid = Grid.centred((5, 6))
    matrix = affine(2).matrix.requires_grad_()
    field = torch.zeros(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    points = cloud(2, reach=1.5)
    assert torch.autograd.gradcheck(lambda m, f: (Affine(m) @ Displacement(f, grid))(points), (matrix, field))
    (slope,) = torch.autograd.grad(Affine(matrix)(points)[..., 0].sum(), matrix)
    assert float(slope[0, -1]) == pytest.approx(points.shape[1])
    assert math.isclose(float(slope[0, 0]), float(points[..., 0].sum()))


DENSE = [Displacement, Velocity, BSpline]


def relative(grid, steps, first, shape):
    """A grid of the same or opposite axes: its voxels `steps` of `grid` long (negative: opposite), from `first` on."""
    affine = grid.affine.clone()
    affine[:-1, -1] += affine[:-1, :-1] @ torch.tensor(first, dtype=torch.float64)
    affine[:-1, :-1] *= torch.tensor(steps, dtype=torch.float64)
    return Grid(shape, affine)


def beside(grid):
    """Grids along the axes of `grid`, by what they differ in."""
    d, n = grid.ndim, grid.shape
    back = [-1.0, *[1.0] * (d - 1)]
    return {
        "cut": relative(grid, [1.0] * d, [2.0] * d, tuple(k - 4 for k in n)),
        "finer": relative(grid, [0.5] * d, [0.0] * d, tuple(2 * k - 1 for k in n)),
        "anisotropic": relative(grid, [0.7, 1.6, 1.1][:d], [0.4, 1.2, 0.0][:d], tuple(k // 2 for k in n)),
        "flipped": relative(grid, back, [n[0] - 1.0, *[0.0] * (d - 1)], n),
        "flipped, coarser, off": relative(grid, [-1.5] * d, [k - 1.7 for k in n], tuple(k // 2 for k in n)),
        "one slice": relative(grid, [1.0] * d, [*[0.0] * (d - 1), 3.3], (*n[:-1], 1)),
        "one slice, flipped": relative(grid, [*[1.0] * (d - 1), -2.0], [*[0.0] * (d - 1), 3.3], (*n[:-1], 1)),
        "reaching beyond": relative(grid, [1.0] * d, [*[0.0] * (d - 1), 2.4], n),
        "elsewhere": relative(grid, [1.0] * d, [50.0] * d, n),
    }


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", DENSE)
def test_axis_by_axis_as_point_by_point(oblique, smooth_field, kind, shape):
    """On grids of the same axes displacements are made by matrices along each; anywhere else at scattered points."""
    transform = kind(smooth_field(shape, seed=1, amplitude=2.0, fade=False), oblique(shape, seed=2))
    for name, grid in beside(transform.grid).items():
        ours, general = transform.displacement(grid), Transform.displacement(transform, grid)
        torch.testing.assert_close(ours, general, rtol=0, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")
        assert bool(ours.abs().max() > 0.5) == (name != "elsewhere")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", DENSE)
@pytest.mark.parametrize("opposite", [False, True])
def test_carried_between_the_same_ends_and_back_it_is_as_before(oblique, smooth_field, kind, shape, opposite):
    """Linear functions are linear, and splines splines, on every finer grid whose voxels include the old ones."""
    grid = oblique(shape, seed=3)
    steps = [-0.5, *[0.5] * (len(shape) - 1)] if opposite else [0.5] * len(shape)
    first = [shape[0] - 1.0 if opposite else 0.0, *[0.0] * (len(shape) - 1)]
    fine = relative(grid, steps, first, tuple(2 * n - 1 for n in shape))
    transform = kind(smooth_field(shape, seed=1, amplitude=1.0, fade=False), grid)
    carried = transform.on(fine)
    assert isinstance(carried, kind)
    assert carried.grid == fine
    torch.testing.assert_close(carried.on(grid).field, transform.field, rtol=0, atol=1e-9)
    if kind is not Velocity:  # exp is computed on another grid
        points = grid.to_world(2 + 5 * (cloud(len(shape), 40, 0.5).mT + 0.5))[0].mT
        torch.testing.assert_close(carried(points), transform(points), rtol=0, atol=1e-9)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_carried_velocity_flows_as_before(oblique, smooth_field, ndim):
    """To the error of linear interpolation between the voxels of the coarse grid."""
    shape = (20, 18, 19)[:ndim]
    grid = oblique(shape, seed=3)
    transform = Velocity(smooth_field(shape, seed=1, amplitude=2.0), grid)
    fine = transform.on(relative(grid, [0.5] * ndim, [0.0] * ndim, tuple(2 * n - 1 for n in shape)))
    difference = (fine.displacement(grid) - transform.displacement(grid)).abs()
    assert transform.displacement(grid).abs().max() > 1.5
    assert difference.max() < 0.05


@pytest.mark.parametrize("kind", [Displacement, Velocity])
def test_only_to_grids_of_the_same_axes_can_a_field_be_carried(oblique, smooth_field, kind):
    transform = kind(smooth_field((9, 10), seed=1, amplitude=1.0), oblique((9, 10), seed=1))
    with pytest.raises(ValueError, match=f"{kind.__name__}.on: the grids' axes differ"):
        transform.on(oblique((9, 10), seed=2))


@pytest.mark.slow
@pytest.mark.parametrize("kind", DENSE)
def test_batches_and_gradients_go_axis_by_axis_too(oblique, kind):
    grid = oblique((5, 6), seed=1)
    field = torch.rand(2, 2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    other = relative(grid, [0.6, -0.8], [0.3, 4.6], (6, 5))
    assert kind(field, grid).displacement(other).shape == (2, 2, 6, 5)
    assert torch.autograd.gradcheck(lambda f: kind(f, grid).displacement(other), (field,))


def test_an_inverse_given_another_field_is_that_ones(smooth_field):
    grid = Grid.centred((20, 18), 1.5)
    fields = [smooth_field(grid.shape, seed, 2.0) for seed in (1, 2)]
    there = [Displacement(field, grid) for field in fields]
    points = grid.to_world(grid.voxels(fields[0])[None]).flatten(2)[0].T
    again = inverted(there[0]).with_params(*there[1].params)
    torch.testing.assert_close(there[1](again(points)), points, rtol=0, atol=2e-3)
