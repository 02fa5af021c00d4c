"""The way back through a field whose motion is as large as its grid: closed forms of what is within it."""

import math

import pytest
import torch
from torch import Tensor

from pullback.numerics.random import make_generator
from pullback.space import BSpline, Displacement, Grid, Inverse, inverted

SHAPES = [(44, 40), (26, 24, 28)]


def waved(at: Tensor, shift: Tensor) -> Tensor:
    """A shift, and the first coordinate goes to and fro along the second."""
    wave = 0.8 * (2 * math.pi * at[:, 1:2] / 36).sin()
    return at + shift + torch.cat([wave, torch.zeros_like(at[:, 1:])], 1)


def unwaved(at: Tensor, shift: Tensor) -> Tensor:
    """The inverse of `waved`: the second coordinate tells the wave."""
    home = at - shift
    return 2 * home - waved(home, torch.zeros_like(shift))


def scattered(shape: tuple[int, ...], count: int = 500) -> Tensor:
    """Points `(1, d, N)` within a grid, in its voxels."""
    last = torch.tensor(shape, dtype=torch.float64)[:, None] - 1
    generator = torch.rand(1, len(shape), count, dtype=torch.float64, generator=make_generator(0))
    return last * generator


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.0, 0.5, -0.5, 1.5])
def test_what_a_shift_carries_off_the_grid_comes_back(oblique, shape, share):
    """To what linear interpolation leaves of the wave: 0.8 (2π / 36)² / 8 = 0.003 voxels, and the tolerance."""
    grid = oblique(shape, seed=3)
    shift = share * torch.tensor([1.0, -1.0, 1.0][: len(shape)]).view(1, -1, 1).double() * torch.tensor(shape)[:, None]
    at = grid.voxels(torch.zeros((), dtype=torch.float64))[None].flatten(2)
    field = (waved(at, shift) - at).reshape(1, -1, *shape)
    home = torch.cat([scattered(shape), at], 2)  # between voxels and at them, the border's too
    goal = waved(home, shift)
    torch.testing.assert_close(unwaved(goal, shift), home)
    found = grid.to_voxels(inverted(Displacement(field, grid)).at(grid.to_world(goal)))
    assert float((found - home).norm(dim=1).max()) < 0.01


@pytest.mark.parametrize("degrees", [50, 90, 160])
def test_what_a_turn_and_a_stretch_carry_away_comes_back(oblique, degrees):
    grid, a = oblique((40, 36), seed=4), math.radians(degrees)
    linear = torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]], dtype=torch.float64)
    linear = linear @ torch.tensor([[1.6, 0.3], [0.0, 0.7]], dtype=torch.float64)
    at = grid.voxels(linear)[None].flatten(2)
    field = (linear @ at + 7 - at).reshape(1, 2, *grid.shape)
    home = scattered(grid.shape)
    found = inverted(Displacement(field, grid)).at(grid.to_world(linear @ home + 7))
    assert float((grid.to_voxels(found) - home).norm(dim=1).max()) < 0.01


@pytest.mark.parametrize("kind", [Displacement, BSpline])
def test_each_of_a_batch_has_its_own_way_back(smooth_field, kind):
    grid = Grid.centred((30, 28), 2.0)
    bent = torch.cat([smooth_field(grid.shape, seed, 1.5) for seed in (1, 2)])
    field = bent + torch.tensor([[16.0, 0.0], [-3.0, 40.0]]).double()[..., None, None]
    there, home = kind(field, grid), grid.to_world(scattered(grid.shape)).expand(2, -1, -1)
    found = inverted(there).at(there.at(home))
    assert float((found - home).norm(dim=1).max()) < 0.01


def test_a_point_that_nothing_within_the_grid_meets_stays_where_it_is():
    """A shift by 20 of 24 voxels to the right: what lies far to the left comes from itself."""
    grid = Grid.centred((24, 22))
    field = torch.zeros(1, 2, *grid.shape, dtype=torch.float64)
    field[:, 0] = 20
    far = grid.to_world(torch.tensor([[-9.0, -3.0, 60.0], [4.0, 11.0, 30.0]], dtype=torch.float64)[None])
    torch.testing.assert_close(inverted(Displacement(field, grid)).at(far), far)


def test_the_bulk_of_an_affine_is_that_affine(oblique):
    grid = oblique((9, 1, 12), seed=5)
    linear = torch.eye(3, dtype=torch.float64) + 0.3 * torch.rand(
        3, 3, dtype=torch.float64, generator=make_generator(1)
    )
    linear[:, 1] = torch.tensor([0.0, 1.0, 0.0])  # of an axis of one voxel no slope is known
    at = grid.voxels(linear)[None].flatten(2)
    shift = torch.tensor([[5.0], [-2.0], [31.0]], dtype=torch.float64)
    field = (linear @ at + shift - at).reshape(1, 3, *grid.shape)
    found = Inverse(Displacement(field, grid)).bulk
    torch.testing.assert_close(found, (linear[None], shift[None]))
