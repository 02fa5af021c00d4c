"""Ensembles: the mean and spread of transforms of any kind, and how probable they make labels."""

import math

import pytest
import torch

from pullback.space import Affine, Displacement, Grid, Labels, Velocity, label_probability, mean_and_deviation

GRID = Grid.centred((9, 7), (2.0, 3.0))


def shift(*mm):
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[:-1, -1] = torch.tensor(mm)
    return Affine(matrix)


def test_mean_and_deviation_are_those_of_all_displacements():
    """Of transforms of several kinds, on any grid, as torch computes them when all of them are held at once."""
    draws = torch.Generator().manual_seed(0)
    coarse = Grid.centred((5, 4), 5.0)
    fields = [torch.randn(1, 2, *coarse.shape, generator=draws, dtype=torch.float64) for _ in range(3)]
    known = [Displacement(fields[0], coarse), Velocity(0.1 * fields[1], coarse), shift(3.0, -1.0), shift(4.0, 2.0)]
    each = torch.stack([one.displacement(GRID).double() for one in known])
    mean, deviation = mean_and_deviation(iter(known), GRID)
    torch.testing.assert_close(mean.field, each.mean(0), rtol=0, atol=1e-12)
    torch.testing.assert_close(deviation, each.std(0), rtol=0, atol=1e-12)
    assert mean.grid is GRID


def test_what_lies_far_away_loses_no_digit():
    """In float32, of three shifts of 10,000 voxels that differ by one."""
    far = [Displacement(torch.full((1, 2, *GRID.shape), 1e4 + n), GRID) for n in range(3)]
    mean, deviation = mean_and_deviation(far, GRID)
    assert torch.equal(mean.field, torch.full_like(mean.field, 1e4 + 1))
    assert torch.equal(deviation, torch.ones_like(deviation))


def test_one_transform_has_no_deviation_and_none_no_mean():
    mean, deviation = mean_and_deviation([shift(2.0, 3.0)], GRID)
    torch.testing.assert_close(mean.field, torch.ones_like(mean.field))
    assert deviation.isnan().all()
    with pytest.raises(ValueError, match="none"):
        mean_and_deviation([], GRID)


def test_labels_are_as_probable_as_many_transforms_say():
    data = torch.zeros(1, 1, *GRID.shape, dtype=torch.int16)
    data[..., 4, :], data[..., 5, :] = 7, 2
    probable, values = label_probability(Labels(data, GRID), [shift(0.0, 0.0)] * 3 + [shift(2.0, 0.0)], onto=GRID)
    assert values == (2, 7)
    rows = probable.data[0, :, :, 0]
    assert rows[:, 3:6].tolist() == [[0, 0.25, 0.75], [0.25, 0.75, 0]]
    assert math.isclose(float(rows.sum()), 2)
    with pytest.raises(ValueError, match="none"):
        label_probability(Labels(data, GRID), [], onto=GRID)
