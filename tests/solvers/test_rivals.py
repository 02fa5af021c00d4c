"""How an answer stands among the other ways of laying two images on each other, where that is known."""

import math
from dataclasses import replace

import pytest
import torch

from pullback.alignment import Pair
from pullback.numerics.random import make_generator
from pullback.solvers.rivals import Rivals, periods
from pullback.space import Affine, Grid, Image

SHAPES = {2: (44, 40), 3: (26, 24, 28)}
LEAST = 0.25  # the lead that a verdict expects


def shift(*steps: float) -> Affine:
    zero = torch.zeros(len(steps), dtype=torch.float64)
    return Affine.about(torch.eye(len(steps), dtype=torch.float64), zero, torch.tensor(steps, dtype=torch.float64))


def turn(ndim: int, degrees: float) -> Affine:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = torch.eye(ndim, dtype=torch.float64)
    matrix[:2, :2] = torch.tensor([[c, -s], [s, c]])
    return Affine.about(matrix, torch.zeros(ndim, dtype=torch.float64))


def image(grid: Grid, value, placed: Affine, seed: int, noise: float = 0.01) -> Image:
    """What `value` makes of the points of a world, in which a grid lies as `placed` says."""
    home = placed.inverse().at(grid.to_world(grid.voxels(placed.matrix)[None]))[0]
    grain = torch.randn(1, 1, *grid.shape, generator=make_generator(seed))
    return Image(value(home).float()[None, None] + noise * grain, grid)


def pictured(value, placed: Affine, grid: Grid, noise: float = 0.01) -> Pair:
    return Pair(image(grid, value, Affine.identity(grid.ndim), 1, noise), image(grid, value, placed, 2, noise))


def rings(where: torch.Tensor) -> torch.Tensor:
    away = where.norm(dim=0)
    return torch.sigmoid(2 * (9 - away)) - 0.6 * torch.exp(-(((away - 5) / 1.2) ** 2))


def column(where: torch.Tensor, period: float = 9.0) -> torch.Tensor:
    """Blocks along the last axis that differ a little from one another."""
    along = torch.cos(2 * math.pi * where[-1] / period)
    wide = torch.sigmoid(1.5 * (6 + 0.08 * where[-1] - where[:-1].norm(dim=0)))
    return 0.2 + wide * torch.sigmoid(5 * along) * (0.7 + 0.015 * where[-1])


@pytest.fixture(scope="module")
def body(waves):
    """A lopsided body with texture."""

    def make(ndim: int):
        texture = waves(ndim, 4, 9.0, count=6)

        def value(where: torch.Tensor) -> torch.Tensor:
            axes = torch.tensor([13.0, 8.0, 10.0][:ndim], dtype=where.dtype).view(-1, *[1] * ndim)
            away = (where / axes).norm(dim=0) + 0.3 * (where[0] / 13) * (where[1] / 8)
            return (0.4 + 0.6 * (texture(where[None])[0, 0] + 1)) * torch.sigmoid(10 * (1 - away))

        return value

    return make


@pytest.mark.slow
@pytest.mark.parametrize("ndim", [2, 3])
def test_the_truth_leads_and_what_is_off_does_not(body, ndim):
    grid, truth = Grid.centred(SHAPES[ndim]), turn(ndim, 8.0) @ shift(*[1.5, -1.0, 0.5][:ndim])
    pair = pictured(body(ndim), truth, grid)
    right = Rivals()(pair, truth)
    assert right.lead > 0.8
    assert right.held > 0.9
    assert right.mirrored < 0.9
    for wrong in (truth @ turn(ndim, 180.0), truth @ shift(*[6.0] * ndim), truth @ turn(ndim, 90.0)):
        found = Rivals()(pair, wrong)
        assert found.lead < LEAST or found.held < LEAST


def test_contrast_does_not_matter(body):
    grid = Grid.centred(SHAPES[2])
    pair = pictured(body(2), Affine.identity(2), grid)
    inverted = replace(pair.moving, data=1.4 - pair.moving.data.square())
    for answer, right in ((Affine.identity(2), True), (turn(2, 180.0), False)):
        assert (Rivals()(Pair(pair.fixed, inverted), answer).lead > LEAST) == right


