"""A stage that has to generalise: what is shared by all tiles is found, what is in each alone is not."""

import pytest
import torch

from pullback.energies import LNCC, Diffusion
from pullback.numerics.smooth import smooth_noise
from pullback.solvers import Converged, DeformableStage, Descend, HeldOut, Levels
from pullback.solvers.held_out import GAIN, board
from pullback.space import Displacement, Grid, Image, pull

GRID = Grid.centred((64, 56))


def stage(stiffness):
    similarity = LNCC(7, noise=0.05)
    solver = Descend(step_size=0.3, until=Converged())
    return HeldOut(
        DeformableStage(similarity + stiffness * Diffusion(), levels=Levels(coarsest=48), steps=(30,), solver=solver),
        similarity,
        tiles=4,
    )


def noise(seed, sigma=2.0, channels=1):
    return smooth_noise((1, channels, *GRID.shape), sigma, torch.Generator().manual_seed(seed), torch.empty(0))


def test_a_board_is_half_black_and_neighbours_differ():
    black, inside = (each[0, 0] for each in board(Grid.centred((32, 48)), 6, 0.25))
    assert black.double().mean() == 0.5
    assert inside.double().mean() == 0.25
    assert inside[2:6, 2:6].all()
    assert (black[:8, :8] == black[0, 0]).all()
    assert (black[8:, :] != black[:-8, :]).all()
    assert (black[:, 8:] != black[:, :-8]).all()
    assert board(Grid.centred((6, 5, 4)), 3)[0].shape == (1, 1, 6, 5, 4)


def test_a_motion_that_all_tiles_share_is_found():
    still = Image(noise(0), GRID)
    truth = Displacement(2.0 * noise(1, 12.0, 2), GRID)
    moving = pull(still, truth.inverse(), GRID)
    found = stage(0.5)(still, moving)
    assert found.stats.numbers[GAIN] > 0.01
    before, after = (
        float((field - truth.field).norm(dim=1).mean()) for field in (0, found.transform.displacement(GRID))
    )
    assert after < 0.4 * before


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_texture_of_each_image_alone_moves_nothing(seed):
    """Two sections that lie on each other already, with cells of their own: a soft field follows those."""
    shared = noise(seed, 5.0)
    fixed, moving = (Image(shared + noise(seed + n, 1.2), GRID) for n in (10, 20))
    soft = stage(0.02)
    found = soft(fixed, moving)
    assert found.stats.numbers[GAIN] <= 0
    assert not found.transform.displacement(GRID).any()
    alone = soft.stage(fixed, moving)
    assert float(alone.transform.displacement(GRID).norm(dim=1).mean()) > 0.5


def test_masks_are_kept_and_an_empty_half_proves_nothing():
    mask = torch.zeros(1, 1, *GRID.shape, dtype=torch.bool)
    mask[..., 5:9, 5:9] = True
    found = stage(0.5)(Image(noise(0), GRID, mask), Image(noise(0), GRID))
    assert found.stats.numbers[GAIN] == 0
