"""A deformable stage that follows labels and landmarks where intensities say nothing."""

import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.energies import MSE, Diffusion, LandmarkMSE, SoftDice
from pullback.metrics import Dice, LandmarkError, numbers_of
from pullback.solvers import Constraint, DeformableStage, Descend, Levels
from pullback.space import Affine, Grid, Image, Labels, Points, Velocity, push

SHAPE = (40, 36)
TURN = Affine(torch.tensor([[0.8, -0.6, 9.0], [0.6, 0.8, -4.0], [0.0, 0.0, 1.0]], dtype=torch.float64))
STAGE = DeformableStage(MSE() + 0.02 * Diffusion(), levels=Levels(coarsest=16), steps=(40,), solver=Descend(40, 0.3))


@pytest.fixture(scope="module")
def pair(smooth_field) -> Pair:
    """Images without texture; a disc and five points on each, taken there by a smooth field and a turn."""
    grid = Grid.centred(SHAPE, 1.5)
    other = Grid((44, 44), TURN.matrix @ Grid.centred((44, 44), 1.5).affine)
    truth = TURN @ Velocity(smooth_field(SHAPE, 5, amplitude=3.0, shortest=24), grid)

    def disc(at: torch.Tensor) -> torch.Tensor:
        return (at.norm(dim=1, keepdim=True) < 14).long()

    here, there = (g.to_world(g.voxels(g.affine)[None]) for g in (grid, other))
    moving = disc(TURN.inverse()(there.flatten(2).mT).mT.reshape(there.shape))
    seen = disc(TURN.inverse()(truth(here.flatten(2).mT)).mT.reshape(here.shape))
    points = Points(torch.tensor([[[0.0, 0.0], [12, 5], [-9, 8], [4, -13], [-10, -11]]], dtype=torch.float64))
    flat = (Image(torch.zeros(1, 1, *g.shape), g) for g in (grid, other))
    return Pair(*flat, Labels(seen, grid), Labels(moving, other), points, push(points, truth), truth)


def measured(pair: Pair, transform) -> dict[str, float]:
    return numbers_of(Alignment(pair, transform), (Dice(), LandmarkError()))


def solved(pair: Pair, energy) -> dict[str, float]:
    stage = STAGE if energy is None else DeformableStage(**vars(STAGE) | {"constraint": Constraint(energy, pair)})
    return measured(pair, stage(pair.fixed, pair.moving, TURN).transform)


def test_images_without_texture_alone_move_nothing(pair):
    assert solved(pair, None) == pytest.approx(measured(pair, TURN), abs=1e-6)


def test_landmarks_lead_to_their_matches_beyond_a_turn(pair):
    before, after = measured(pair, TURN), solved(pair, 0.1 * LandmarkMSE())
    assert before["tre mm"] > 1.0
    assert after["tre mm"] < 0.15 * before["tre mm"]


def test_labels_cover_each_other_beyond_a_turn(pair):
    before, after = measured(pair, TURN), solved(pair, SoftDice())
    assert before["dice"] < 0.93
    assert after["dice"] > 0.98


def test_both_together(pair):
    after = solved(pair, SoftDice() + 0.1 * LandmarkMSE())
    assert after["dice"] > 0.97
    assert after["tre mm"] < 0.3


def test_a_field_to_go_on_from_is_steered_too(pair):
    start = TURN @ Velocity(torch.zeros(1, 2, *SHAPE), pair.fixed.grid)
    stage = DeformableStage(**vars(STAGE) | {"constraint": Constraint(0.1 * LandmarkMSE(), pair)})
    found = stage(pair.fixed, pair.moving, start).transform
    assert measured(pair, found)["tre mm"] < 0.3 * measured(pair, TURN)["tre mm"]
