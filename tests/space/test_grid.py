"""Grids: geometry, validation, equality."""

import itertools

import pytest
import torch

from pullback.space import Grid


def eye(n):
    return torch.eye(n, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 6)])
def test_voxels_and_world_are_one_to_one(oblique, shape):
    grid = oblique(shape, seed=1)
    where = grid.voxels(torch.zeros((), dtype=torch.float64))[None]
    world = grid.to_world(where)
    torch.testing.assert_close(grid.to_voxels(world), where, rtol=0, atol=1e-12)
    last = torch.tensor([n - 1.0 for n in shape], dtype=torch.float64)
    corner = grid.affine @ torch.cat([last, last.new_ones(1)])
    torch.testing.assert_close(world[(0, slice(None), *[-1] * len(shape))], corner[:-1])
    torch.testing.assert_close(world.flatten(2).mean(2)[0], grid.centre)


@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 6)])
def test_displacements_go_where_the_points_that_they_join_go(oblique, shape):
    grid = oblique(shape, seed=6)
    here = grid.voxels(torch.zeros((), dtype=torch.float64))[None].expand(2, *[-1] * (len(shape) + 1))
    by = torch.randn(here.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mm = grid.to_world(here + by) - grid.to_world(here)
    torch.testing.assert_close(grid.to_mm(by), mm)
    torch.testing.assert_close(grid.from_mm(mm), by)


def test_spacing_is_the_length_of_a_step(oblique):
    grid = oblique((5, 6, 7), seed=2)
    for axis in range(3):
        ends = torch.zeros(1, 3, 2, dtype=torch.float64)
        ends[0, axis, 1] = 1
        a, b = grid.to_world(ends)[0].T
        assert float((b - a).norm()) == pytest.approx(float(grid.spacing[axis]))


@pytest.mark.parametrize("spacing", [1.5, (1.5, 0.5)])
def test_centred(spacing):
    grid = Grid.centred((5, 8), spacing)
    torch.testing.assert_close(grid.centre, torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(grid.spacing, torch.as_tensor(spacing, dtype=torch.float64).expand(2))


def test_about_origin_keeps_orientation_and_spacing(oblique):
    grid = oblique((5, 6, 7), seed=3)
    moved = grid.about_origin((9, 4, 6))
    assert moved.shape == (9, 4, 6)
    torch.testing.assert_close(moved.affine[:3, :3], grid.affine[:3, :3])
    torch.testing.assert_close(moved.centre, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "affine", "says"),
    [
        ((4, 5), eye(4), "affine one larger"),
        ((4, 5, 6, 7), eye(5), "2 or 3 axes"),
        ((4,), eye(2), "2 or 3 axes"),
        ((4, 5), torch.zeros(3, 3, dtype=torch.float64), "cannot be inverted"),
        ((4, 5), eye(3) * float("nan"), "cannot be inverted"),
    ],
)
def test_impossible_grids_are_refused(shape, affine, says):
    with pytest.raises(ValueError, match=says):
        Grid(shape, affine)


def test_equality_is_up_to_a_hundredth_of_a_voxel_anywhere():
    grid = Grid((100, 80), eye(3))
    assert grid == Grid((100, 80), eye(3))
    assert grid != Grid((100, 81), eye(3))
    assert grid != "a grid"

    def moved(row, column, amount):
        affine = eye(3)
        affine[row, column] += amount
        return Grid((100, 80), affine)

    assert grid == moved(0, 2, 0.005)
    assert grid != moved(0, 2, 0.02)
    assert grid == moved(0, 0, 0.00005)  # half a hundredth at the far end
    assert grid != moved(0, 0, 0.0002)  # nothing near the origin, two hundredths at the far end
    assert grid != moved(0, 1, 0.0003)
    with pytest.raises(TypeError):
        hash(grid)


@pytest.mark.parametrize(("shape", "other"), [((7, 5), (13, 3)), ((7, 5, 6), (2, 9, 6))])
def test_between_ends_keeps_every_corner(oblique, shape, other):
    grid = oblique(shape, seed=4)
    new = grid.between_ends(other)
    for ends in itertools.product((0, 1), repeat=len(shape)):
        corners = [
            g.to_world(torch.tensor([[e * (n - 1.0)] for e, n in zip(ends, g.shape, strict=True)], dtype=float)[None])
            for g in (grid, new)
        ]
        torch.testing.assert_close(*corners)
    assert new.between_ends(shape) == grid
    with pytest.raises(ValueError, match="two voxels or more"):
        grid.between_ends((1,) * len(shape))


@pytest.mark.parametrize("margins", [(2, 0), (1, 0, 3)])
def test_padded_grids_go_on_as_they_were(oblique, margins):
    grid = oblique((4, 6, 5)[: len(margins)], seed=5)
    more = grid.padded(margins)
    assert more.shape == tuple(n + 2 * m for n, m in zip(grid.shape, margins, strict=True))
    where = grid.voxels(torch.zeros((), dtype=torch.float64))[None]
    shifted = where + torch.tensor(margins, dtype=torch.float64).view(1, -1, *[1] * len(margins))
    torch.testing.assert_close(more.to_world(shifted), grid.to_world(where))
