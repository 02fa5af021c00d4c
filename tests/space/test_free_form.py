"""Free-form deformations by coefficients of other tools: the laws of B-splines, and ITK's border."""

import pytest
import torch

from pullback.space import BSpline, FreeForm, inverted

DEGREES = pytest.mark.parametrize("degree", [1, 2, 3])
DIMENSIONS = pytest.mark.parametrize("ndim", [2, 3])


def points(grid, margin, count=200):
    """Points of the world, further than `margin` voxels within the outermost control points, `(1, d, N)`."""
    last = torch.tensor(grid.shape, dtype=torch.float64)[:, None] - 1
    return grid.to_world((margin + torch.rand(grid.ndim, count, dtype=torch.float64) * (last - 2 * margin))[None])


@DEGREES
@DIMENSIONS
def test_splines_reproduce_affine_maps(oblique, degree, ndim):
    grid = oblique((9, 8, 7)[:ndim], 1)
    where = grid.voxels(torch.zeros(1, dtype=torch.float64))[None]
    matrix, shift = torch.randn(ndim, ndim, dtype=torch.float64), torch.randn(ndim, dtype=torch.float64)

    def affine(at):
        return torch.einsum("ab,nb...->na...", matrix, at) + shift.view(-1, *[1] * (at.ndim - 2))

    world = points(grid, (degree - 1) / 2)
    at = grid.to_voxels(world)
    moved = FreeForm(affine(where), grid, degree).at(world)
    torch.testing.assert_close(moved, grid.to_world(at + affine(at)))


@DIMENSIONS
def test_cubic_ones_are_those_of_solvers_away_from_the_border(oblique, ndim):
    grid = oblique((9, 8, 7)[:ndim], 1)
    field = torch.randn(1, ndim, *grid.shape, dtype=torch.float64)
    world = points(grid, 1)
    torch.testing.assert_close(FreeForm(field, grid).at(world), BSpline(field, grid).at(world))


@DEGREES
@DIMENSIONS
def test_beyond_the_known_coefficients_points_stay(oblique, degree, ndim):
    grid = oblique((9, 8, 7)[:ndim], 1)
    transform = FreeForm(torch.ones(1, ndim, *grid.shape, dtype=torch.float64), grid, degree)
    margin = (degree - 1) / 2
    at = torch.full((1, ndim, 4), 3.3, dtype=torch.float64)
    at[0, 0] = torch.tensor([margin - 0.01, margin + 0.01, 8 - margin - 0.01, 8 - margin + 0.01])
    moved = transform.between(at)
    torch.testing.assert_close(moved[0, :, 1:3], torch.ones(ndim, 2, dtype=torch.float64))
    assert not moved[0, :, [0, 3]].any()


@DEGREES
@DIMENSIONS
def test_axis_by_axis_is_point_by_point(oblique, degree, ndim):
    grid = oblique((9, 8, 7)[:ndim], 1)
    transform = FreeForm(torch.randn(1, ndim, *grid.shape, dtype=torch.float64), grid, degree)
    fine = grid.at_spacing(tuple(0.37 * grid.spacing))
    where = fine.voxels(transform.field)[None]
    slow = fine.to_voxels(transform.at(fine.to_world(where))) - where
    torch.testing.assert_close(transform.displacement(fine), slow)


@DIMENSIONS
def test_the_inverse_brings_points_home(oblique, ndim):
    grid = oblique((12, 11, 10)[:ndim], 1, 4.0, 6.0)
    transform = FreeForm(0.4 * torch.rand(1, ndim, *grid.shape, dtype=torch.float64), grid)
    world = points(grid, 3)
    torch.testing.assert_close(inverted(transform).at(transform.at(world)), world, rtol=0, atol=1e-2)


def test_other_degrees_are_refused(oblique):
    with pytest.raises(ValueError, match="degree 1, 2 or 3"):
        FreeForm(torch.zeros(1, 2, 5, 5), oblique((5, 5), 1), 0)
