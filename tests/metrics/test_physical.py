"""Metrics by hand, by brute force and by closed forms."""

import itertools
import math

import numpy as np
import pytest
import torch

from pullback import metrics
from pullback.alignment import Alignment, Pair
from pullback.metrics import (
    Correlation,
    Dice,
    EndPointError,
    Folding,
    HausdorffDistance,
    LandmarkError,
    SDLogJ,
    foreground,
)
from pullback.space import Affine, Displacement, Grid, Image, Labels, Points


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def on(grid, transform=None, data=None, mask=None, **known):
    image = Image(torch.zeros(1, 1, *grid.shape) if data is None else data, grid, mask)
    return Alignment(Pair(image, image, **known), transform or Affine.identity(grid.ndim))


def labels(array, grid):
    return Labels(torch.as_tensor(array, dtype=torch.int64)[None, None], grid)


def translation(*mm):
    matrix = torch.eye(len(mm) + 1, dtype=torch.float64)
    matrix[:-1, -1] = torch.tensor(mm)
    return Affine(matrix)


# Dice


def test_dice_by_hand():
    grid = Grid.centred((4, 6))
    fixed, moving = np.zeros((4, 6)), np.zeros((4, 6))
    fixed[0, :4], moving[0, 2:6] = 1, 1  # 2·2 / (4 + 4)
    fixed[1, :3] = 2  # lost: 0
    moving[2, :3] = 5  # of the moving image alone: 0
    fixed[3, :2], moving[3, :1] = 7, 7  # 2·1 / (2 + 1)
    answer = Dice()(on(grid, fixed_labels=labels(fixed, grid), moving_labels=labels(moving, grid)))
    assert answer == pytest.approx(
        {"dice": (0.5 + 2 / 3) / 4, "dice/1": 0.5, "dice/2": 0, "dice/5": 0, "dice/7": 2 / 3}
    )


def test_dice_is_of_the_moved_labels():
    grid = Grid.centred((8, 9), 2.0)
    fixed, moving = np.zeros((8, 9)), np.zeros((8, 9))
    fixed[2:5, 2:6], moving[3:6, 4:8] = 3, 3
    known = {"fixed_labels": labels(fixed, grid), "moving_labels": labels(moving, grid)}
    assert Dice()(on(grid, translation(2.0, 4.0), **known))["dice"] == 1
    assert Dice()(on(grid, translation(-2.0, -4.0), **known))["dice"] < 0.3
    assert Dice()(on(grid, **known))["dice"] == pytest.approx(2 * 4 / 24)


# Hausdorff


def surface(inside, spacing):
    """Centres and areas of the faces between voxels inside and outside, by going through them one by one."""
    centres, areas = [], []
    for voxel in np.argwhere(inside):
        for axis, side in itertools.product(range(inside.ndim), (-1, 1)):
            beyond = voxel.copy()
            beyond[axis] += side
            if not inside[tuple(beyond)]:
                centres.append((voxel + beyond) / 2 * spacing)
                areas.append(np.prod(spacing) / spacing[axis])
    return np.array(centres), np.array(areas)


def brute_hausdorff(a, b, spacing, percent=95):
    (p, v), (q, w) = surface(a, spacing), surface(b, spacing)
    distance = np.linalg.norm(p[:, None] - q, axis=-1)
    each = []
    for nearest, weight in ((distance.min(1), v), (distance.min(0), w)):
        order = np.argsort(nearest)
        reached = np.cumsum(weight[order]) / weight.sum()
        each.append(nearest[order][np.searchsorted(reached, percent / 100)])
    return max(each)


def test_hausdorff_of_shifted_cubes_is_their_shift_in_mm():
    for axis, spacing in itertools.product(range(3), [(0.5, 2.0, 3.0), (1.0, 1.0, 1.0)]):
        grid = Grid.centred((18, 18, 18), spacing)
        fixed, moving = np.zeros(grid.shape), np.zeros(grid.shape)
        fixed[4:10, 4:10, 4:10] = 2
        moving[4:10, 4:10, 4:10] = 2
        moving = np.roll(moving, 3, axis)
        answer = HausdorffDistance()(on(grid, fixed_labels=labels(fixed, grid), moving_labels=labels(moving, grid)))
        expected = brute_hausdorff(fixed == 2, moving == 2, np.array(spacing))
        assert expected == pytest.approx(3 * spacing[axis])
        assert answer == {"hd95 mm": pytest.approx(expected), "hd95 mm/2": pytest.approx(expected)}


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 1.2, 1.6)])
def test_hausdorff_of_spheres(spacing):
    grid = Grid.centred(tuple(math.ceil(22 / s) for s in spacing), spacing)
    world = grid.to_world(grid.voxels(torch.zeros((), dtype=torch.float64))[None])[0].numpy()
    fixed = np.linalg.norm(world, axis=0) < 5
    moving = np.linalg.norm(world - np.array([1.5, 0, 0]).reshape(3, 1, 1, 1), axis=0) < 8
    answer = HausdorffDistance()(on(grid, fixed_labels=labels(fixed, grid), moving_labels=labels(moving, grid)))
    # the farthest points are 8 + 1.5 − 5 apart; stair-case and cut corners each lie within half a voxel of the sphere
    assert answer["hd95 mm"] == pytest.approx(brute_hausdorff(fixed, moving, np.array(spacing)), abs=max(spacing) / 2)
    assert 3.5 < answer["hd95 mm"] < 5.1


