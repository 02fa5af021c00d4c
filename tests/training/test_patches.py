"""Patches: where they lie, what they show, and that nothing moves."""

from dataclasses import replace

import pytest
import torch

from pullback.alignment import Pair
from pullback.errors import InputError
from pullback.numerics.random import make_generator
from pullback.space import Affine, Grid, Image, Labels, Points, part_of, pull
from pullback.training import RandomPatches

GRID = Grid((50, 44), torch.tensor([[0.0, -1.5, 7.0], [1.5, 0.0, -2.0], [0.0, 0.0, 1.0]], dtype=torch.float64))


def pair(corner: bool = False) -> Pair:
    """A bright half, or a corner, whose values tell where they are; the moving image on another grid."""
    where = GRID.to_world(GRID.voxels(torch.zeros((), dtype=torch.float64))[None])
    shown = torch.zeros(1, 1, *GRID.shape)
    shown[..., slice(40, None) if corner else slice(None), slice(36, None) if corner else slice(20, None)] = 1
    data = shown * (5000 + where[:, :1] + 10 * where[:, 1:]).float()
    moving = pull(Image(data, GRID), Affine.identity(2), onto=Grid.centred((60, 60), 1.5))
    labels = Labels(shown.byte(), GRID)
    points = Points(torch.zeros(1, 2, 2, dtype=torch.float64))
    return Pair(Image(data, GRID), moving, labels, None, points, points, Affine.identity(2), name="a")


@pytest.mark.parametrize("seed", range(4))
def test_a_patch_is_a_part_of_the_image_and_stays_where_it_is(seed):
    """With its margin, 0 beyond the image; its mask is the foreground, and what belongs to the pair stays right."""
    known = pair()
    found = RandomPatches(24, 12)(known, make_generator(seed))
    assert found.fixed.grid.shape == (24, 24)
    there = found.fixed.grid
    torch.testing.assert_close(
        found.fixed.data, pull(known.fixed, Affine.identity(2), onto=there).data, atol=0.01, rtol=0
    )
    torch.testing.assert_close(found.moving.data, pull(known.moving, Affine.identity(2), onto=there).data)
    assert torch.equal(found.fixed.mask, found.fixed.data > 0)
    assert float(found.fixed.mask[..., 6:-6, 6:-6].float().mean()) >= 0.2
    assert (found.truth, found.fixed_points, found.moving_points) == (
        known.truth,
        known.fixed_points,
        known.moving_points,
    )
    assert found.fixed_labels is None


def test_middles_lie_within_the_image_and_reach_its_ends():
    corners = []
    for seed in range(200):
        grid = RandomPatches(24, 12, inside=0.0)(pair(), make_generator(seed)).fixed.grid
        corners.append(GRID.to_voxels(grid.to_world(torch.full((1, 2, 1), 6.0, dtype=torch.float64)))[0, :, 0])
    first, last = torch.stack(corners).amin(0), torch.stack(corners).amax(0)
    torch.testing.assert_close(first, torch.zeros(2).double(), atol=1.01, rtol=0)
    torch.testing.assert_close(last, torch.tensor([38.0, 32.0]).double(), atol=1.01, rtol=0)


def test_a_little_foreground_is_found():
    """A corner of 10 × 8 voxels, of which 1 in 60 middles holds enough: twenty draws find one by chance of 0.3."""
    shares = [
        float(RandomPatches(24, 12)(pair(corner=True), make_generator(seed)).fixed.mask[..., 6:-6, 6:-6].float().mean())
        for seed in range(40)
    ]
    assert 0.15 < sum(share >= 0.2 for share in shares) / 40 < 0.6


def test_several_patches_are_a_batch_each_as_it_is_alone():
    known = pair()
    many = RandomPatches(24, 12, 3)(known, make_generator(5))
    assert many.batch == 3
    assert many.truth is None
    assert many.fixed_points is None
    generator = make_generator(5)
    whole = replace(known.fixed, mask=known.fixed.data > 0)
    for n in range(3):
        place = RandomPatches(24, 12)._place(whole.mask, generator)
        patch = part_of(whole, tuple(slice(a - 6, a + 18) for a in place))
        assert torch.equal(many.fixed.data[n], patch.data[0])
        assert torch.equal(many.fixed.mask[n], patch.mask[0])
        assert torch.equal(many.moving.data[n], pull(known.moving, Affine.identity(2), onto=patch).data[0])


def test_a_mask_of_the_image_holds():
    known = pair()
    mask = torch.zeros_like(known.fixed.data, dtype=torch.bool)
    mask[..., :30] = True
    found = RandomPatches(24, 12)(replace(known, fixed=replace(known.fixed, mask=mask)), make_generator(1))
    expected = pull(Labels(mask.byte(), GRID), Affine.identity(2), onto=found.fixed.grid).data > 0
    assert torch.equal(found.fixed.mask, expected & (found.fixed.data > 0))


def test_an_image_smaller_than_a_patch_is_its_middle():
    small = Image(torch.rand(1, 1, 9, 10, generator=torch.Generator().manual_seed(0)) + 0.1, Grid.centred((9, 10)))
    found = RandomPatches(24, 12)(Pair(small, small), make_generator(0))
    assert int((found.fixed.data > 0).sum()) == 90


@pytest.mark.parametrize("words", [{"answered": 13}, {"answered": 26}, {"answered": 0}, {"count": 0}, {"inside": 1.0}])
def test_what_cannot_be_is_refused(words):
    with pytest.raises(InputError, match="one patch or more with an even margin"):
        RandomPatches(**{"size": 24, "answered": 12, **words})
