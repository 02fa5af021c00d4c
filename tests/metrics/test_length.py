"""The length of a path: closed forms, and one number for one path, however it is told."""

import math

import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.energies import Kinetic
from pullback.metrics import Length, piece_lengths
from pullback.numerics.kernel import Sobolev
from pullback.numerics.random import make_generator
from pullback.space import Affine, BSpline, Displacement, Flow, Geodesic, Grid, Image, Velocity

KERNEL = Sobolev(4.0, 2, unit="mm")


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=make_generator(seed))


def seen(transform, grid, data=None, mask=None):
    image = Image(torch.zeros(1, 1, *grid.shape, dtype=torch.float64) if data is None else data, grid, mask)
    return Alignment(Pair(image, image), transform)


def inside(grid):
    mask = torch.zeros(1, 1, *grid.shape, dtype=torch.bool)
    mask[(..., *(slice(2, n - 3) for n in grid.shape))] = True
    return mask


@pytest.mark.parametrize("shape", [(9, 8), (9, 8, 7)])
def test_of_a_constant_velocity_is_its_size_in_mm(oblique, shape):
    grid, d = oblique(shape, 1), len(shape)
    mm = torch.tensor([3.0, -4.0, 12.0][:d], dtype=torch.float64)
    velocity = grid.from_mm(mm.view(1, d, *[1] * d).expand(1, d, *shape))
    assert Length()(seen(Velocity(velocity, grid), grid, mask=inside(grid))) == {
        "length mm": pytest.approx(float(mm.norm()), rel=1e-12)
    }


def test_is_the_root_mean_square_over_the_foreground():
    grid = Grid.centred((6, 10), (2.0, 3.0))
    field = torch.zeros(1, 2, 6, 10, dtype=torch.float64)
    field[:, 1, :, 5:] = 2  # six mm to the right
    data = torch.zeros(1, 1, 6, 10, dtype=torch.float64)
    data[:, :, 1:4, 4:8] = 1  # of four columns, three move
    assert Length()(seen(Velocity(field, grid), grid, data))["length mm"] == pytest.approx(6 * math.sqrt(3 / 4))


def test_of_a_sine_mode_by_a_kernel():
    """a (γ + α|k|²)^(s/2) / 2^(d/2), a in the kernel's unit; of n voxels, n − 1 lie between the border's middles."""
    grid, n, a = Grid.centred((9, 12), 1.5), (9, 12), 0.4
    rows, columns = (torch.sin(math.pi * torch.arange(m, dtype=torch.float64) / (m - 1)) for m in n)
    field = torch.zeros(1, 2, *n, dtype=torch.float64)
    field[0, 1] = a / 1.5 * rows[:, None] * columns
    k2 = sum((2 * math.sin(math.pi / (m - 1) / 2) / 1.5) ** 2 for m in n)
    expected = a * (1 + 4 * k2) * math.sqrt((8 / 9) * (11 / 12) / 4)
    answer = Length(KERNEL)(seen(Velocity(field, grid), grid, mask=inside(grid)))
    assert answer["length (smooth)"] == pytest.approx(expected, rel=1e-10)


def test_one_path_has_one_length():
    """A velocity, all of N pieces of it, the same in two halves, a geodesic that sets out with it, and the way back."""
    grid, field = Grid.centred((9, 8), 1.3), noise(1, 2, 9, 8)
    expected = Length(KERNEL)(seen(Velocity(field, grid), grid, mask=inside(grid)))
    half = Velocity(field / 2, grid)
    flow = Flow((field / 5).repeat(5, 1, 1, 1), grid, 5)
    for same in (flow, flow.inverse(), half @ half, Geodesic(field, grid, KERNEL), Velocity(-field, grid, 2)):
        assert Length(KERNEL)(seen(same, grid, mask=inside(grid))) == pytest.approx(expected, rel=1e-10)


def test_of_a_single_piece_its_square_is_twice_the_kinetic_energy():
    grid, field = Grid.centred((9, 8), (1.3, 0.8)), noise(1, 2, 9, 8)
    alignment = seen(Velocity(field, grid), grid, mask=inside(grid))
    energy = float(Kinetic(KERNEL)(alignment))
    assert Length(KERNEL)(alignment)["length (smooth)"] == pytest.approx(math.sqrt(2 * energy))


def test_pieces_add_up_the_outermost_first_and_keep_the_triangle():
    grid, pieces = Grid.centred((9, 8), 1.3), noise(3, 2, 9, 8)
    pieces = torch.tensor([3.0, 2.0, 0.5]).view(3, 1, 1, 1) * pieces
    for kernel in (None, KERNEL):
        each = [piece_lengths(seen(Velocity(v[None], grid), grid, mask=inside(grid)), kernel)[0] for v in pieces]
        assert each == sorted(each, reverse=True)
        flow = seen(Flow(pieces, grid, 3), grid, mask=inside(grid))
        assert piece_lengths(flow, kernel) == pytest.approx(each)
        name = "length (smooth)" if kernel else "length mm"
        assert Length(KERNEL)(flow)[name] == pytest.approx(sum(each))
        (whole,) = piece_lengths(seen(Velocity(pieces.sum(0)[None], grid), grid, mask=inside(grid)), kernel)
        assert whole < sum(each)


def test_linear_parts_have_no_length_and_carry_the_foreground_along():
    grid, away = Grid.centred((9, 8), 1.3), torch.eye(3, dtype=torch.float64)
    away[:-1, -1] = torch.tensor([500.0, -300.0])
    velocity = Velocity(noise(1, 2, 9, 8), grid)
    alone = Length(KERNEL)(seen(velocity, grid, mask=inside(grid)))
    assert Length(KERNEL)(seen(Affine(away) @ velocity, grid, mask=inside(grid))) == pytest.approx(alone)
    there = Velocity(velocity.field, Grid(grid.shape, away @ grid.affine))
    for around in (there @ Affine(away), Affine(away).inverse() @ there @ Affine(away)):
        assert Length(KERNEL)(seen(around, grid, mask=inside(grid))) == pytest.approx(alone)


def test_on_a_coarser_grid_as_on_its_own(smooth_field):
    fine = Grid.centred((33, 29), 1.0)
    coarse = fine.between_ends((17, 15))
    velocity = Velocity(smooth_field((17, 15), 1, amplitude=2.0), coarse)
    lengths = [Length()(seen(v, fine, mask=inside(fine)))["length mm"] for v in (velocity, velocity.on(fine))]
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-12)


def test_silent_where_a_part_is_not_made_of_velocities():
    grid, field = Grid.centred((9, 8)), noise(1, 2, 9, 8)
    velocity = Velocity(field, grid)
    others = [Affine.identity(2), Displacement(field, grid), BSpline(field, grid), velocity @ Displacement(field, grid)]
    for other in others:
        assert Length(KERNEL)(seen(other, grid, mask=inside(grid))) == {}
    assert Length(KERNEL)(seen(velocity, grid)) == {}  # a constant image has no foreground