def test_hausdorff_in_two_dimensions():
    grid = Grid.centred((16, 18), (0.5, 2.0))
    fixed, moving = np.zeros(grid.shape), np.zeros(grid.shape)
    fixed[3:9, 3:9], moving[6:12, 3:9] = 1, 1
    answer = HausdorffDistance()(on(grid, fixed_labels=labels(fixed, grid), moving_labels=labels(moving, grid)))
    assert answer["hd95 mm"] == pytest.approx(1.5)


def test_hausdorff_leaves_out_labels_that_either_lacks():
    grid = Grid.centred((12, 12, 12))
    fixed, moving = np.zeros(grid.shape), np.zeros(grid.shape)
    fixed[2:5, 2:5, 2:5], moving[4:7, 2:5, 2:5] = 1, 1
    fixed[8:10, 8:10, 8:10], moving[8:10, 2:4, 8:10] = 2, 3
    known = {"fixed_labels": labels(fixed, grid), "moving_labels": labels(moving, grid)}
    assert set(HausdorffDistance()(on(grid, **known))) == {"hd95 mm", "hd95 mm/1"}


# Folding


@pytest.mark.parametrize(("shape", "axis"), [((12, 10), 0), ((12, 10), 1), ((12, 10, 9), 2)])
def test_folding_where_it_is_known(shape, axis):
    """One plane sent 3 voxels back: behind it the map runs backwards (1 − 3/2), before it forwards (1 + 3/2)."""
    field = torch.zeros(1, len(shape), *shape)
    field.select(axis + 2, 5)[:, axis] = 3
    grid = Grid.centred(shape, tuple(0.5 + n for n in range(len(shape))))
    mask = torch.zeros(1, 1, *shape, dtype=torch.bool)
    mask.narrow(axis + 2, 4, 5).fill_(True)  # five planes, the sixth among them
    answer = Folding()(on(grid, Displacement(field, grid), mask=mask))
    assert answer["folding % (all)"] == pytest.approx(100 / shape[axis])
    assert answer["folding %"] == pytest.approx(100 / 5)
    mask.narrow(axis + 2, 6, 1).fill_(False)
    assert Folding()(on(grid, Displacement(field, grid), mask=mask))["folding %"] == 0


def test_a_map_that_stands_still_counts_as_folded():
    field = torch.zeros(1, 2, 12, 10)
    field[:, 0, 5] = 2  # 1 − 2/2 = 0: everything there becomes one point
    grid = Grid.centred((12, 10))
    assert Folding()(on(grid, Displacement(field, grid)))["folding % (all)"] == pytest.approx(100 / 12)
    assert Folding()(on(grid, Displacement(0.99 * field, grid)))["folding % (all)"] == 0


def test_mirrors_fold_everywhere_and_rotations_nowhere(oblique):
    grid = oblique((6, 7, 8), 1)  # whatever the handedness of the grid itself
    data = noise(1, 1, 6, 7, 8)
    mirror = Affine(torch.diag(torch.tensor([-1.0, 1, 1, 1], dtype=torch.float64)))
    assert Folding()(on(grid, mirror, data=data)) == {"folding %": 100, "folding % (all)": 100}
    turn = Affine(torch.diag(torch.tensor([-1.0, -1, 1, 1], dtype=torch.float64)))
    assert Folding()(on(grid, turn, data=data)) == {"folding %": 0, "folding % (all)": 0}


def test_foreground_is_the_mask_or_what_lies_above_the_least_intensity():
    grid = Grid.centred((5, 6))
    data = torch.full((1, 1, 5, 6), -1000.0)
    data[:, :, 2:4, 1:5] = 40
    assert int(foreground(on(grid, data=data)).sum()) == 8
    mask = torch.zeros(1, 1, 5, 6, dtype=torch.bool)
    mask[:, :, 0] = True
    assert torch.equal(foreground(on(grid, data=data, mask=mask)), mask)


# the Jacobian's spread