@pytest.mark.slow
@pytest.mark.parametrize("ndim", [2, 3])
def test_to_turn_what_is_round_is_no_rival_but_to_shift_it_is(ndim):
    truth = shift(*[2.4, -2.2, 1.0][:ndim])
    pair = pictured(rings, truth, Grid.centred(SHAPES[ndim]), 0.03)
    for degrees in (0.0, 70.0, 180.0):
        assert Rivals()(pair, truth @ turn(ndim, degrees)).lead > 0.7
    assert Rivals()(pair, truth @ shift(9.0, *[0.0] * (ndim - 1))).lead < 0


def test_one_period_off_is_told():
    grid, truth = Grid.centred((24, 50)), shift(-1.0, 1.0)
    pair = pictured(column, truth, grid, 0.03)
    assert Rivals()(pair, truth).lead > LEAST
    for steps in (9.0, -9.0):
        assert Rivals()(pair, truth @ shift(0.0, steps)).lead < LEAST


@pytest.mark.slow
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_mirror_image_is_told_apart(body, ndim):
    one = image(Grid.centred(SHAPES[ndim]), body(ndim), Affine.identity(ndim), 1)
    flipped = replace(one, data=one.data.flip(2))
    right, wrong = (Rivals()(Pair(one, moving), Affine.identity(ndim)) for moving in (one, flipped))
    assert right.mirrored < 1 < 1.3 < wrong.mirrored


def test_a_slope_holds_less_than_a_peak(body):
    pair = pictured(body(2), Affine.identity(2), Grid.centred(SHAPES[2]))
    asked = Rivals(clear=math.inf)
    held = [asked(pair, shift(off, 0.0)).held for off in (0.0, 1.5, 4.0)]
    assert held[0] > 0.97
    assert held[0] > held[1] > held[2]


def test_the_answer_is_of_the_world(body, oblique):
    """The moving world may be anywhere, as long as the answer leads there."""
    grid, placed = oblique(SHAPES[3], 3), turn(3, 30.0) @ shift(40.0, -20.0, 7.0)
    still = Affine.identity(3)
    pair = pictured(body(3), still, grid)
    away = Image(pair.moving.data, Grid(grid.shape, placed.matrix @ grid.affine))
    one, two = Rivals()(pair, still), Rivals()(Pair(pair.fixed, away), placed)
    assert two.lead == pytest.approx(one.lead, abs=0.02)
    assert two.mirrored == pytest.approx(one.mirrored, abs=0.02)


def test_images_that_do_not_meet_have_no_standing(body):
    pair = pictured(body(2), Affine.identity(2), Grid.centred(SHAPES[2]))
    found = Rivals()(pair, shift(500.0, 0.0))
    assert (found.lead, found.held, found.mirrored, found.rival) == (0, 0, 0, None)


@pytest.mark.parametrize("period", [6.0, 7.5, 10.0])
def test_periods_are_those_of_a_grating(period, oblique):
    """One period on, two, three, either way; across, what is white has none."""
    grid = oblique((60, 40), 3)
    along = torch.arange(60.0)[:, None].expand(60, 40)
    white = torch.randn(40, generator=make_generator(4))
    found = periods(Image(((2 * math.pi * along / period).cos() * white)[None, None], grid))
    voxels = found @ torch.linalg.inv(grid.affine[:-1, :-1]).T
    first = voxels[voxels[:, 0].abs().argsort()][:2]
    torch.testing.assert_close(first.abs(), torch.tensor([[period, 0.0]] * 2, dtype=torch.float64), atol=0.2, rtol=0)
    assert float((voxels[:, 0] / period - (voxels[:, 0] / period).round()).abs().max()) < 0.1
    assert float(voxels[:, 1].abs().max()) < 0.1


def test_noise_has_no_periods():
    grain = torch.rand(1, 1, 40, 44, generator=make_generator(3))
    assert len(periods(Image(grain, Grid.centred((40, 44))))) == 0
