"""A stage that has to generalise: what it is given to see, what it gains elsewhere, and which answer stays."""

from dataclasses import dataclass, field

import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.energies import LNCC, Diffusion
from pullback.numerics.smooth import smooth_noise
from pullback.solvers import Converged, DeformableStage, Descend, HeldOut, Levels
from pullback.solvers.held_out import GAIN, board
from pullback.space import Displacement, Grid, Image, pull

GRID = Grid.centred((48, 40))
LIKE = LNCC(7, noise=0.05)


def noise(seed, sigma=2.0, channels=1):
    return smooth_noise((1, channels, *GRID.shape), sigma, torch.Generator().manual_seed(seed), torch.empty(0))


STILL = Image(noise(0), GRID)
TRUTH = Displacement(1.5 * noise(1, 12.0, 2), GRID)
MOVING = pull(STILL, TRUTH.inverse(), GRID)


@dataclass(frozen=True)
class Oracle:
    """A stage that answers with what it is told, time by time, and remembers what it was given to see."""

    answers: tuple
    levels: Levels = Levels(coarsest=40)
    seen: list = field(default_factory=list)

    def __call__(self, fixed, moving, start=None):
        self.seen.append(fixed.mask)
        return Alignment(Pair(fixed, moving), self.answers[len(self.seen) - 1])


def test_a_board_is_half_black_and_neighbours_differ():
    black = board(Grid.centred((32, 48)), 6)[0, 0]
    assert black.double().mean() == 0.5
    assert (black[:8, :8] == black[0, 0]).all()
    assert (black[8:, :] != black[:-8, :]).all()
    assert (black[:, 8:] != black[:, :-8]).all()
    assert board(Grid.centred((6, 5, 4)), 3).shape == (1, 1, 6, 5, 4)


HALF = Displacement(0.5 * TRUTH.field, GRID)
WRONG = TRUTH.inverse()


@pytest.mark.parametrize(("answers", "taken"), [((TRUTH, HALF, TRUTH), True), ((WRONG, HALF, TRUTH), False)], ids=str)
def test_the_answer_is_taken_where_it_gains_on_tiles_that_were_not_seen(answers, taken):
    oracle = Oracle(answers)
    found = HeldOut(oracle, LIKE, tiles=4)(STILL, MOVING)
    black, white = oracle.seen[:2]
    assert torch.equal(black, ~white)
    assert torch.equal(black, board(GRID, 4))
    gain = 0.0
    for mask, answer in zip((white, black), answers, strict=False):
        pair = Pair(Image(STILL.data, GRID, mask), MOVING)
        was, now = (float(LIKE(Alignment(pair, each))) for each in (Displacement.identity(GRID, STILL.data), answer))
        gain += (was - now) / 2
    assert found.stats.numbers[GAIN] == pytest.approx(gain, abs=1e-5)
    assert (gain > 0) == taken
    assert torch.equal(found.transform.displacement(GRID), TRUTH.field) == taken
    assert bool(found.transform.displacement(GRID).any()) == taken
    assert len(oracle.seen) == (3 if taken else 2)
    assert taken == (oracle.seen[-1] is None)


def test_a_motion_that_all_tiles_share_is_found():
    solver = Descend(step_size=0.3, until=Converged())
    stage = DeformableStage(LIKE + 0.5 * Diffusion(), levels=Levels(coarsest=40), steps=(30,), solver=solver)
    found = HeldOut(stage, LIKE, tiles=4)(STILL, MOVING)
    assert found.stats.numbers[GAIN] > 0.01
    before, after = (float((one - TRUTH.field).norm(dim=1).mean()) for one in (0, found.transform.displacement(GRID)))
    assert after < 0.5 * before


def test_a_mask_is_kept_and_an_empty_half_proves_nothing():
    mask = torch.zeros(1, 1, *GRID.shape, dtype=torch.bool)
    mask[..., 5:9, 5:9] = True
    oracle = Oracle((TRUTH,))
    found = HeldOut(oracle, LIKE, tiles=4)(Image(STILL.data, GRID, mask), MOVING)
    assert found.stats.numbers[GAIN] == 0
    assert not oracle.seen
