"""An energy of some channels is that energy of images that have these alone, and pulls them once."""

import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.energies import LNCC, MSE, OnChannels
from pullback.numerics.random import make_generator
from pullback.space import Displacement, Grid, Image


@pytest.fixture
def alignment(smooth_field) -> Alignment:
    grid = Grid.centred((16, 14), 1.0)
    data = torch.rand(2, 4, *grid.shape, generator=make_generator(0), dtype=torch.float64)
    fixed, moving = (Image(data[n : n + 1], grid) for n in range(2))
    return Alignment(Pair(fixed, moving), Displacement(smooth_field(grid.shape, 1, amplitude=1.5), grid))


@pytest.mark.parametrize(("first", "count"), [(0, 1), (1, 3), (3, 1)])
@pytest.mark.parametrize("energy", [MSE(), LNCC(5)])
def test_it_is_the_energy_of_these_channels(alignment, energy, first, count):
    fixed, moving = (
        Image(image.data[:, first : first + count], image.grid)
        for image in (alignment.pair.fixed, alignment.pair.moving)
    )
    alone = energy(Alignment(Pair(fixed, moving), alignment.transform))
    part = OnChannels(energy, first, count)
    torch.testing.assert_close(part(alignment), alone)
    torch.testing.assert_close(part.on(alignment.pair)(alignment.transform), alone)
    assert energy(alignment) != alone


def test_the_gradient_reaches_the_transform(alignment):
    field = alignment.transform.params[0].clone().requires_grad_()
    moved = Displacement(field, alignment.pair.fixed.grid)
    (slope,) = torch.autograd.grad(OnChannels(MSE(), 2)(Alignment(alignment.pair, moved)), field)
    assert float(slope.abs().max()) > 0


def test_the_image_is_pulled_once(alignment):
    assert alignment.of_channels(1, 2).moved.data.data_ptr() == alignment.moved.data[:, 1:].data_ptr()


def test_channels_that_are_not_there_are_refused(alignment):
    with pytest.raises(ValueError, match="channels 3 … 4 of images that have 4"):
        OnChannels(MSE(), 3, 2)(alignment)
