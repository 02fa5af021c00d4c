"""What a map marks, counted by hand."""

import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.metrics import LesionDice
from pullback.space import Affine, Grid, Image, Labels


def alignment(mark, lesion=None, data=None):
    grid = Grid.centred((4, 5), 1.0)
    image = Image(torch.arange(20.0).view(1, 1, 4, 5) if data is None else data, grid)
    known = None if lesion is None else Labels(lesion, grid)
    maps = {} if mark is None else {"non_correspondence": Image(mark, grid)}
    return Alignment(Pair(image, image, lesion=known), Affine.identity(2), maps)


def test_by_hand():
    """Of 19 voxels above the least, 4 are marked; 3 of them are in the lesion of 6."""
    mark, lesion = torch.zeros(1, 1, 4, 5), torch.zeros(1, 1, 4, 5).long()
    lesion[0, 0, 1:3, 1:4] = 1
    mark[0, 0, 1, 1:4], mark[0, 0, 3, 4], mark[0, 0, 2, 1] = 0.9, 0.7, 0.5
    found = LesionDice()(alignment(mark, lesion))
    assert found["lesion dice"] == pytest.approx(2 * 3 / (4 + 6))
    assert found["marked %"] == pytest.approx(100 * 4 / 19)
    assert found["mean of map"] == pytest.approx((3 * 0.9 + 0.7 + 0.5) / 19)


def test_without_a_lesion_what_is_marked_is_told_and_without_a_map_nothing():
    mark = torch.full((1, 1, 4, 5), 0.6)
    for none in (None, torch.zeros(1, 1, 4, 5).long()):
        assert LesionDice()(alignment(mark, none)) == {"marked %": 100.0, "mean of map": pytest.approx(0.6)}
    assert LesionDice()(alignment(None, torch.ones(1, 1, 4, 5).long())) == {}
    assert LesionDice("other")(alignment(mark)) == {}
