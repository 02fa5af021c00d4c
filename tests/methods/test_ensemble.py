"""Deviations without a model: the spread of two answers by hand, and the contracts of registers that have one."""

import math

import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.errors import InputError
from pullback.methods.pair.ensemble import ConstantDeviation, Ensemble, spread_of
from pullback.metrics.calibration import deviation_in
from pullback.numerics.random import make_generator
from pullback.space import Displacement, Grid, Image
from pullback.study.evaluate import unmoved
from pullback.testing import check_register, problems


def test_the_spread_of_registers_is_their_deviation():
    """Two shifts, one voxel apart along the first axis: its variance is a half, and none is left along the other."""
    grid = Grid.centred((12, 10), 2.0)
    image = Image(torch.rand(1, 1, 12, 10, generator=make_generator(0), dtype=torch.float64), grid)
    fields = [torch.zeros(1, 2, *grid.shape, dtype=torch.float64) for _ in range(2)]
    fields[1][:, 0] = 1.0
    answers = [Alignment(Pair(image, image), Displacement(field, grid)) for field in fields]
    spread = deviation_in(spread_of(answers).maps, grid)
    torch.testing.assert_close(spread[:, 0], torch.full_like(spread[:, 0], math.sqrt(0.5)))
    torch.testing.assert_close(spread[:, 1], torch.full_like(spread[:, 1], 0.05))
    even = ConstantDeviation(unmoved, 3.0)(image, image).maps
    assert even["deviation_a"].data.unique().tolist() == [3.0]


@pytest.mark.parametrize("problem", problems("identity", "batch", ndim=2), ids=str)
def test_contract(problem):
    check_register(Ensemble((unmoved, unmoved)), problem, solves=problem.name == "identity")
    check_register(ConstantDeviation(unmoved, 2.0), problem, solves=problem.name == "identity")


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="two registers"):
        Ensemble((unmoved,))
    with pytest.raises(InputError, match="above 0 mm"):
        ConstantDeviation(unmoved, 0.0)
