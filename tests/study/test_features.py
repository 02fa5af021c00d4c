"""What the study of features compares, on small images."""

import pytest
import torch

from pullback.numerics.random import make_generator
from pullback.space import Grid, Image
from pullback.studies._features import STAGES, WithChannels, steepness, tissues


@pytest.fixture(scope="module")
def head() -> Image:
    """Three levels of intensity with noise in rings about the middle, on black, under a bias of a third."""
    grid = Grid.centred((40, 40, 12), 1.0)
    at = grid.to_world(grid.voxels(torch.zeros(()).double())[None])
    away = at[:, :2].norm(dim=1, keepdim=True)
    level = torch.zeros_like(away)
    for radius, value in ((17, 0.3), (13, 0.55), (7, 0.8)):
        level = torch.where(away < radius, value, level)
    noise = 0.02 * torch.randn(level.shape, generator=make_generator(0), dtype=torch.float64)
    bias = 1 + at[:, :1] / 120
    return Image(torch.where(level > 0, level * bias + noise, 0).float(), grid)


def test_steep_places_are_between_the_rings(head):
    found = steepness(head)
    assert found.shape == head.data.shape
    assert float((found <= 1).float().mean()) == pytest.approx(0.99, abs=0.002)
    assert float(found[0, 0, 20, 20, 6]) < 0.3 < float(found[0, 0, 20, 27, 6])


def test_tissues_are_told_apart_through_the_bias(head):
    found = tissues(head)
    assert found.shape == (1, 3, *head.grid.shape)
    inside = head.data[0, 0] > 0.1
    torch.testing.assert_close(found[0].sum(0)[inside], torch.ones(int(inside.sum())))
    assert not found[0].sum(0)[head.data[0, 0] == 0].any()
    at = head.grid.to_world(head.grid.voxels(torch.zeros(()).double())[None])
    away = at[0, :2].norm(dim=0)
    for n, (low, high) in enumerate(((14, 16), (8, 12), (0, 6))):
        assert float(found[0, n][(away > low) & (away < high)].mean()) > 0.9


def test_further_channels_do_not_change_a_pair_that_fits(head):
    stage = STAGES["and tissues"]
    assert isinstance(stage, WithChannels)
    moved = stage(head, head).transform.displacement(head.grid)
    assert float(moved.abs().max()) < 0.05
