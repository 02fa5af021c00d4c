"""Points come to rest on the points nearest them."""

import pytest
import torch

from pullback.numerics.random import make_generator
from pullback.numerics.spline import spline
from pullback.solvers import RobustPointMatching


def grid_cloud(seed, n=6):
    """Points 10 mm apart, jittered."""
    axis = 10 * torch.arange(n, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).view(-1, 3)
    return points + 4 * torch.rand(points.shape, generator=make_generator(seed), dtype=torch.float64)


def warp(points):
    return points + torch.stack([2 * (points[:, 1] / 15).sin(), 0.04 * points[:, 0] + 1, points[:, 2] * 0], 1)


def still(points):
    return spline(points, torch.zeros_like(points))


def test_a_smooth_warp_is_found_though_half_the_points_lack_a_partner():
    points, generator = grid_cloud(0), make_generator(1)
    fixed = points[torch.randperm(len(points), generator=generator)[:150]]
    moving = warp(points)[torch.randperm(len(points), generator=generator)[:150]]
    before = (warp(fixed) - fixed).norm(dim=1).mean()
    found = RobustPointMatching()(fixed, moving, still(fixed))
    assert (fixed + found(fixed) - warp(fixed)).norm(dim=1).mean() < 0.4 * before


def test_points_on_their_partners_stay():
    fixed = grid_cloud(2)
    assert RobustPointMatching()(fixed, fixed, still(fixed))(fixed).abs().max() < 0.05


@pytest.mark.slow
def test_points_of_a_surface_meet_only_points_of_a_surface():
    """One that lies on the cloud moves nothing; one that has moved leads a cloud that has lost its partners along."""
    fixed = grid_cloud(4)
    away = fixed + torch.tensor([300.0, 0, 0], dtype=torch.float64)
    shell = (
        50 * torch.nn.functional.normalize(torch.randn(300, 3, generator=make_generator(5), dtype=torch.float64)) + 25
    )
    kept = RobustPointMatching()(fixed, fixed, still(fixed), (shell, shell.flip(0)))
    assert kept(fixed).abs().max() < 0.05
    led = RobustPointMatching()(fixed, away, still(fixed), (shell, shell + 3.0))(fixed)
    torch.testing.assert_close(led, torch.full_like(led, 3.0), atol=0.1, rtol=0)


def test_momentum_comes_to_the_same_rest():
    fixed = grid_cloud(6)
    moving = warp(fixed)[torch.randperm(len(fixed), generator=make_generator(7))[:150]]
    plain, hurried = (
        RobustPointMatching(iterations=60, momentum=m)(fixed, moving, still(fixed))(fixed) for m in (0.0, 0.8)
    )
    torch.testing.assert_close(hurried, plain, atol=1e-6, rtol=0)


def test_far_points_do_not_pull():
    """A cloud out of reach leaves no point certain, and the answer is not moved all the way to it."""
    fixed = grid_cloud(3)
    near = RobustPointMatching(iterations=1)(fixed, fixed + 2.0, still(fixed))(fixed)
    assert near.mean() == pytest.approx(2.0, abs=0.5)
    chosen = torch.arange(len(fixed)) % 10 == 0
    partly = torch.where(chosen[:, None], fixed + 6.0, fixed)
    assert RobustPointMatching()(fixed, partly, still(fixed))(fixed).abs().mean() < 0.3
