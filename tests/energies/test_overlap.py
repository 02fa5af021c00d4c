"""Guidance by labels: against the metrics, closed forms, and what gradients must say."""

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve, generate_binary_structure

from pullback.alignment import Alignment, Pair
from pullback.energies import SoftDice, SoftHausdorff
from pullback.errors import InputError
from pullback.metrics import Dice
from pullback.space import Affine, Displacement, Grid, Image, Labels

SHAPES = [(17, 15), (13, 12, 14)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=["2D", "3D"])


def blocks(shape, at, value=3, edge=4):
    data = torch.zeros(1, 1, *shape, dtype=torch.int32)
    data[(slice(None), slice(None), *(slice(n, n + edge) for n in at))] = value
    return data


def seen(fixed, moving, transform=None):
    grid = Grid.centred(tuple(fixed.shape[2:]))
    image = Image(torch.zeros(1, 1, *grid.shape, dtype=torch.float64), grid)
    pair = Pair(image, image, Labels(fixed, grid), Labels(moving, grid), name="a pair of blocks")
    return Alignment(pair, transform or Affine.identity(grid.ndim))


def beside(labels, value):
    """Labels, with a voxel of `value` in the last corner, which both images have: nothing is wrong there."""
    labels = labels.clone()
    labels[(..., *[-1] * (labels.ndim - 2))] = value
    return labels


def shifted(shape, voxels):
    return Displacement(torch.full((1, len(shape), *shape), voxels, dtype=torch.float64), Grid.centred(shape))


@shapes
@pytest.mark.parametrize("voxels", [0, 1, 2, 5])
def test_by_whole_voxels_soft_dice_is_the_metric(shape, voxels):
    fixed = blocks(shape, [4] * len(shape)) + blocks(shape, [9] * len(shape), 7, 3)
    view = seen(fixed, blocks(shape, [3] * len(shape)) + blocks(shape, [9] * len(shape), 7, 3), shifted(shape, voxels))
    assert float(SoftDice()(view)) == pytest.approx(1 - Dice()(view)["dice"], abs=1e-12)


@shapes
@pytest.mark.parametrize(("energy", "away"), [(SoftDice(), 1), (SoftHausdorff(3), 3)])
def test_gradients_reach_the_transform_and_are_those_of_differences(shape, energy, away):
    """Of errors less than a voxel deep the Hausdorff distance says nothing."""
    fixed, moving = blocks(shape, [4] * len(shape)), blocks(shape, [4 + away] * len(shape))
    shift = torch.full((len(shape),), 0.31, dtype=torch.float64).requires_grad_()

    def value(shift):
        field = shift.view(1, -1, *[1] * len(shape)).expand(1, -1, *shape)
        return energy(seen(fixed, moving, Displacement(field, Grid.centred(shape))))

    assert torch.autograd.gradcheck(value, (shift,), eps=1e-7, rtol=1e-4)
    (slope,) = torch.autograd.grad(value(shift), shift)
    assert (slope < 0).all(), "further on lies the block"


@shapes
def test_each_erosion_takes_off_what_scipy_says(shape):
    fixed, moving = blocks(shape, [4] * len(shape), edge=7), torch.zeros(1, 1, *shape, dtype=torch.int32)
    cross = generate_binary_structure(len(shape), 1) / (2 * len(shape) + 1)
    wrong, expected = fixed[0, 0].numpy() / 3.0, 0.0
    for k in range(1, 4):
        wrong = np.clip(2 * convolve(wrong, cross, mode="nearest") - 1, 0, None)
        expected += k**1.5 * wrong.mean()
    view = seen(beside(fixed, 3), beside(moving, 3))
    assert float(SoftHausdorff(3, 1.5)(view)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("shape", "lost"), [(SHAPES[0], 7), (SHAPES[1], 8)], ids=["2D", "3D"])
def test_a_plate_of_eight_voxels_is_gone_when_it_is_said_to_be(shape, lost):
    fixed = torch.zeros(1, 1, *shape, dtype=torch.int32)
    fixed[:, :, 2:10] = 1
    view = seen(beside(fixed, 1), beside(torch.zeros_like(fixed), 1))
    before, last, after = (float(SoftHausdorff(erosions)(view)) for erosions in (lost - 2, lost - 1, lost))
    assert before < last == after


@shapes
def test_deep_errors_weigh_more_than_wide_ones(shape):
    """As many wrong voxels: in one block, and in a plate one voxel thick, which Dice cannot tell apart."""
    none = torch.zeros(1, 1, *shape, dtype=torch.int32)
    block, plate = none.clone(), none.clone()
    count = 4 ** len(shape)
    block[(0, 0, *[slice(2, 6)] * len(shape))] = 1
    side = round(count ** (1 / max(len(shape) - 1, 1)))
    plate[(0, 0, 3, *[slice(1, 1 + side)] * (len(shape) - 1))] = 1
    assert abs(int(plate.sum()) - count) <= 0.25 * count
    deep, wide = (float(SoftHausdorff()(seen(beside(each, 1), beside(none, 1)))) for each in (block, plate))
    assert deep > 3 * wide


def test_labels_of_one_image_alone_count_in_neither_loss():
    shape = (17, 15)
    fixed, moving = blocks(shape, [4, 4]), blocks(shape, [5, 4])
    more = fixed + blocks(shape, [10, 10], 7, 3), moving + blocks(shape, [11, 1], 9, 3)
    for energy in (SoftDice(), SoftHausdorff(3)):
        assert float(energy(seen(*more))) == pytest.approx(float(energy(seen(fixed, moving))))


def test_pairs_of_a_batch_count_their_own_labels():
    shape = (17, 15)
    pairs = [(blocks(shape, [4, 4]), blocks(shape, [5, 4])), (blocks(shape, [4, 4], 7), blocks(shape, [6, 4], 7))]
    fixed, moving = (torch.cat(each) for each in zip(*pairs, strict=True))
    alone = [float(SoftDice()(seen(*pair))) for pair in pairs]
    assert float(SoftDice()(seen(fixed, moving))) == pytest.approx(sum(alone) / 2)


def test_labels_that_are_missing_are_asked_for():
    grid = Grid.centred((8, 8))
    image = Image(torch.zeros(1, 1, 8, 8), grid)
    with pytest.raises(InputError, match="labels of both images"):
        SoftDice()(Alignment(Pair(image, image, name="two"), Affine.identity(2)))
    with pytest.raises(InputError, match="no label above background"):
        SoftDice()(seen(*[torch.zeros(1, 1, 8, 8, dtype=torch.int32)] * 2))
    with pytest.raises(InputError, match="at least one erosion"):
        SoftHausdorff(0)
