"""Distances between maps over a grid: the closed form against all voxels, and the laws of a distance."""

import math

import pytest
import torch

from pullback.numerics.random import make_generator
from pullback.numerics.rotation import of_vector, uniform
from pullback.space import Affine, Grid, block_middles, mean_distance, mean_square_distance


def oblique(ndim: int, seed: int = 0) -> Grid:
    """An oblique, anisotropic and sheared grid far from the world's origin."""
    draws = make_generator(90, seed)
    affine = torch.eye(ndim + 1, dtype=torch.float64)
    sheared = torch.eye(ndim, dtype=torch.float64) + 0.1 * torch.rand(ndim, ndim, generator=draws).double()
    affine[:ndim, :ndim] = uniform(ndim, 1, draws)[0] @ sheared @ torch.tensor([0.7, 2.5, 1.3][:ndim]).double().diag()
    affine[:ndim, ndim] = 100 * torch.randn(ndim, generator=draws, dtype=torch.float64)
    return Grid((7, 4, 9)[:ndim], affine)


def any_affine(ndim: int, seed: int) -> Affine:
    draws = make_generator(91, seed)
    matrix = torch.eye(ndim + 1, dtype=torch.float64)
    matrix[:ndim] += 0.5 * torch.randn(ndim, ndim + 1, generator=draws, dtype=torch.float64)
    return Affine(matrix)


def rigid(grid: Grid, seed: int) -> Affine:
    draws = make_generator(92, seed)
    shift = 5 * torch.randn(grid.ndim, generator=draws, dtype=torch.float64)
    return Affine.about(uniform(grid.ndim, 1, draws)[0], grid.centre, grid.centre + shift)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("voxels", [False, True])
def test_the_closed_form_is_the_mean_over_all_voxels(ndim, voxels):
    grid, one, other = oblique(ndim), any_affine(ndim, 1), any_affine(ndim, 2)
    off = one.displacement(grid) - other.displacement(grid)
    expected = (off if voxels else grid.to_mm(off)).square().sum(1).mean()
    found = mean_square_distance(one, other, grid, voxels)
    torch.testing.assert_close(found, expected[None], rtol=1e-10, atol=1e-10)
    batch = mean_square_distance(Affine(torch.stack([one.matrix, other.matrix])), other, grid, voxels)
    torch.testing.assert_close(batch, torch.stack([found[0], torch.zeros(()).double()]), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("degrees", [1.0, 40.0, 179.0])
def test_of_a_cube_it_is_the_shift_of_the_middle_and_the_angle_alone(degrees):
    grid = Grid.centred((6, 6, 6), 1.5)
    axis = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    shift, angle = torch.tensor([3.0, 1.0, -2.0], dtype=torch.float64), math.radians(degrees)
    turn = of_vector((angle * axis / axis.norm())[None])[0]
    found = mean_square_distance(Affine.about(turn, grid.centre, grid.centre + shift), Affine.identity(3), grid)
    side2 = (6**2 - 1) * 1.5**2
    assert float(found) == pytest.approx(14 + 2 * side2 / 3 * math.sin(angle / 2) ** 2, rel=1e-10)


def test_near_the_truth_a_radian_weighs_as_the_side_of_the_grid():
    """The root of the mean square grows by ℓ/√6 for each radian about any axis, and by 1 for each mm."""
    grid = Grid.centred((9, 9, 9), 2.0)
    side = math.sqrt(9**2 - 1) * 2.0
    turn = of_vector(1e-6 * torch.eye(3, dtype=torch.float64))
    for n in range(3):
        for step, grows in ((Affine.about(turn[n], grid.centre), side / math.sqrt(6)), (shifted(n, 1e-6), 1.0)):
            root = mean_square_distance(step, Affine.identity(3), grid).sqrt()
            assert float(root) / 1e-6 == pytest.approx(grows, rel=1e-6)


def shifted(axis: int, by: float) -> Affine:
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[axis, 3] = by
    return Affine(matrix)


@pytest.mark.parametrize("ndim", [2, 3])
def test_it_is_a_distance_and_knows_no_frame(ndim):
    """Symmetric, 0 of a map from itself alone, of triangles, and the same after a rigid map or in another frame."""
    grid = oblique(ndim)
    one, other, third, after = (rigid(grid, n) for n in range(4))
    points = block_middles(grid)

    def both(a, b, on, at):
        return torch.stack([mean_square_distance(a, b, on).sqrt(), mean_distance(a, b, at)])

    apart = both(one, other, grid, points)
    assert (apart > 1).all()
    torch.testing.assert_close(both(other, one, grid, points), apart, rtol=1e-10, atol=0)
    assert (both(one, one, grid, points) == 0).all()
    assert (both(one, third, grid, points) + both(third, other, grid, points) >= apart).all()
    torch.testing.assert_close(both(after @ one, after @ other, grid, points), apart, rtol=1e-10, atol=0)
    framed = Grid(grid.shape, after.inverse().matrix @ grid.affine)
    torch.testing.assert_close(
        both(one @ after, other @ after, framed, after.inverse()(points)), apart, rtol=1e-9, atol=0
    )


def test_middles_of_blocks_have_the_spread_of_all_voxels():
    """Within 2 %, where points from corner to corner overstate a turn by more than 8."""
    grid = Grid.centred((24, 32, 40), 2.0)
    turn = Affine.about(of_vector(torch.tensor([[0.1, 0.2, -0.3]]).double())[0], grid.centre)
    voxels = grid.to_world(grid.voxels(torch.zeros((), dtype=torch.float64))[None]).flatten(2).mT
    ends = grid.between_ends((8, 8, 8))
    ends = ends.to_world(ends.voxels(torch.zeros((), dtype=torch.float64))[None]).flatten(2).mT
    still = Affine.identity(3)
    exact, blocks, corners = (float(mean_distance(turn, still, at)) for at in (voxels, block_middles(grid), ends))
    assert blocks == pytest.approx(exact, rel=0.02)
    assert corners > 1.08 * exact
    assert block_middles(grid).shape == (1, 512, 3)
    torch.testing.assert_close(block_middles(grid).mean(1)[0], grid.centre)
