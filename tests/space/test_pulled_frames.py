"""Frames that are pulled when asked for: as pull has them, and no others are read."""

import pytest
import torch

from pullback.numerics.random import make_generator
from pullback.space import Affine, Grid, Image, Series, pull

GRID = Grid.centred((9, 8), 2.0)
FRAMES = Image(torch.rand(3, 1, 9, 8, generator=make_generator(0)), GRID)
SERIES = Series.of(FRAMES, torch.arange(3, dtype=torch.float64))


def shifts() -> list[Affine]:
    matrix = torch.eye(3, dtype=torch.float64).repeat(3, 1, 1)
    matrix[:, 0, 2] = torch.tensor([0.0, 2.0, -3.0])
    return [Affine(each) for each in matrix]


def test_each_frame_goes_through_its_own():
    pulled = SERIES.pulled(shifts(), "cubic")
    known = pull(FRAMES, shifts()[0].stack(shifts()[1:]), onto=GRID, mode="cubic").data
    torch.testing.assert_close(pulled.image.data, known, rtol=0, atol=1e-5)
    torch.testing.assert_close(pulled.frames[1:][0].data, known[1:2], rtol=0, atol=1e-5)
    assert torch.equal(pulled.times, SERIES.times)


def test_only_what_is_asked_for_is_pulled():
    class Fails(tuple):
        def __getitem__(self, index):
            assert index == 2
            return tuple.__getitem__(self, index)

    series = Series(Fails(SERIES.frames), GRID, SERIES.times)
    assert series.pulled(shifts()).frames[2].data.shape == (1, 1, 9, 8)


def test_as_many_transforms_as_frames_are_wanted():
    with pytest.raises(ValueError, match="each of 3 frames"):
        SERIES.pulled(shifts()[:2])
