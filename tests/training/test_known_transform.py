"""The supervision by a known truth: over the grid and at points, in voxels and in mm, in closed form."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from pullback.alignment import Alignment, Pair
from pullback.errors import InputError
from pullback.metrics import LandmarkError
from pullback.numerics.random import make_generator
from pullback.numerics.rotation import of_vector, uniform
from pullback.space import Affine, Displacement, Grid, Image, Points, push
from pullback.testing import check_supervision
from pullback.training import KnownTransform, LevelledAlignment


def grid_of(ndim: int) -> Grid:
    affine = torch.eye(ndim + 1, dtype=torch.float64)
    affine[:ndim, :ndim] = uniform(ndim, 1, make_generator(1))[0] @ torch.tensor([0.5, 3.0, 1.2][:ndim]).double().diag()
    affine[:ndim, ndim] = 30.0
    return Grid((6, 5, 4)[:ndim], affine)


def moved_by(grid: Grid, *shift: float, seed: int = 2) -> Affine:
    turn = uniform(grid.ndim, 1, make_generator(seed))[0]
    return Affine.about(turn, grid.centre, grid.centre + torch.tensor(shift, dtype=torch.float64))


def pair_with(grid: Grid, **known) -> Pair:
    image = Image(torch.rand(1, 1, *grid.shape, generator=make_generator(3)).double(), grid)
    return Pair(image, image, **known)


def answering(transform):
    return lambda fixed, moving: Alignment(Pair(fixed, moving), transform)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("unit", ["voxel", "mm"])
def test_closed_or_over_all_voxels_the_square_is_one_number(ndim, unit):
    """A field with the displacement of a linear truth has no closed form; nor has what a mask that hides nothing."""
    grid = grid_of(ndim)
    truth, guess = moved_by(grid, *[2.0] * ndim), moved_by(grid, *[-1.0] * ndim, seed=5)
    told, pair = KnownTransform(2, unit), pair_with(grid, truth=truth)
    field = replace(pair, truth=Displacement(truth.displacement(grid), grid))
    masked = replace(pair, fixed=replace(pair.fixed, mask=torch.ones(1, 1, *grid.shape, dtype=torch.bool)))
    closed = told(answering(guess), pair, 0.0)["square"]
    for other in (field, masked):
        torch.testing.assert_close(told(answering(guess), other, 0.0)["square"], closed, rtol=1e-6, atol=0)


def test_of_a_shift_it_is_its_length_in_mm_or_in_voxels():
    """On an anisotropic grid a millimetre along each axis is another number of voxels."""
    grid = Grid.centred((5, 6, 4), (0.5, 2.0, 4.0))
    pair = pair_with(grid, truth=Affine.identity(3))
    shift = torch.eye(4, dtype=torch.float64)
    shift[:3, 3] = torch.tensor([1.0, 2.0, 2.0])
    for unit, length in (("mm", 3.0), ("voxel", (2.0**2 + 1 + 0.5**2) ** 0.5)):
        assert float(KnownTransform(1, unit)(answering(Affine(shift)), pair, 0.0)["tre"]) == pytest.approx(length)
        assert float(KnownTransform(2, unit)(answering(Affine(shift)), pair, 0.0)["square"]) == pytest.approx(length**2)


@pytest.mark.parametrize("matched", [False, True])
def test_at_points_it_is_the_error_of_landmarks(matched):
    """Against the moving points, where there are any, whatever the truth; else where the truth leads the fixed ones."""
    grid = grid_of(3)
    here = Points(grid.centre + 4 * torch.randn(1, 30, 3, generator=make_generator(4), dtype=torch.float64))
    truth, guess = moved_by(grid, 1.0, 2.0, 3.0), moved_by(grid, 0.0, 0.0, 1.0, seed=7)
    there = push(here, moved_by(grid, 0.0, 5.0, 0.0, seed=8) if matched else truth)
    pair = pair_with(grid, truth=truth, fixed_points=here, moving_points=there if matched else None)
    measured = LandmarkError()(Alignment(replace(pair, moving_points=there), guess))["tre mm"]
    found = KnownTransform(1, "mm", "points")(answering(guess), pair, 0.0)["tre"]
    assert float(found) == pytest.approx(measured, rel=1e-6)
    squared = KnownTransform(2, "mm", "points")(answering(guess), pair, 0.0)["square"]
    assert float(squared) == pytest.approx(float((guess(here.data) - there.data).square().sum(-1).mean()))
    voxels = (grid.to_voxels(guess.at(here.data.mT)) - grid.to_voxels(there.data.mT)).norm(dim=1).mean()
    assert float(KnownTransform(1, "voxel", "points")(answering(guess), pair, 0.0)["tre"]) == pytest.approx(
        float(voxels), rel=1e-6
    )


def test_from_any_turn_descent_of_the_square_finds_the_truth():
    """On the group of rotations it has one minimum, and a half turn alone has no slope (Morse function tr RΣ)."""
    grid = Grid.centred((8, 8, 8), 2.0)
    axes = torch.nn.functional.normalize(torch.randn(200, 3, generator=make_generator(5), dtype=torch.float64))
    angles = torch.deg2rad(170 * torch.rand(200, 1, generator=make_generator(6), dtype=torch.float64))
    pair = pair_with(grid, truth=Affine.identity(3))
    told = KnownTransform(2, "mm")

    def slope(vectors):
        vectors = vectors.detach().requires_grad_()
        matrix = torch.eye(4, dtype=torch.float64).repeat(len(vectors), 1, 1)
        matrix[:, :3, :3] = of_vector(vectors)
        loss = len(vectors) * told(answering(Affine(matrix)), pair, 0.0)["square"]
        return torch.autograd.grad(loss, vectors)[0]

    half = slope(torch.pi * axes[:5])
    assert float(half.norm(dim=1).max()) < 1e-6 * float(slope(0.5 * torch.pi * axes[:5]).norm(dim=1).min())
    vectors = axes * angles
    for _ in range(120):
        vectors = vectors - 0.01 * slope(vectors)
    assert float(vectors.norm(dim=1).max()) < 1e-4


class Shift(nn.Module):
    """A network that learns one shift along the first axis."""

    def __init__(self) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def forward(self, fixed, moving):
        matrix = torch.eye(4, dtype=torch.float64) + self.by * torch.eye(4, dtype=torch.float64)[0, :, None] * (
            torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
        )
        return Alignment(Pair(fixed, moving), Affine(matrix))


@pytest.mark.parametrize("supervision", [KnownTransform(2, "mm"), KnownTransform(1, "mm", "points")], ids=str)
def test_contract(supervision):
    grid = grid_of(3)
    points = Points(grid.centre + torch.randn(1, 5, 3, generator=make_generator(9), dtype=torch.float64))
    check_supervision(supervision, Shift, pair_with(grid, truth=moved_by(grid, 1.0, 2.0, 3.0), fixed_points=points))


def test_what_cannot_be_told_is_refused():
    grid = grid_of(2)
    empty = Points(torch.zeros(1, 0, 2))
    still = Affine.identity(2)
    for known in (
        {},
        {"truth": still},
        {"truth": still, "fixed_points": empty},
        {"fixed_points": Points(torch.zeros(1, 3, 2))},
    ):
        with pytest.raises(InputError, match=r"fixed points .* expected; learn at 'grid'"):
            KnownTransform(at="points")(answering(still), pair_with(grid, **known), 0.0)
    with pytest.raises(InputError, match="not known"):
        KnownTransform(2)(answering(still), pair_with(grid), 0.0)
    for wrong in ({"power": 3}, {"unit": "cm"}, {"at": "corner"}):
        with pytest.raises(InputError, match="a power of 1 or 2"):
            KnownTransform(**wrong)


def test_levels_are_compared_on_their_own_grids_in_their_own_voxels_and_where_something_is_seen():
    """A level that is one of its voxels off has a distance of 1, or in mm its spacing; padding is unseen."""
    grid = Grid.centred((4, 8), 2.0)
    coarse = Grid((4, 4), Grid.centred((4, 4), 4.0).affine)  # one coarse voxel beyond the first axis' ends
    truth = Affine.identity(2)
    off = torch.zeros(1, 2, 4, 4)
    off[:, 0] = 1.0
    off[:, :, [0, -1]] = 7.0

    def register(fixed, moving):
        still = Displacement.identity(grid, fixed.data)
        return LevelledAlignment(Pair(fixed, moving), still, levels=(Displacement(off, coarse),))

    pair = pair_with(grid, truth=truth)
    for how, expected in ((KnownTransform(levels=True), 1.0), (KnownTransform(2, "mm", levels=True), 16.0)):
        losses = how(register, pair, 0.0)
        (name,) = (name for name in losses if "/" not in name)
        assert float(losses[name]) == pytest.approx(expected, abs=1e-5)
        assert float(losses[f"{name}/level 1"]) == pytest.approx(expected)
    assert float(KnownTransform()(register, pair, 0.0)["tre"]) < 1e-5, "the answer alone"
    with pytest.raises(InputError, match="has none"):
        KnownTransform(levels=True)(answering(truth), pair, 0.0)
    with pytest.raises(InputError, match="levels are told at the voxels"):
        KnownTransform(at="points", levels=True)


def test_downsampled_targets_of_an_affine_are_the_same_affine():
    """Theorem: on the grid of any level a linear truth is the same map of the world."""
    grid, truth = grid_of(2), moved_by(grid_of(2), 2.0, 1.0)
    affine = grid.affine.clone()
    affine[:-1, -1] += affine[:-1, :-1] @ torch.tensor([0.5, 0.5], dtype=torch.float64)
    affine[:-1, :-1] *= 2
    level = Grid((3, 2), affine)
    right = Displacement(truth.displacement(level), level)

    def register(fixed, moving):
        return LevelledAlignment(Pair(fixed, moving), truth, levels=(right,))

    assert float(KnownTransform(2, levels=True)(register, pair_with(grid, truth=truth), 0.0)["square"]) < 1e-8
