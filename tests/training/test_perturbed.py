"""Pairs in random poses: how far they lie apart, and that truth and points follow the images."""

from dataclasses import replace

import pytest
import torch
from scipy.stats import kstest

from pullback.alignment import Alignment, Pair, stacked
from pullback.errors import InputError
from pullback.metrics import LandmarkError
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import gaussian
from pullback.space import Affine, Grid, Image, Labels, block_middles, mean_distance, pull
from pullback.testing import check_augmentation
from pullback.training import Perturbed, RandomPose

POSE = RandomPose(8.0)


def blob(shape=(24, 28), spacing=(2.0, 1.5), seed=0) -> Pair:
    """A smooth image that ends before its border, with its middle as a label."""
    affine = Grid.centred(shape, spacing[: len(shape)]).affine
    affine[: len(shape), -1] += 50
    grid = Grid(shape, affine)
    inside = grid.voxels(torch.zeros(())) - (torch.tensor(shape).view(-1, *[1] * len(shape)) - 1) / 2
    near = (inside.square().sum(0) < (min(shape) / 4) ** 2)[None, None]
    noise = torch.rand(1, 1, *shape, generator=make_generator(seed))
    image = Image(gaussian(gaussian(noise, 2.0) * near, 1.5), grid)
    return Pair(image, image, Labels(near.to(torch.uint8), grid), name="blob")


@pytest.mark.parametrize("ndim", [2, 3])
def test_distances_of_poses_are_uniform(ndim):
    grid = Grid.centred((20, 26, 24)[:ndim], (3.0, 2.0, 2.0)[:ndim])
    pose, still, points = RandomPose(20.0), Affine.identity(ndim), block_middles(grid)
    drawn = [pose(grid, make_generator(0, n)) for n in range(250)]
    apart = [float(mean_distance(each, still, points)) for each in drawn]
    assert kstest(apart, "uniform", (0, 20.0)).pvalue > 0.01
    linear = torch.stack([each.matrix[:ndim, :ndim] for each in drawn])
    torch.testing.assert_close(linear @ linear.mT, torch.eye(ndim).double().expand_as(linear))


def test_turns_and_shifts_stand_as_their_limits_say():
    grid = blob().fixed.grid
    turned, shifted = RandomPose(5.0, shift=0.0), RandomPose(5.0, degrees=0.0)
    for n in range(5):
        turn, shift = (each(grid, make_generator(1, n)) for each in (turned, shifted))
        torch.testing.assert_close(turn(grid.centre[None]), grid.centre[None])
        torch.testing.assert_close(shift.matrix[:2, :2], torch.eye(2).double())
        assert not torch.allclose(turn.matrix[:2, :2], torch.eye(2).double())


def test_the_truth_is_the_pose_and_brings_the_image_back():
    """With the fixed image shifted by up to half a voxel too, which is no part of the truth."""
    pair, perturbed = blob(), Perturbed(POSE, surface=50)
    seen = perturbed(pair, make_generator(3))
    pose = POSE(pair.fixed.grid, make_generator(3))
    torch.testing.assert_close(seen.truth.as_affine.matrix, pose.matrix, rtol=0, atol=1e-9)
    before, after = (
        float((pull(seen.moving, by, onto=seen.fixed).data - seen.fixed.data).abs().max())
        for by in (Affine.identity(2), seen.truth)
    )
    assert after < 0.1 * before
    still = replace(perturbed, jitter=0.0)(pair, make_generator(3))
    torch.testing.assert_close(still.fixed.data, pair.fixed.data, rtol=0, atol=1e-5)
    assert not torch.allclose(seen.fixed.data, pair.fixed.data, atol=1e-3)
    assert float((seen.fixed.data - pair.fixed.data).abs().max()) < 0.2 * float(pair.fixed.data.max())
    assert LandmarkError()(Alignment(seen, seen.truth))["tre mm"] < 1e-4
    assert LandmarkError()(Alignment(seen, Affine.identity(2)))["tre mm"] > 0.5
    assert seen.fixed_points.data.shape[1] > 20


