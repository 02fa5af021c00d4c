"""Pulling in slabs: as all at once, exactly, and never more than a slab of coordinates."""

import sys

import pytest
import torch

from pullback.numerics import integrate
from pullback.numerics.sample import sample as sampled
from pullback.space import (
    Affine,
    Displacement,
    Grid,
    Image,
    Labels,
    Velocity,
    displacement_in_slabs,
    inverted,
    pull,
    pull_in_slabs,
)

SHAPES = [(22, 20), (13, 15, 14)]
MODULE = sys.modules["pullback.space.pull"]  # of which the package shows a function of the same name
LOWEST = torch.finfo(torch.float32).min


@pytest.fixture
def thin(monkeypatch):
    """Slabs of one or two layers, and a record of how many places are looked at together."""
    seen, contiguous = [], []

    def counted(values, where, *more):
        seen.append(where[0, 0].numel())
        contiguous.append(values.is_contiguous())
        return sampled(values, where, *more)

    monkeypatch.setattr(MODULE, "SLAB", 400)
    monkeypatch.setattr(MODULE, "sample", counted)
    return seen, contiguous


def scene(oblique, smooth_field, shape):
    fixed, moving = oblique(shape, 3), oblique(tuple(n - 2 for n in shape), 4)
    field = Displacement(smooth_field(shape, 2, amplitude=1.2, fade=False), fixed)
    matrix = torch.eye(len(shape) + 1, dtype=torch.float64)
    matrix[0, 1], matrix[0, -1] = 0.1, 0.6
    stored = torch.rand(*reversed(moving.shape), generator=torch.Generator().manual_seed(1)).double() - 3
    image = Image(stored.permute(*reversed(range(len(shape))))[None, None], moving)  # as NIfTI has it, i first
    affine = Affine(matrix)
    ways = {
        "affine": affine,
        "field": field,
        "composite": affine @ field,
        "velocity": Velocity(field.field, fixed),
        "inverse": inverted(affine @ field),
    }
    return fixed, image, ways


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", ["linear", "cubic", "nearest"])
@pytest.mark.parametrize("way", ["affine", "field", "composite", "velocity", "inverse"])
@pytest.mark.parametrize("outside", [None, 7.5])
def test_slabs_are_the_whole(oblique, smooth_field, thin, shape, mode, way, outside):
    fixed, image, ways = scene(oblique, smooth_field, shape)
    found = pull_in_slabs(image, ways[way], fixed, mode, outside)
    seen, contiguous = thin
    assert all(contiguous)  # else it would be copied for each slab
    assert max(seen) <= 400 < fixed.voxels(image.data)[0].numel()
    whole = pull(image, ways[way], fixed, mode, outside)
    near = (found.data - whole.data).abs() < 1e-6
    assert near.double().mean() > (0.995 if mode == "nearest" else 0.9999)  # between two voxels either is nearest


@pytest.mark.parametrize("shape", SHAPES)
def test_a_field_in_slabs_is_the_field(oblique, smooth_field, thin, shape):
    fixed, _, ways = scene(oblique, smooth_field, shape)
    for way in ways.values():
        torch.testing.assert_close(
            displacement_in_slabs(way, fixed).field, way.displacement(fixed), atol=2e-3, rtol=0
        )  # which is the tolerance of an inverse


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_labels_keep_their_numbers_and_type(oblique, thin, dtype):
    grid = oblique((9, 8, 10), 3)
    numbers = torch.tensor([0, 1, torch.iinfo(dtype).max, torch.iinfo(dtype).max - 1], dtype=dtype)
    labels = Labels(numbers[torch.randint(0, 4, (1, 1, *grid.shape), generator=torch.Generator().manual_seed(0))], grid)
    found = pull_in_slabs(labels, Affine.identity(3), grid)
    assert found.data.dtype == dtype
    assert torch.equal(found.data, labels.data)


@pytest.mark.parametrize("puller", [pull, pull_in_slabs])
@pytest.mark.parametrize("lowest", [-9999.0, -1e6, -1e10, LOWEST])
def test_a_background_far_below_costs_no_digit(puller, lowest):
    """Within, values are those of the image without the background; beyond the border it lies everywhere."""
    grid = Grid.centred((12, 11, 10))
    plain = torch.rand(1, 1, *grid.shape, generator=torch.Generator().manual_seed(0))
    framed = torch.full_like(plain, lowest)
    inner = (..., *[slice(2, -2)] * 3)
    framed[inner] = plain[inner]
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[0, 3] = 0.25
    one, two = (puller(Image(data, grid), Affine(matrix), grid).data for data in (plain, framed))
    deep = (..., *[slice(3, -3)] * 3)
    torch.testing.assert_close(two[deep], one[deep], atol=1e-6, rtol=0)
    matrix[0, 3] = 40
    assert (puller(Image(framed, grid), Affine(matrix), grid).data == lowest).all()


def test_nan_may_lie_beyond():
    grid = Grid.centred((6, 5, 4))
    image = Image(torch.rand(1, 1, *grid.shape), grid)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[0, 3] = 2
    found = pull_in_slabs(image, Affine(matrix), grid, outside=torch.nan).data
    assert found[:, :, :4].isfinite().all()
    assert found[:, :, 4:].isnan().all()


@pytest.mark.parametrize("far", [0.0, 1e5, -3e7])
def test_far_from_the_origin_as_near_it(smooth_field, far):
    """In single precision a world coordinate of 3e7 mm is known to 2 mm; places on a grid are not."""
    shape = (14, 12, 10)
    near = Grid.centred(shape, 0.5)
    affine = near.affine.clone()
    affine[0, 3] += far
    away = Grid(shape, affine)
    field = smooth_field(shape, 2, amplitude=1.2, fade=False).float()
    turn = torch.eye(4, dtype=torch.float64)
    turn[0, 1], turn[1, 0] = 0.1, -0.1
    shift = torch.eye(4, dtype=torch.float64)
    shift[0, 3] = far
    moved = Affine(shift @ turn @ torch.linalg.inv(shift))
    here = (Affine(turn) @ Displacement(field, near)).displacement(near)
    there = (moved @ Displacement(field, away)).displacement(away)
    torch.testing.assert_close(there, here, atol=2e-5, rtol=0)
    twice = Displacement(field, away) @ Displacement(field, away)
    expected = (Displacement(field, near) @ Displacement(field, near)).displacement(near)
    torch.testing.assert_close(twice.displacement(away), expected, atol=2e-5, rtol=0)
    home = inverted(Displacement(field, near)).displacement(near)
    torch.testing.assert_close(inverted(Displacement(field, away)).displacement(away), home, atol=2e-3, rtol=0)


def test_a_field_is_inverted_in_parts_as_in_one(smooth_field, monkeypatch):
    field = smooth_field((16, 14), 1, amplitude=1.5)
    whole = integrate.invert(field)
    monkeypatch.setattr(integrate, "CHUNK", 50)
    torch.testing.assert_close(integrate.invert(field), whole, atol=2e-3, rtol=0)  # both within the tolerance
