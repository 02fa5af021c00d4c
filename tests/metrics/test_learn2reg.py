"""The challenge's definitions: its own figures on the fixture, scipy, and its treatment of missing labels."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d, map_coordinates

from pullback.alignment import Alignment, Pair
from pullback.metrics import learn2reg
from pullback.space import Affine, Displacement, Grid, Image, Labels, Points


def on(grid, field=None, **known):
    """An alignment of empty images on one grid."""
    image = Image(torch.zeros(1, 1, *grid.shape), grid)
    transform = Affine.identity(grid.ndim) if field is None else Displacement(field, grid)
    return Alignment(Pair(image, image, **known), transform)


def labels(array, grid):
    return Labels(torch.as_tensor(array, dtype=torch.int64)[None, None], grid)


@pytest.mark.parametrize(("scale", "expected"), [(1, 0.066869), (4, 0.892068)])
def test_sdlogj_of_the_official_evaluation(shared, scale, expected):
    with np.load(shared / "fixtures" / "l2r_fixture.npz") as fixture:
        field = torch.from_numpy(fixture["disp"]).movedim(-1, 0)[None] * scale
    answer = learn2reg.SDLogJ()(on(Grid.centred(tuple(field.shape[2:])), field))
    assert answer == {"l2r sdlogj": pytest.approx(expected, abs=1e-6)}


@pytest.mark.parametrize("shape", [(9, 8), (7, 8, 9)])
def test_sdlogj_as_the_formula_in_scipy(shape):
    d = len(shape)
    field = 2 * np.random.default_rng(0).normal(size=(d, *shape))
    crop = (slice(2, -2),) * d
    rows = [[correlate1d(f, [-0.5, 0, 0.5], axis=a, mode="constant")[crop] for a in range(d)] for f in field]
    matrices = np.moveaxis(np.array(rows), (0, 1), (-2, -1)) + np.eye(d)
    assert (np.linalg.det(matrices) < -3).any()  # some are clipped
    expected = np.log((np.linalg.det(matrices) + 3).clip(1e-9, 1e9)).std()
    answer = learn2reg.SDLogJ()(on(Grid.centred(shape), torch.from_numpy(field)[None]))
    assert answer["l2r sdlogj"] == pytest.approx(expected, rel=1e-9)


def test_dice_leaves_out_what_either_image_lacks_before_the_warp():
    grid = Grid.centred((4, 6))
    fixed, moving = np.zeros((4, 6)), np.zeros((4, 6))
    fixed[0, :4], moving[0, 2:6] = 1, 1  # 2·2 / (4 + 4)
    fixed[1, :3] = 2  # only in the fixed image
    moving[2, :3] = 5  # only in the moving image
    fixed[3, :2], moving[3, :1] = 7, 7  # 2·1 / (2 + 1)
    answer = learn2reg.Dice()(on(grid, fixed_labels=labels(fixed, grid), moving_labels=labels(moving, grid)))
    mean = (0.5 + 2 / 3) / 2
    assert answer == pytest.approx({"l2r dice": mean, "l2r dice/1": 0.5, "l2r dice/7": 2 / 3})


def test_dice_of_a_label_lost_on_the_way_is_zero_not_missing():
    grid = Grid.centred((4, 12))
    fixed, moving = np.zeros((4, 12)), np.zeros((4, 12))
    fixed[1, 1], moving[1, 10] = 1, 1
    fixed[2, :], moving[2, :] = 2, 2
    field = torch.zeros(1, 2, 4, 12)
    field[:, 1, 1] = -3  # the voxel at column 10 is seen by nobody but column 13
    answer = learn2reg.Dice()(on(grid, field, fixed_labels=labels(fixed, grid), moving_labels=labels(moving, grid)))
    assert answer["l2r dice/1"] == 0
    assert answer["l2r dice"] == pytest.approx(0.5)


def test_dice_with_nothing_in_common_says_nothing():
    grid = Grid.centred((4, 6))
    fixed, moving = np.zeros((4, 6)), np.zeros((4, 6))
    fixed[0], moving[1] = 1, 2
    assert learn2reg.Dice()(on(grid, fixed_labels=labels(fixed, grid), moving_labels=labels(moving, grid))) == {}


def test_hausdorff_is_in_voxels():
    grid = Grid.centred((20, 12, 12), (0.5, 2.0, 3.0))
    fixed, moving = np.zeros(grid.shape), np.zeros(grid.shape)
    fixed[3:9, 3:9, 3:9], moving[7:13, 3:9, 3:9] = 1, 1
    answer = learn2reg.HausdorffDistance()(
        on(grid, fixed_labels=labels(fixed, grid), moving_labels=labels(moving, grid))
    )
    assert answer["l2r hd95 voxels"] == pytest.approx(4)


def test_landmark_error_as_scipy_by_cubic_spline():
    rng = np.random.default_rng(0)
    shape, spacing = (14, 12, 13), np.array([1.75, 1.25, 1.5])
    field = rng.normal(size=(3, *shape))
    fixed, moving = (rng.uniform(0, np.array(shape) - 1, (40, 3)) for _ in range(2))
    there = fixed + np.stack([map_coordinates(f, fixed.T, order=3) for f in field], 1)
    expected = np.linalg.norm((there - moving) * spacing, axis=1).mean()
    linear = fixed + np.stack([map_coordinates(f, fixed.T, order=1) for f in field], 1)
    assert abs(np.linalg.norm((linear - moving) * spacing, axis=1).mean() - expected) > 1e-3
    grid = Grid.centred(shape, tuple(spacing))
    points = [Points(grid.to_world(torch.from_numpy(p.T)[None]).mT) for p in (fixed, moving)]
    answer = learn2reg.LandmarkError()(
        on(grid, torch.from_numpy(field)[None], fixed_points=points[0], moving_points=points[1])
    )
    assert answer == {"l2r tre mm": pytest.approx(expected, rel=1e-9)}


def test_landmark_error_on_the_fixture(shared):
    with np.load(shared / "fixtures" / "l2r_fixture.npz") as fixture:
        field, at = fixture["disp"].astype(np.float64), fixture["landmarks"]
    expected = np.linalg.norm(np.stack([map_coordinates(field[..., c], at.T) for c in range(3)], 1), axis=1).mean()
    grid = Grid.centred(field.shape[:3])
    points = Points(grid.to_world(torch.from_numpy(at.T)[None]).mT)
    alignment = on(grid, torch.from_numpy(field).movedim(-1, 0)[None], fixed_points=points, moving_points=points)
    assert learn2reg.LandmarkError()(alignment)["l2r tre mm"] == pytest.approx(expected, rel=1e-6)


def test_landmark_error_between_two_grids_is_zero_where_the_points_meet():
    """Voxels of the fixed and of the moving grid are not the same thing."""
    fixed, moving = Grid.centred((26, 25, 27)), Grid.centred((15, 14, 16), (1.5, 1.0, 1.25))
    turn = torch.eye(4, dtype=torch.float64)
    turn[:3, :3] = torch.linalg.matrix_exp(torch.tensor([[0, 0.1, 0], [-0.1, 0, 0.2], [0, -0.2, 0]]).double())
    transform = Affine(turn)
    # in the middle: a spline with mirrored borders bends a linear map near them, by a quarter of it per voxel
    points = Points(torch.randn(1, 9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).clamp(-2, 2))
    pair = Pair(
        Image(torch.zeros(1, 1, *fixed.shape), fixed),
        Image(torch.zeros(1, 1, *moving.shape), moving),
        fixed_points=points,
        moving_points=Points(transform(points.data)),
    )
    assert learn2reg.LandmarkError()(Alignment(pair, transform))["l2r tre mm"] == pytest.approx(0, abs=1e-4)
    off = learn2reg.LandmarkError()(Alignment(pair, Affine.identity(3)))["l2r tre mm"]
    assert off == pytest.approx(float((transform(points.data) - points.data).norm(dim=-1).mean()), abs=1e-4)


@pytest.mark.parametrize("metric", [learn2reg.Dice(), learn2reg.HausdorffDistance(), learn2reg.LandmarkError()])
def test_without_what_it_needs_a_metric_says_nothing(metric):
    assert metric(on(Grid.centred((6, 7)))) == {}
