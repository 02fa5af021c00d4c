"""Metrics by hand, by brute force and by closed forms."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.ndimage import center_of_mass

from pullback import metrics
from pullback.alignment import Alignment, Pair
from pullback.energies import SSIM
from pullback.errors import InputError
from pullback.metrics import (
    CentroidError,
    Correlation,
    Dice,
    EndPointError,
    Folding,
    HausdorffDistance,
    Jaccard,
    LandmarkError,
    SDLogJ,
    StructuralSimilarity,
    SurfaceDistance,
    foreground,
)
from pullback.metrics.calibration import ALONG, TOTAL
from pullback.numerics.difference import least_determinant
from pullback.space import Affine, Displacement, Grid, Image, Labels, Points, Series, Velocity


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
    fixed[1, :3] = 2  # of the fixed image alone
    moving[2, :3] = 5  # of the moving image alone
    fixed[3, :2], moving[3, :1] = 7, 7  # 2·1 / (2 + 1)
    answer = Dice()(on(grid, fixed_labels=labels(fixed, grid), moving_labels=labels(moving, grid)))
    assert answer == pytest.approx({"dice": (0.5 + 2 / 3) / 2, "dice/1": 0.5, "dice/7": 2 / 3, "labels left out": 2})


def test_dice_is_of_the_moved_labels():
    grid = Grid.centred((8, 9), 2.0)
    fixed, moving = np.zeros((8, 9)), np.zeros((8, 9))
    fixed[2:5, 2:6], moving[3:6, 4:8] = 3, 3
    known = {"fixed_labels": labels(fixed, grid), "moving_labels": labels(moving, grid)}
    assert Dice()(on(grid, translation(2.0, 4.0), **known))["dice"] == 1
    assert Dice()(on(grid, translation(-2.0, -4.0), **known))["dice"] < 0.3
    assert Dice()(on(grid, **known))["dice"] == pytest.approx(2 * 4 / 24)


def test_jaccard_is_dice_over_two_less_dice():
    """Label by label; of a lost label it is 0, and labels of one image alone are left out."""
    grid = Grid.centred((12, 14))
    numbers = torch.Generator().manual_seed(3)
    fixed, moving = (torch.randint(5, grid.shape, generator=numbers) for _ in range(2))
    fixed[fixed == 4] = 6
    known = {"fixed_labels": labels(fixed, grid), "moving_labels": labels(moving, grid)}
    dice, jaccard = Dice()(on(grid, **known)), Jaccard()(on(grid, **known))
    each = {f"jaccard/{k}": dice[f"dice/{k}"] / (2 - dice[f"dice/{k}"]) for k in (1, 2, 3)}
    assert jaccard == pytest.approx({"jaccard": sum(each.values()) / 3, **each})
    assert set(Jaccard()(on(grid, translation(50.0, 0.0), **known)).values()) == {0.0}
    assert Jaccard()(on(grid)) == {}


# mean surface distance


@pytest.mark.parametrize("axis", [0, 1])
def test_the_mean_surface_distance_of_spheres_about_one_centre_is_the_difference_of_radii(axis):
    """In units of mm, whatever the voxels; corners of voxels lie within half a voxel of a sphere, on either side."""
    spacing = np.roll((0.8, 1.2), axis)
    grid = Grid.centred(tuple(math.ceil(40 / s) for s in spacing), spacing.tolist())
    known = {
        "fixed_labels": labels(ball(grid, (0, 0), (9, 9)), grid),
        "moving_labels": labels(ball(grid, (0, 0), (14, 14)), grid),
    }
    answer = SurfaceDistance()(on(grid, **known))
    assert answer == {"surface mm": answer["surface mm/1"], "surface mm/1": pytest.approx(5, abs=0.6)}
    swapped = {"fixed_labels": known["moving_labels"], "moving_labels": known["fixed_labels"]}
    assert SurfaceDistance()(on(grid, **swapped)) == pytest.approx(answer)


def test_a_lost_label_is_as_far_away_as_can_be():
    grid = Grid.centred((20, 20), (1.0, 2.0))
    known = {name: labels(ball(grid, (0, 0), (5, 5)), grid) for name in ("fixed_labels", "moving_labels")}
    assert SurfaceDistance()(on(grid, **known))["surface mm"] == 0
    lost = SurfaceDistance()(on(grid, translation(100.0, 0.0), **known))["surface mm"]
    assert lost == pytest.approx(math.hypot(20, 40))
    assert SurfaceDistance()(on(grid)) == {}


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


def by_itk(fixed, moving, spacing):
    images = [sitk.GetImageFromArray(m.astype(np.uint8).transpose()) for m in (fixed, moving)]
    for image in images:
        image.SetSpacing([float(s) for s in spacing])
    distance = sitk.HausdorffDistanceImageFilter()
    distance.Execute(*images)
    return distance.GetHausdorffDistance()


@pytest.mark.parametrize(("shape", "spacing"), [((20, 18), (0.5, 2.0)), ((20, 18, 16), (0.5, 2.0, 3.0))])
def test_the_full_hausdorff_distance_of_shifted_boxes_as_itk(shape, spacing):
    grid, d = Grid.centred(shape, spacing), len(shape)
    fixed, moving = np.zeros(shape), np.zeros(shape)
    fixed[(slice(3, 9),) * d] = 4
    moving[tuple(slice(3 + n, 9 + n) for n in (5, 3, 2)[:d])] = 4
    known = {"fixed_labels": labels(fixed, grid), "moving_labels": labels(moving, grid)}
    answer = HausdorffDistance((100,))(on(grid, **known))
    expected = by_itk(fixed == 4, moving == 4, spacing)
    assert expected == pytest.approx(np.linalg.norm(np.array((5, 3, 2)[:d]) * spacing))
    assert answer == {"hd mm": pytest.approx(expected), "hd mm/4": pytest.approx(expected)}


def ball(grid, centre, radii):
    world = grid.to_world(grid.voxels(torch.zeros((), dtype=torch.float64))[None])[0].movedim(0, -1).numpy()
    return np.linalg.norm((world - np.array(centre)) / np.array(radii), axis=-1) < 1


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 1.2, 1.6)])
def test_the_full_hausdorff_distance_of_ellipsoids_as_itk(spacing):
    """Of convex bodies, their distance (ITK's, between voxel centres) is that of their surfaces (ours, between corners
    of voxels): each is the other but for the corner of a voxel on either side."""
    grid = Grid.centred(tuple(math.ceil(26 / s) for s in spacing), spacing)
    fixed, moving = ball(grid, (0, 1, 0), (5, 7, 6)), ball(grid, (2, 0, -1), (9, 6, 7))
    expected = by_itk(fixed, moving, spacing)
    known = {"fixed_labels": labels(fixed, grid), "moving_labels": labels(moving, grid)}
    assert expected > 3
    assert HausdorffDistance((100,))(on(grid, **known))["hd mm"] == pytest.approx(expected, abs=np.linalg.norm(spacing))


def test_the_full_hausdorff_distance_sees_one_far_voxel():
    grid = Grid.centred((30, 20, 20), (2.0, 1.0, 1.0))
    fixed = np.zeros(grid.shape)
    fixed[2:12, 4:14, 4:14] = 1
    moving = fixed.copy()
    moving[25, 8, 8] = 1
    known = {"fixed_labels": labels(fixed, grid), "moving_labels": labels(moving, grid)}
    swapped = {"fixed_labels": known["moving_labels"], "moving_labels": known["fixed_labels"]}
    far = HausdorffDistance((100,))(on(grid, **known))["hd mm"]
    assert far == pytest.approx((25 - 11) * 2)
    assert far == HausdorffDistance((100,))(on(grid, **swapped))["hd mm"]
    assert HausdorffDistance()(on(grid, **known))["hd95 mm"] == 0
    several = (50, 95, 99, 99.9, 100)
    apart = [HausdorffDistance((percent,))(on(grid, **known)) for percent in several]
    rising = [next(iter(answer.values())) for answer in apart]
    assert rising == sorted(rising)
    assert HausdorffDistance(several)(on(grid, **known)) == {k: v for answer in apart for k, v in answer.items()}


def test_a_hausdorff_distance_is_named_by_its_percentile():
    assert [HausdorffDistance((p,)).name for p in (95, 99.5, 100)] == ["hd95 mm", "hd99.5 mm", "hd mm"]
    for percents in ((0,), (-5,), (95, 101), (math.nan,), ()):
        with pytest.raises(InputError, match="percentiles above 0 and up to 100"):
            HausdorffDistance(percents)


# Folding


@pytest.mark.parametrize(("shape", "axis"), [((12, 10), 0), ((12, 10), 1), ((12, 10, 9), 2)])
def test_folding_where_it_is_known(shape, axis):
    """One plane sent 3 voxels on: behind it the map runs backwards (1 − 3/2), before it forwards (1 + 3/2).

    From neighbour to neighbour it runs backwards once, which is a fold at both of them.
    """
    field = torch.zeros(1, len(shape), *shape)
    field.select(axis + 2, 5)[:, axis] = 3
    grid = Grid.centred(shape, tuple(0.5 + n for n in range(len(shape))))
    mask = torch.zeros(1, 1, *shape, dtype=torch.bool)
    mask.narrow(axis + 2, 4, 5).fill_(True)  # five planes, the sixth among them
    answer = Folding()(on(grid, Displacement(field, grid), mask=mask))
    assert answer["folding % (all)"] == pytest.approx(200 / shape[axis])
    assert answer["folding %"] == pytest.approx(100 / 5)
    mask.narrow(axis + 2, 6, 1).fill_(False)
    assert Folding()(on(grid, Displacement(field, grid), mask=mask))["folding %"] == 0


def test_a_map_that_stands_still_counts_as_folded():
    field = torch.zeros(1, 2, 12, 10)
    field[:, 0, 5] = 1  # the next plane is where this one is
    grid = Grid.centred((12, 10))
    assert Folding()(on(grid, Displacement(field, grid)))["folding % (all)"] == pytest.approx(200 / 12)
    assert Folding()(on(grid, Displacement(0.99 * field, grid)))["folding % (all)"] == 0


def test_central_differences_step_over_a_fold_between_neighbours():
    """Every second plane 0.6 voxels ahead, the others behind: each step from even to odd goes back, by 1 − 1.2."""
    field = torch.zeros(1, 2, 12, 10)
    field[:, 0] = (0.6 * (1 - 2 * (torch.arange(12) % 2))).view(12, 1)
    data, grid = torch.ones(1, 1, 12, 10), Grid.centred((12, 10))
    data[:, :, [0, -1]] = 0  # where differences are one-sided anyway
    answer = Folding()(on(grid, Displacement(field, grid), data=data))
    assert answer == {"folding %": 0, "folding % (all)": 100}


@pytest.mark.parametrize("shape", [(5, 6), (4, 5, 6)])
def test_the_least_determinant_is_that_of_the_corners_of_cells(shape):
    d, field = len(shape), 0.7 * noise(1, len(shape), *shape, seed=3)
    where = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")) + field[0].numpy()
    found = least_determinant(field)[0, 0]
    for voxel in itertools.product(*map(range, shape)):
        each = []
        for side in itertools.product((1, -1), repeat=d):
            columns = []
            for axis, towards in enumerate(side):
                s = towards if 0 <= voxel[axis] + towards < shape[axis] else -towards
                beside = tuple(v + s * (a == axis) for a, v in enumerate(voxel))
                columns.append(s * (where[(slice(None), *beside)] - where[(slice(None), *voxel)]))
            each.append(np.linalg.det(np.stack(columns, 1)))
        assert float(found[voxel]) == pytest.approx(min(each), abs=1e-9)


def test_a_transform_that_is_not_finite_is_measured_by_nothing():
    field = torch.zeros(1, 2, 12, 10)
    field[:, 0, 5, 5] = torch.nan
    alignment = on(Grid.centred((12, 10)), Displacement(field, Grid.centred((12, 10))))
    for metric in EVERY:
        with pytest.raises(FloatingPointError, match="not finite"):
            metric(alignment)


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


def test_sdlogj_is_silent_where_all_folds():
    grid = Grid.centred((9, 8))
    assert SDLogJ()(on(grid, Affine(torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))))) == {}


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


@pytest.mark.parametrize("shape", [(12, 11), (12, 11, 10)])
def test_centroid_error_as_scipy(oblique, shape):
    grid, rng = oblique(shape, 4), np.random.default_rng(5)
    fixed, moving = (rng.integers(0, 5, shape) for _ in range(2))
    fixed[fixed == 3], moving[moving == 4] = 0, 0  # 3 and 4 are on one side only
    voxels = [np.array(center_of_mass(np.ones(shape), m, [1, 2])) for m in (fixed, moving)]
    off = (voxels[1] - voxels[0]) @ grid.affine[:-1, :-1].numpy().T
    each = np.linalg.norm(off, axis=1)
    answer = CentroidError()(on(grid, fixed_labels=labels(fixed, grid), moving_labels=labels(moving, grid)))
    expected = {"centroid mm": each.mean(), "centroid mm/1": each[0], "centroid mm/2": each[1]}
    assert answer == pytest.approx(expected)


def test_centroid_error_is_the_shift_that_is_left(oblique):
    grid = oblique((16, 15, 14), 3)
    fixed = np.zeros(grid.shape)
    fixed[5:8, 6:9, 5:9], fixed[5:8, 9:11, 5:9] = 1, 2
    known = {"fixed_labels": labels(fixed, grid), "moving_labels": labels(np.roll(fixed, (2, -3, 1), (0, 1, 2)), grid)}
    step = grid.affine[:-1, :-1] @ torch.tensor([2.0, -3, 1], dtype=torch.float64)
    assert CentroidError()(on(grid, **known))["centroid mm"] == pytest.approx(float(step.norm()))
    assert CentroidError()(on(grid, translation(*step.tolist()), **known))["centroid mm"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("metric", [CentroidError(), HausdorffDistance()], ids=lambda m: m.name)
def test_a_label_lost_on_the_way_is_as_far_as_can_be_and_one_of_one_image_is_left_out(metric):
    grid = Grid.centred((8, 9), (1.0, 2.0))
    fixed, moving = np.zeros((8, 9)), np.zeros((8, 9))
    fixed[2:4, 2:4], moving[6:, 7:] = 1, 1
    fixed[0, 0], moving[0, 0] = 2, 3
    known = {"fixed_labels": labels(fixed, grid), "moving_labels": labels(moving, grid)}
    far = math.hypot(8, 18)
    assert metric(on(grid, translation(-20.0, 0.0), **known)) == pytest.approx(
        {metric.name: far, f"{metric.name}/1": far}
    )
    assert metric(on(grid, **known))[metric.name] < far


def by_going_through(fixed, moved, window, keep):
    """Structural similarity of Wang et al. 2004, eq. 13, voxel by voxel."""
    extent = np.ptp(fixed[keep])
    c1, c2 = (0.01 * extent) ** 2, (0.03 * extent) ** 2
    each = []
    for voxel in np.argwhere(keep):
        around = tuple(slice(max(0, v - window // 2), v + window // 2 + 1) for v in voxel)
        x, y = fixed[around][keep[around]], moved[around][keep[around]]
        covariance = np.cov(x, y, ddof=0)
        level = (2 * x.mean() * y.mean() + c1) / (x.mean() ** 2 + y.mean() ** 2 + c1)
        each.append(level * (2 * covariance[0, 1] + c2) / (covariance[0, 0] + covariance[1, 1] + c2))
    return np.mean(each)


@pytest.mark.parametrize(("shape", "window"), [((11, 9), 7), ((7, 8, 6), 3)])
@pytest.mark.parametrize("masked", [False, True])
def test_structural_similarity_as_going_through_the_voxels(shape, window, masked):
    grid = Grid.centred(shape, tuple(1.0 + n for n in range(len(shape))))
    fixed = 2 + noise(1, 1, *shape)
    moving = 0.7 * fixed + noise(1, 1, *shape, seed=1)
    mask = noise(1, 1, *shape, seed=2) > -0.5 if masked else None
    keep = np.ones(shape, bool) if mask is None else mask[0, 0].numpy()
    alignment = Alignment(Pair(Image(fixed, grid, mask), Image(moving, grid)), Affine.identity(grid.ndim))
    expected = by_going_through(fixed[0, 0].numpy(), moving[0, 0].numpy(), window, keep)
    assert StructuralSimilarity(window)(alignment) == {"ssim": pytest.approx(expected)}
    assert StructuralSimilarity(window)(alignment)["ssim"] == pytest.approx(1 - float(SSIM(window)(alignment)))


def test_structural_similarity_of_an_image_to_itself_is_one_and_to_noise_little():
    grid = Grid.centred((20, 20, 20))
    fixed, other = (noise(1, 1, 20, 20, 20, seed=s) for s in (0, 1))
    itself, noisy = (
        StructuralSimilarity()(Alignment(Pair(Image(fixed, grid), Image(m, grid)), Affine.identity(3)))["ssim"]
        for m in (fixed, other)
    )
    assert itself == pytest.approx(1)
    assert abs(noisy) < 0.1


@pytest.mark.parametrize("window", [1, 4])
def test_windows_of_structural_similarity_are_odd(window):
    with pytest.raises(InputError, match="odd number of voxels from 3 on"):
        StructuralSimilarity(window)


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
    assert len(EVERY) == len(names) == 23  # a new metric is counted here


@pytest.mark.parametrize("metric", EVERY, ids=lambda m: m.name)
def test_a_metric_answers_with_plain_numbers_and_its_name_among_them_or_not_at_all(metric, smooth_field):
    grid = Grid.centred((8, 9, 10))
    data, field = noise(1, 1, 8, 9, 10).float(), smooth_field((8, 9, 10), 1, amplitude=1.0).float()
    segmentation = Labels((data > 0).long(), grid)
    points, transform = Points(noise(1, 4, 3)), Velocity(field, grid)
    known = {
        "fixed_labels": segmentation,
        "moving_labels": segmentation,
        "fixed_points": points,
        "moving_points": points,
        "lesion": segmentation,
        "truth": Displacement.identity(grid, field),
        "between": Series((Image(data, grid),), grid, torch.tensor([0.5]), "", (Displacement.identity(grid, field),)),
    }
    more = {"inverse": transform.inverse(), "phase_1": transform}
    maps = {"non_correspondence": Image((data > 0).float(), grid)}
    maps |= {name: Image(data.square() + 1, grid) for name in (TOTAL, *ALONG)}
    answer = metric(replace(on(grid, transform, data=data, **known), transforms=more, maps=maps))
    assert metric.name in answer
    assert all(type(v) is float and math.isfinite(v) for v in answer.values())
    without = metric(on(grid, transform, data=data))
    assert without == {} or metric.name in without
