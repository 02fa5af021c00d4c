"""Descent between features: against its closed form, and at the border."""

from dataclasses import replace

import pytest
import torch

from pullback.numerics.cost_volume import box_mean
from pullback.numerics.random import make_generator
from pullback.numerics.sample import sample, voxels
from pullback.solvers import Descend, FeatureDescent
from pullback.stats import Stats


def waves(shape, shift=0.0):
    """Two channels, of which one goes below 0, moved by `shift` voxels along the first axis."""
    x, y = (torch.arange(n, dtype=torch.float32) for n in shape)
    x = (x + shift)[:, None]
    return torch.stack([torch.sin(x / 3) + 0 * y, torch.cos(x / 4) * torch.sin(y / 3) - 1])[None]


def objective(descent, *given) -> float:
    """What the descent would make less, where it begins."""
    seen = []

    class Look(Descend):
        def __call__(self, objective, start):
            seen.append(float(objective(start)))
            return start, Stats()

    replace(descent, solver=Look())(*given)
    return seen[0]


def test_features_that_were_moved_are_found():
    shape = (24, 20)
    found = FeatureDescent(0.01, Descend(150, 0.2))(waves(shape), waves(shape, -1.5), torch.zeros(1, 2, *shape))
    inner = found[:, :, 4:-4, 4:-4]
    assert float((inner[:, 0] - 1.5).abs().mean()) < 0.1
    assert float(inner[:, 1].abs().mean()) < 0.1


def test_means_of_the_answer_are_box_means():
    shape = (24, 20)
    given = waves(shape), waves(shape, -1.5), torch.zeros(1, 2, *shape)
    how = FeatureDescent(0.01, Descend(5, 0.2))
    expected = how(*given)
    for _ in range(3):
        expected = box_mean(expected, 3)
    torch.testing.assert_close(replace(how, means=3)(*given), expected)


def test_beyond_the_border_there_are_no_features():
    """No step: what is differentiated is the squared difference to features that are 0 beyond the border, as with the
    public package of ConvexAdam, whose `grid_sample` pads with zeros; also where all features are below 0."""
    shape = (12, 10)
    fixed, moving = waves(shape) - 1, waves(shape, 2.0) - 1
    field = torch.full((1, 2, *shape), 5.0)
    moved = sample(moving, voxels(shape, field)[None] + field)
    assert float(moved[..., -4:, -4:].abs().max()) == 0
    expected = float((moved - fixed).square().sum(1).mean())
    assert objective(FeatureDescent(0.0, smoothing=1), fixed, moving, field) == pytest.approx(expected, rel=1e-5)


def test_voxels_count_by_their_weight():
    """Here the left half alone; what the right one holds makes no difference."""
    shape, still = (12, 10), torch.zeros(1, 2, 12, 10)
    half = (torch.arange(12) < 6).float().view(1, 1, 12, 1).expand(1, 1, *shape)
    fixed, moving = waves(shape), waves(shape, 2.0)
    expected = float((moving - fixed)[:, :, :6].square().sum(1).mean())
    for other in (moving, torch.where(half > 0, moving, 99.0)):
        assert objective(FeatureDescent(smoothing=1), fixed, other, still, half) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 4)])
def test_regularity_adds_up_over_axes(shape):
    """And is a mean over components: of a linear field, λ times that of their squared slopes."""
    still, slopes = torch.zeros(1, 1, *shape), torch.randn(len(shape), len(shape), generator=make_generator(0))
    field = torch.einsum("ca,a...->c...", slopes, voxels(shape, still))[None]
    expected = 3.0 * float(slopes.square().sum(1).mean())
    assert objective(FeatureDescent(3.0, smoothing=1), still, still, field) == pytest.approx(expected, rel=1e-5)
