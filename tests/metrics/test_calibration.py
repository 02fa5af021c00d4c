"""Calibration: densities as scipy has them, coverage of what was drawn from the model, on any grid."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm, spearmanr

from pullback.alignment import Alignment, Pair
from pullback.metrics import Calibration
from pullback.metrics.calibration import (
    binned,
    calibration,
    coverage_of,
    deviation_in,
    deviation_maps,
    errors_of,
    log_densities,
    mean_log_density,
    rank_correlation,
    temperature,
)
from pullback.space import Affine, Displacement, Grid, Image, Points


def drawn(count=4000, factor=1.0, seed=0):
    """Errors of known deviations, which are `factor` times as large as is said, and what is said."""
    draws = torch.Generator().manual_seed(seed)
    said = torch.exp(torch.randn(count, 3, generator=draws, dtype=torch.float64))
    return factor * said * torch.randn(count, 3, generator=draws, dtype=torch.float64), said


def test_log_densities_are_those_of_scipy():
    errors, said = drawn(50, 1.4)
    expected = norm.logpdf(errors.numpy(), scale=said.numpy()).sum(1)
    np.testing.assert_allclose(log_densities(errors, said).numpy(), expected, rtol=0, atol=1e-12)
    kept = np.sort(expected)[1:]  # a fiftieth is dropped
    assert mean_log_density(errors, said, 0.02) == pytest.approx(kept.mean(), abs=1e-12)


def test_what_is_drawn_from_the_model_is_covered_as_it_says():
    """Of 12,000 components, within four standard errors."""
    errors, said = drawn()
    for level in (50.0, 90.0, 95.0):
        error = 400 * math.sqrt(level * (100 - level) / 1e4 / 12_000)
        assert coverage_of(errors, said, level) == pytest.approx(level, abs=error)
    assert temperature(errors, said) == pytest.approx(1, abs=4 / math.sqrt(2 * 12_000))


def test_the_temperature_is_where_the_density_is_greatest():
    errors, said = drawn(400, 2.5)
    best = temperature(errors, said)
    at = [mean_log_density(errors, factor * best * said, 0.0) for factor in (0.99, 1.0, 1.01)]
    assert at[1] == max(at)
    assert temperature(errors, best * said) == pytest.approx(1, abs=1e-12)
    before, after = calibration(errors, said), calibration(errors, best * said)
    assert before["rank correlation"] == after["rank correlation"]
    assert after["coverage 90 %"] == pytest.approx(90, abs=4) != before["coverage 90 %"]


def test_rank_correlation_is_spearmans_with_ties():
    one = torch.tensor([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0, 5.0, 3.0])
    other = torch.tensor([2.0, 7.0, 1.0, 8.0, 2.0, 8.0, 1.0, 8.0, 2.0, 8.0])
    assert rank_correlation(one, other) == pytest.approx(spearmanr(one.numpy(), other.numpy()).statistic, abs=1e-12)
    assert math.isnan(rank_correlation(one, torch.ones(10)))
    errors, said = drawn(20)
    assert "rank correlation" in calibration(errors, said)
    even = 1 + 1e-12 * said  # one number, but for rounding
    assert "rank correlation" not in calibration(errors, even / even.norm(dim=1, keepdim=True))


def test_in_bins_calibrated_errors_are_as_large_as_the_deviation():
    errors, said = drawn(20_000)
    said = said.clamp(0.5, 2)
    errors = said * torch.randn(said.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    known = binned(errors, said, 8)
    assert sum(one.count for one in known) == 20_000
    assert all(one.low < one.error < one.high for one in known if one.count > 1500)
    assert math.isnan(binned(errors[:2], said[:2], 5)[2].error)


@pytest.fixture
def flipped():
    """A grid whose axes are permuted, flipped and anisotropic: i is near −S, j near R, k near A."""
    affine = torch.zeros(4, 4, dtype=torch.float64)
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = -2.0, 3.0, 1.0, 1.0
    affine[:3, 3] = torch.tensor([5.0, -7.0, 11.0])
    turn = torch.eye(4, dtype=torch.float64)
    turn[:2, :2] = torch.tensor([[math.cos(0.2), -math.sin(0.2)], [math.sin(0.2), math.cos(0.2)]])
    return Grid((6, 7, 8), turn @ affine)


def test_maps_say_mm_by_world_axis_and_are_read_back(flipped):
    deviation = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1, 1).expand(1, 3, *flipped.shape).contiguous()
    maps = deviation_maps(deviation, flipped)
    shown = {name: float(image.data.flatten()[0]) for name, image in maps.items()}
    assert shown == pytest.approx(
        {"deviation": math.sqrt(2**2 + 6**2 + 3**2), "deviation_r": 6, "deviation_a": 3, "deviation_s": 2}
    )
    torch.testing.assert_close(deviation_in(maps, flipped), deviation)
    assert deviation_in({}, flipped) is None


def test_errors_are_the_same_at_landmarks_as_of_the_truth_on_any_grid(flipped):
    """Of a truth that is linear along the grid: in mm along its axes, whatever its affine."""
    draws = torch.Generator().manual_seed(1)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3] += 0.05 * torch.randn(3, 4, generator=draws, dtype=torch.float64)
    truth = Affine(matrix)
    image = Image(1 + torch.rand(1, 1, *flipped.shape, generator=draws), flipped)
    deviation = torch.rand(1, 3, *flipped.shape, generator=draws, dtype=torch.float64) + 0.5
    field = Displacement(torch.randn(1, 3, *flipped.shape, generator=draws, dtype=torch.float64), flipped)
    dense = errors_of(Alignment(Pair(image, image, truth=truth), field, deviation_maps(deviation, flipped)))
    where = flipped.voxels(deviation).flatten(1)[None]
    points = flipped.to_world(where).mT
    pair = Pair(image, image, fixed_points=Points(points), moving_points=Points(truth(points)))
    sparse = errors_of(Alignment(pair, field, deviation_maps(deviation, flipped)))
    seen = (image.data > image.data.min()).flatten()
    for one, other in zip(dense, sparse, strict=True):
        torch.testing.assert_close(one, other[seen], rtol=1e-6, atol=1e-6)
    off = (truth(points) - field(points)) @ (flipped.affine[:3, :3] / flipped.spacing)  # along the grid's axes
    torch.testing.assert_close(sparse[0], off[0], rtol=1e-9, atol=1e-9)
    assert Calibration()(Alignment(pair, field, deviation_maps(deviation, flipped)))["rms z"] > 0
    assert Calibration()(Alignment(pair, field)) == {}
    assert Calibration()(Alignment(Pair(image, image), field, deviation_maps(deviation, flipped))) == {}