def test_the_truth_of_a_pair_is_followed_by_the_pose():
    """Of two images of which the moving one lies 3 mm off, it leads on by the pose."""
    pair = blob()
    off = torch.eye(3, dtype=torch.float64)
    off[0, 2] = 3.0
    known = replace(pair, moving=pull(pair.fixed, Affine(off).inverse(), onto=pair.fixed), truth=Affine(off))
    seen = Perturbed(POSE, alone=False, surface=50)(known, make_generator(4))
    expected = POSE(pair.fixed.grid, make_generator(4)) @ Affine(off)
    torch.testing.assert_close(seen.truth.as_affine.matrix, expected.matrix, rtol=0, atol=1e-9)
    torch.testing.assert_close(seen.fixed.data, pair.fixed.data, rtol=0, atol=1e-5)
    there = pull(seen.moving, seen.truth, onto=seen.fixed).data
    assert float((there - seen.fixed.data).abs().max()) < 0.1 * float(seen.fixed.data.max())
    torch.testing.assert_close(seen.moving_points.data, seen.truth(seen.fixed_points.data), rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="truth is not known"):
        Perturbed(POSE, alone=False)(pair, make_generator(4))


def test_each_of_a_batch_has_a_pose_of_its_own():
    pairs = [replace(blob(seed=n), fixed_labels=None) for n in range(2)]
    seen = Perturbed(POSE)(stacked(pairs), make_generator(5))
    first, second = seen.truth.nth(0).as_affine.matrix, seen.truth.nth(1).as_affine.matrix
    assert not torch.allclose(first, second)
    once = Perturbed(POSE)(pairs[0], make_generator(5))
    torch.testing.assert_close(first.reshape(3, 3), once.truth.as_affine.matrix)
    torch.testing.assert_close(seen.moving.data[:1], once.moving.data)


def test_intensities_of_the_moving_image_alone_change():
    pair, plain = blob(), Perturbed(POSE)
    seen, other = (each(pair, make_generator(6)) for each in (plain, replace(plain, gamma=2.0)))
    assert torch.equal(seen.fixed.data, other.fixed.data)
    lit = (seen.moving.data > 0.01) & (seen.moving.data < 0.99)
    powers = other.moving.data[lit].log() / seen.moving.data[lit].log()
    assert float(powers.max() - powers.min()) < 1e-3
    assert 0.5 <= float(powers.mean()) <= 2
    assert abs(float(powers.mean()) - 1) > 0.01


def test_margins_hide_the_ends_of_either_image_and_nothing_else():
    """A box of each stays as it was, larger than half its length along each axis, and another one of each."""
    pair = replace(blob(), fixed=replace(blob().fixed, data=1 + blob().fixed.data))
    pair = replace(pair, moving=pair.fixed)
    still = Perturbed(RandomPose(0.01))
    boxes = []
    for seed in range(10):
        seen, whole = (each(pair, make_generator(8, seed)) for each in (replace(still, margin=0.25), still))
        for one, other in zip(seen.images, whole.images, strict=True):
            where = (one.data[0, 0] > 0).nonzero()
            box = tuple(slice(int(low), int(high) + 1) for low, high in zip(where.amin(0), where.amax(0), strict=True))
            assert torch.equal(one.data[0, 0][box], other.data[0, 0][box])
            assert all(along.stop - along.start > 0.5 * n - 2 for along, n in zip(box, one.grid.shape, strict=True))
            boxes.append(str(box))
    assert len(set(boxes)) > 15


@pytest.mark.parametrize(
    "augment", [Perturbed(POSE), Perturbed(POSE, surface=20, gamma=1.5, margin=0.2)], ids=["plain", "all"]
)
def test_contract(augment):
    check_augmentation(augment, blob())


def test_what_cannot_be_drawn_is_refused():
    grid = Grid.centred((10, 10), 1.0)
    with pytest.raises(InputError, match=r"leave less than 90% of an image of \(10, 10\) mm in view; lower most"):
        RandomPose(1000.0, overlap=0.9)(grid, make_generator(7))
    for wrong in ({"most": -1.0}, {"degrees": 0.0, "shift": 0.0}, {"most": float("inf")}, {"overlap": 1.0}):
        with pytest.raises(InputError, match="RandomPose"):
            RandomPose(**wrong)
    for wrong in ({"surface": -1}, {"jitter": -0.1}, {"gamma": 0.5}, {"margin": 0.5}, {"margin": -0.1}):
        with pytest.raises(InputError, match="Perturbed"):
            Perturbed(**wrong)