@pytest.mark.parametrize("shape", [(9, 8), (6, 7, 8)])
def test_sdlogj_as_numpy(shape, smooth_field):
    d = len(shape)
    field = smooth_field(shape, 1, amplitude=1.0, shortest=8)
    rows = np.stack([np.stack(np.gradient(f)) for f in field[0].numpy()]) + np.eye(d).reshape(d, d, *[1] * d)
    dets = np.linalg.det(np.moveaxis(rows, (0, 1), (-2, -1)))
    expected = np.log(dets[dets > 0]).std()
    grid = Grid.centred(shape, tuple(0.5 + n for n in range(d)))
    assert SDLogJ()(on(grid, Displacement(field, grid)))["sdlogj"] == pytest.approx(expected, rel=1e-6)


def test_sdlogj_of_an_affine_is_nothing():
    grid = Grid.centred((6, 7), (1.0, 2.0))
    matrix = torch.tensor([[1.2, 0.3, 1], [-0.1, 0.7, 2], [0, 0, 1]], dtype=torch.float64)
    assert SDLogJ()(on(grid, Affine(matrix)))["sdlogj"] == pytest.approx(0, abs=1e-9)


# distances


def test_end_point_error_is_zero_at_the_truth_and_the_shift_beside_it(oblique, smooth_field):
    grid = oblique((9, 8, 10), 1)
    truth = Displacement(smooth_field(grid.shape, 1, amplitude=1.5), grid)
    data = noise(1, 1, *grid.shape)
    assert EndPointError()(on(grid, truth, data=data, truth=truth)) == {"epe mm": 0}
    shifted = translation(0.3, -1.2, 0.4) @ truth
    assert EndPointError()(on(grid, shifted, data=data, truth=truth))["epe mm"] == pytest.approx(1.3)


def test_end_point_error_is_of_the_foreground():
    grid = Grid.centred((4, 10), (2.0, 3.0))
    field = torch.zeros(1, 2, 4, 10)
    field[:, 1, :, 5:] = 2  # six mm to the right
    data = torch.zeros(1, 1, 4, 10)
    data[:, :, :, 3:7] = 1
    still = Displacement.identity(grid, field)
    assert EndPointError()(on(grid, still, data=data, truth=Displacement(field, grid)))["epe mm"] == pytest.approx(3)


def test_landmark_error_by_hand(oblique, smooth_field):
    grid = oblique((9, 8, 10), 2)
    transform = Displacement(smooth_field(grid.shape, 1, amplitude=1.5), grid)
    fixed = Points(noise(1, 5, 3))
    there = transform(fixed.data)
    off = torch.tensor([[3.0, 4, 0], [0, 0, 2], [0, 0, 0], [1, 0, 0], [0, 2, 0]], dtype=torch.float64)
    known = {"fixed_points": fixed, "moving_points": Points(there + off)}
    assert LandmarkError()(on(grid, transform, **known)) == {"tre mm": pytest.approx((5 + 2 + 0 + 1 + 2) / 5)}
    known["moving_points"] = Points(there)
    assert LandmarkError()(on(grid, transform, **known))["tre mm"] == pytest.approx(0, abs=1e-9)


def test_correlation_as_numpy():
    grid = Grid.centred((6, 7))
    fixed, moving = noise(1, 1, 6, 7), noise(1, 1, 6, 7, seed=1)
    pair = Pair(Image(fixed, grid), Image(moving, grid))
    expected = np.corrcoef(fixed.numpy().ravel(), moving.numpy().ravel())[0, 1]
    assert Correlation()(Alignment(pair, Affine.identity(2)))["ncc"] == pytest.approx(expected)


# all of them


EVERY = [
    getattr(module, name)()
    for module in (metrics, metrics.learn2reg)
    for name in dir(module)
    if isinstance(getattr(module, name), type) and "higher_is_better" in vars(getattr(module, name))
]


def test_every_metric_is_visited():
    names = {m.name for m in EVERY}
    assert len(EVERY) == len(names) == 11  # a new metric is counted here


@pytest.mark.parametrize("metric", EVERY, ids=lambda m: m.name)
def test_a_metric_answers_with_plain_numbers_and_its_name_among_them_or_not_at_all(metric, smooth_field):
    grid = Grid.centred((8, 9, 10))
    data, field = noise(1, 1, 8, 9, 10).float(), smooth_field((8, 9, 10), 1, amplitude=1.0).float()
    segmentation = Labels((data > 0).long(), grid)
    points, transform = Points(noise(1, 4, 3)), Displacement(field, grid)
    known = {
        "fixed_labels": segmentation,
        "moving_labels": segmentation,
        "fixed_points": points,
        "moving_points": points,
        "truth": Displacement.identity(grid, field),
    }
    answer = metric(on(grid, transform, data=data, **known))
    assert metric.name in answer
    assert all(type(v) is float and math.isfinite(v) for v in answer.values())
    without = metric(on(grid, transform, data=data))
    assert without == {} or metric.name in without
