"""Plates compared with slices without training: known places are found, and a slice is laid where it was cut."""

import math
from dataclasses import replace

import pytest
import torch

from pullback.alignment import Pair
from pullback.energies import NCC
from pullback.methods.pair.classical import FAST
from pullback.methods.pose.slice_search import (
    Found,
    RegisteredSearch,
    TemplateSearch,
    placed,
    scaled,
    similarity,
    turning,
)
from pullback.numerics.smooth import smooth_noise
from pullback.solvers import Converged, Descend, Levels, LinearStage
from pullback.space import Affine, Grid, Image, Motion, pull

SIZE, COUNT = 48, 6


def made():
    """Plates of smooth noise within a disc."""
    at = torch.linspace(-1, 1, SIZE)
    disc = (at[:, None] ** 2 + at[None] ** 2 < 0.9).float()
    noise = smooth_noise((COUNT, 1, SIZE, SIZE), 2.0, torch.Generator().manual_seed(3), torch.zeros(()))
    return Image((0.5 + 0.25 * noise).clamp(0, 1) * disc, Grid.centred((SIZE, SIZE)))


BIG = made()
SEARCH = TemplateSearch((1.0, 0.75), (-6.0, 0.0, 6.0), SIZE)


def cut(plate, affine):
    """What is seen of a plate through a map from the slice."""
    return pull(plate, affine, onto=plate)


@pytest.mark.parametrize(("scale", "degrees", "shift"), [(1.0, 0.0, (0, 0)), (1.0, 6.0, (3, -2)), (0.75, -6.0, (4, 5))])
def test_a_place_among_those_that_are_tried_is_found(scale, degrees, shift):
    angle = math.radians(degrees)
    linear = scale * torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]).double()
    truth = Affine.about(linear, torch.zeros(2).double(), torch.tensor(shift).double())
    found: Found = SEARCH(cut(BIG.nth(2), truth), SEARCH.described(BIG))
    assert int(found.correlation.argmax()) == 2
    assert (float(found.scale[2]), float(found.degrees[2])) == (scale, degrees)
    assert (found.shift[2] - torch.tensor(shift)).abs().max() <= 1
    corners = 20 * torch.tensor([[[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0]]]).double()
    assert (found.affine(2)(corners) - truth(corners)).norm(dim=2).max() < 1.5


def check_identifier(identifier):
    """A slice that is a plate finds it first, alone or among others."""
    described = identifier.described(BIG)
    both = replace(BIG, data=BIG.data[4:6])
    far = identifier.distances(both, described)
    assert far.shape == (2, COUNT)
    assert far.argmin(1).tolist() == [4, 5]
    assert torch.allclose(identifier.distances(BIG.nth(4), described), far[:1], atol=1e-5)


QUICK = replace(
    FAST,
    initialise=None,
    linear=(("affine", LinearStage(Motion.affine, NCC(), Levels(most=3000), Descend(40, 0.4, until=Converged(10)))),),
    deformable=None,
)


def test_identifiers():
    check_identifier(TemplateSearch((1.0,), (0.0,), 24))
    check_identifier(RegisteredSearch(replace(QUICK, linear=()), None, 24))


def test_a_registered_slice_is_more_like_its_plate():
    """A stretch that no start of the search has."""
    stretch = Affine.about(torch.diag(torch.tensor([1.1, 0.92])).double(), torch.zeros(2).double())
    slice_ = cut(BIG.nth(1), stretch)
    known = replace(BIG, data=BIG.data[:3])
    search = RegisteredSearch(QUICK, SEARCH, SIZE)
    far = search.distances(slice_, search.described(known))
    before = SEARCH.distances(slice_, SEARCH.described(known))
    assert int(far.argmin()) == 1
    assert far.shape == (1, 3)
    assert float(far[0, 1]) < 0.5 * float(before[0, 1])


def test_alike_is_one_and_inverted_is_below_zero():
    plate = BIG.nth(0)
    assert similarity(Pair(plate, plate)) == pytest.approx(1, abs=1e-6)
    assert similarity(Pair(plate, replace(plate, data=plate.data.max() - plate.data))) < -0.5


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("quarters", range(4))
def test_turned_squares_are_those_of_torch(quarters, mirrored):
    plate = BIG.nth(0)
    turned = torch.rot90(plate.data, -quarters, (2, 3))
    seen = pull(plate, turning(quarters, mirrored), onto=plate).data
    assert torch.allclose(seen, turned.flip(2) if mirrored else turned, atol=1e-4)


@pytest.mark.parametrize("way", [(0, True), (1, False), (3, True)])
def test_a_slice_is_laid_where_it_was_cut(way):
    """On grids of its own in a world of its own, turned and mirrored: each point is led to that of the plate."""
    whole, turn = BIG.nth(4), turning(*way)
    plate = Image(whole.data, Grid.centred((SIZE, SIZE), 0.5))
    there = torch.tensor([[0.02, 0.0, 7.0], [0.0, 0.02, -3.0], [0.0, 0.0, 1.0]]).double()
    grid = Grid((SIZE, SIZE), there @ BIG.grid.affine)
    truth = Affine(
        plate.grid.affine @ torch.linalg.inv(BIG.grid.affine) @ turn.inverse().matrix @ torch.linalg.inv(there)
    )
    found, squares = placed(Image(cut(whole, turn.inverse()).data, grid), plate, QUICK, turn, SEARCH, SIZE)
    points = grid.to_world(torch.tensor([[[10.0, 35.0, 24.0], [12.0, 14.0, 33.0]]]).double()).mT
    assert (found.transform(points) - truth(points)).norm(dim=2).max() < 0.5, "a voxel of the plate"
    assert similarity(squares) > 0.95


def test_scaled_maps_in_units_of_another_length():
    one = Affine.about(2 * torch.eye(2).double(), torch.zeros(2).double(), torch.tensor([3.0, 4.0]).double())
    point = torch.tensor([[[1.0, 2.0]]]).double()
    assert torch.allclose(scaled(one, 5.0)(5 * point), 5 * one(point))
