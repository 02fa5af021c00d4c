"""Points come to rest on the points nearest them."""

import pytest
import torch

from pullback.numerics.random import generator
from pullback.numerics.spline import spline
from pullback.solvers import Settle


def grid_cloud(seed, n=6):
    """Points 10 mm apart, jittered."""
    axis = 10 * torch.arange(n, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).view(-1, 3)
    return points + 4 * torch.rand(points.shape, generator=generator(seed), dtype=torch.float64)


def warp(points):
    return points + torch.stack([2 * (points[:, 1] / 15).sin(), 0.04 * points[:, 0] + 1, points[:, 2] * 0], 1)


def still(points):
    return spline(points, torch.zeros_like(points))


def test_a_smooth_warp_is_found_though_half_the_points_lack_a_partner():
    points, chance = grid_cloud(0), generator(1)
    fixed = points[torch.randperm(len(points), generator=chance)[:150]]
    moving = warp(points)[torch.randperm(len(points), generator=chance)[:150]]
    before = (warp(fixed) - fixed).norm(dim=1).mean()
    found = Settle()(fixed, moving, still(fixed))
    assert (fixed + found(fixed) - warp(fixed)).norm(dim=1).mean() < 0.4 * before


def test_points_on_their_partners_stay():
    fixed = grid_cloud(2)
    assert Settle()(fixed, fixed, still(fixed))(fixed).abs().max() < 0.05


def test_far_points_do_not_pull():
    """A cloud out of reach leaves no point certain, and the answer is not moved all the way to it."""
    fixed = grid_cloud(3)
    near = Settle(iterations=1)(fixed, fixed + 2.0, still(fixed))(fixed)
    assert near.mean() == pytest.approx(2.0, abs=0.5)
    chosen = torch.arange(len(fixed)) % 10 == 0
    partly = torch.where(chosen[:, None], fixed + 6.0, fixed)
    assert Settle()(fixed, partly, still(fixed))(fixed).abs().mean() < 0.3
