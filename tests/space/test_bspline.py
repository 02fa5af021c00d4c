"""Free-form deformations against SimpleITK and scipy, and what carrying them to finer grids keeps."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.interpolate import BSpline as Piecewise

from pullback.numerics.random import make_generator
from pullback.space import Affine, BSpline, Grid

SHAPES = [(11, 9), (8, 9, 7)]
KINDS = {2: np.diag([-1.0, -1.0]), 3: np.diag([-1.0, -1.0, 1.0])}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=make_generator(seed))


def inner_points(grid: Grid, margin: float, count: int = 40) -> torch.Tensor:
    """Random points `(N, d)` of the world, `margin` voxels within the grid."""
    upper = torch.tensor(grid.shape, dtype=torch.float64) - 1 - 2 * margin
    at = margin + upper * torch.rand(count, grid.ndim, dtype=torch.float64, generator=make_generator(3))
    return grid.to_world(at.mT[None])[0].mT


def finer(grid: Grid, factor: int) -> Grid:
    """Between the same end voxels, `factor` steps for each."""
    affine = grid.affine.clone()
    affine[:-1, :-1] /= factor
    return Grid(tuple((n - 1) * factor + 1 for n in grid.shape), affine)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", [1, 2])
def test_as_simpleitk_between_its_control_points(oblique, shape, seed):
    """Two control points from the border on, where mirrored coefficients have no part."""
    grid, d = oblique(shape, seed), len(shape)
    field = noise(1, d, *shape, seed=seed)
    lps = KINDS[d]
    linear = grid.affine[:d, :d].numpy()
    frame = lps @ grid.affine[:d].numpy()
    spacing = np.linalg.norm(linear, axis=0)
    theirs = sitk.BSplineTransform(d, 3)
    theirs.SetTransformDomainMeshSize([n - 3 for n in shape])  # of cells: three fewer than control points
    theirs.SetTransformDomainDirection((frame[:, :d] / spacing).ravel().tolist())
    theirs.SetTransformDomainOrigin((frame[:, d] + frame[:, :d] @ np.ones(d)).tolist())  # the second control point
    theirs.SetTransformDomainPhysicalDimensions([(n - 3) * s for n, s in zip(shape, spacing, strict=True)])
    vectors = np.einsum("ab,b...->a...", lps @ linear, field[0].numpy())
    theirs.SetParameters(np.concatenate([v.ravel(order="F") for v in vectors]).tolist())
    points = inner_points(grid, margin=1.01)
    expected = np.array([lps @ theirs.TransformPoint((lps @ p).tolist()) for p in points.numpy()])
    np.testing.assert_allclose(BSpline(field, grid)(points).numpy(), expected, atol=1e-9)
    assert np.abs(expected - points.numpy()).max() > 0.3


@pytest.mark.parametrize("n", [5, 9])
def test_along_an_axis_as_scipys_piecewise_polynomial(n):
    """The first axis carries coefficients, mirrored by hand beyond the ends; the second is constant."""
    grid, line = Grid.centred((n, 4)), noise(n)
    field = torch.zeros(1, 2, n, 4, dtype=torch.float64)
    field[:, 0] = line[:, None]
    mirrored = np.pad(line.numpy(), 2, mode="reflect")
    reference = Piecewise(np.arange(-4, n + 4), mirrored, 3)
    at = torch.linspace(0, n - 1, 50, dtype=torch.float64)
    points = grid.to_world(torch.stack([at, torch.full_like(at, 1.3)])[None])[0].mT
    moved = BSpline(field, grid)(points) - points
    np.testing.assert_allclose(moved[:, 0].numpy(), reference(at.numpy()), atol=1e-9)
    assert moved[:, 1].abs().max() < 1e-12


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("factor", [2, 3])
def test_refined_between_the_same_ends_it_is_the_same_map(oblique, shape, factor):
    """Splines on coarse knots are splines on finer ones, and both are mirrored at the same ends: nothing is lost."""
    grid = oblique(shape, 4)
    coarse = BSpline(noise(1, len(shape), *shape), grid)
    fine = coarse.on(finer(grid, factor))
    points = inner_points(grid, margin=0.0)
    torch.testing.assert_close(fine(points), coarse(points), rtol=0, atol=1e-9)
    back = fine.on(grid)
    torch.testing.assert_close(back.field, coarse.field, rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_carried_to_any_grid_of_its_axes_it_holds_at_the_voxels(oblique, shape):
    """What is interpolated: at the new voxels the map is the old one, wherever they are."""
    grid = oblique(shape, 4)
    coarse = BSpline(noise(1, len(shape), *shape), grid)
    affine = grid.affine.clone()
    affine[:-1, -1] += affine[:-1, :-1] @ torch.full((len(shape),), 0.7, dtype=torch.float64)
    affine[:-1, :-1] *= torch.tensor([0.6, 1.3, 0.8][: len(shape)], dtype=torch.float64)
    other = Grid(tuple(n - 2 for n in shape), affine)
    torch.testing.assert_close(coarse.on(other).displacement(other), coarse.displacement(other), rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_constant_coefficients_shift(oblique, shape):
    """The splines add up to 1, at the mirrored ends too."""
    grid = oblique(shape, 5)
    shift = torch.tensor([0.5, -1.5, 2.0][: len(shape)], dtype=torch.float64)
    field = shift.view(1, -1, *[1] * len(shape)).expand(1, -1, *shape)
    points = inner_points(grid, margin=0.0)
    expected = points + grid.affine[:-1, :-1] @ shift
    torch.testing.assert_close(BSpline(field, grid)(points), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_linear_coefficients_are_a_linear_map_inside(oblique, shape):
    """Cubic splines reproduce straight lines, one control point from the ends on: the mirror bends them there."""
    grid, d = oblique(shape, 6), len(shape)
    slope = 0.05 * noise(d, d, seed=2)
    field = torch.einsum("ab,b...->a...", slope, grid.voxels(slope))[None]
    points = inner_points(grid, margin=1.0)
    at = grid.to_voxels(points.mT[None])[0]
    expected = grid.to_world((at + slope @ at)[None])[0].mT
    torch.testing.assert_close(BSpline(field, grid)(points), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", [(22, 24), (18, 20, 19)])
def test_its_inverse_takes_points_back(oblique, smooth_field, shape):
    """To what straight lines between the control points leave of a curve: its bend over eight, and as much again."""
    grid = oblique(shape, 7)
    spline = BSpline(smooth_field(shape, 1, amplitude=1.0), grid)
    bend = max(float(spline.own_displacement.diff(n=2, dim=axis).abs().max()) for axis in range(2, 2 + len(shape)))
    points = inner_points(grid, margin=2.0)
    assert (spline(points) - points).norm(dim=1).max() > 0.5
    errors = (spline.inverse()(spline(points)) - points).norm(dim=1) / grid.spacing.max()
    assert float(errors.max()) < 2 * len(shape) ** 1.5 * bend / 8


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_reach_the_coefficients(oblique, shape):
    grid = oblique(tuple(n - 4 for n in shape), 7)
    field = noise(1, len(shape), *grid.shape).requires_grad_()
    other = finer(grid, 2)
    points = inner_points(grid, 0.1, count=5)
    assert torch.autograd.gradcheck(lambda f: BSpline(f, grid).displacement(other), (field,), fast_mode=True)
    assert torch.autograd.gradcheck(lambda f: (Affine.identity(len(shape)) @ BSpline(f, grid))(points), (field,))
