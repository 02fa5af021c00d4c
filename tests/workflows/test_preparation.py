"""One subject, prepared: the world stays where it is, and the steps do what they say in their order."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from pullback.data import PairFolder, Subject
from pullback.errors import InputError
from pullback.files import Merge
from pullback.space import Affine, Grid, Image, Labels, pull
from pullback.workflows.preparation import Preparation

DATA = PairFolder("scans", labels="*_dseg.nii.gz", masks="*_mask.nii.gz")
NONE = Preparation(DATA)
SHAPES = [(30, 34), (22, 26, 24)]


def ball(grid: Grid, centre: torch.Tensor, radius: float) -> torch.Tensor:
    where = grid.to_world(grid.voxels(centre)[None])
    return (where - centre.view(1, -1, *[1] * grid.ndim)).norm(dim=1, keepdim=True) < radius


def head(grid: Grid, waves) -> Subject:
    """A wavy image; a ball 17 in its middle and another, 53, 5 mm beside it; a mask that is larger than both."""
    data = 100 * (2 + waves(grid.ndim, 2, 12.0)(grid.to_world(grid.voxels(grid.centre)[None])))
    labels = torch.zeros(1, 1, *grid.shape, dtype=torch.uint8)
    labels[ball(grid, grid.centre, 3.0)] = 17
    labels[ball(grid, grid.centre + 5 / grid.ndim**0.5, 2.0)] = 53
    return Subject(Image(data.float(), grid, ball(grid, grid.centre, 9.0)), Labels(labels, grid))


def corners(grid: Grid) -> torch.Tensor:
    ends = torch.cartesian_prod(*[torch.tensor([0.0, n - 1], dtype=torch.float64) for n in grid.shape])
    return grid.to_world(ends.T[None])[0].T


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_asked_for_is_nothing_done_but_turning(oblique, waves, shape):
    """Every voxel is still there, at the same place in the world, on axes nearer to R, A, S."""
    given = head(oblique(shape, 1), waves)
    out = NONE(given)
    back = pull(out.image, Affine.identity(len(shape)), onto=given.image, mode="nearest")
    assert torch.equal(back.data, given.image.data)
    assert torch.equal(pull(out.labels, Affine.identity(len(shape)), onto=given.image).data, given.labels.data)
    assert bool((out.image.grid.affine.diagonal()[:-1] > 0).all())
    assert out.labels.grid == out.image.grid


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "steps",
    [
        {},
        {"crop": "mask", "margin": 2.0},
        {"spacing": 0.8},
        {"crop": "labels", "margin": 4.0, "spacing": 0.8, "shape": 40},
        {"shape": 33, "stretch": True, "normalise": True},
    ],
)
def test_the_order_in_which_voxels_are_stored_does_not_show(waves, shape, steps):
    grid, d = Grid.centred(shape, 1.2), len(shape)
    given = head(grid, waves)
    affine = grid.affine[:, [*reversed(range(d)), d]].clone()  # axes the other way round, and the last one flipped
    affine[:, -1] += affine[:, d - 1] * (shape[0] - 1)
    affine[:, d - 1] *= -1
    turned = Grid(tuple(reversed(shape)), affine)

    def turn(data):
        return data.permute(0, 1, *reversed(range(2, 2 + d))).flip(-1)

    other = Subject(
        Image(turn(given.image.data), turned, turn(given.image.mask)), Labels(turn(given.labels.data), turned)
    )
    a, b = (replace(NONE, **steps)(subject) for subject in (given, other))
    torch.testing.assert_close(a.image.grid.affine, b.image.grid.affine)
    torch.testing.assert_close(a.image.data, b.image.data)
    assert torch.equal(a.image.mask, b.image.mask)
    assert torch.equal(a.labels.data, b.labels.data)


@pytest.mark.parametrize("shape", SHAPES)
def test_labels_are_merged_before_they_are_cropped_around(oblique, waves, shape):
    given = head(oblique(shape, 2), waves)
    both = replace(NONE, crop="labels")(given)
    one = replace(NONE, crop="labels", merge=Merge({17: 1}, {}, drop=True))(given)
    assert set(both.labels.data.unique().tolist()) == {0, 17, 53}
    assert set(one.labels.data.unique().tolist()) <= {0, 1}
    assert one.labels.data.numel() < both.labels.data.numel()
    assert one.labels.data.count_nonzero() == (given.labels.data == 17).count_nonzero(), "none of it was cut off"
    for axis in range(2, one.labels.data.ndim):  # and the box is tight
        ends = one.labels.data.movedim(axis, 0)[[0, -1]]
        assert bool(ends.flatten(1).any(1).all())


@pytest.mark.parametrize("shape", SHAPES)
def test_what_was_cropped_around_lies_within_a_shape(oblique, waves, shape):
    given, d = head(oblique(shape, 3), waves), len(shape)
    out = replace(NONE, crop="mask", margin=1.0, spacing=0.5, shape=24)(given)
    assert out.image.grid.shape == (24,) * d
    volume = [float(s.image.grid.spacing.prod() * s.image.mask.sum()) for s in (given, out)]
    assert volume[1] == pytest.approx(volume[0], rel=0.05)
    assert float(out.image.grid.spacing.max()) == pytest.approx(float(out.image.grid.spacing.min()))
    assert float(out.image.grid.spacing.max()) > 0.5, "18 mm in 24 voxels"
    wide = replace(NONE, crop="mask", margin=1.0, spacing=1.5, shape=24)(given)
    assert float(wide.image.grid.spacing.max()) == pytest.approx(1.5)


@pytest.mark.parametrize("shape", SHAPES)
def test_labels_as_itk_resamples_them(oblique, waves, to_sitk, shape):
    given = head(oblique(shape, 4), waves)
    out = replace(NONE, spacing=0.9)(given)
    theirs = to_sitk(given.labels.data[0, 0].numpy(), given.labels.grid.affine.numpy())
    onto = to_sitk(np.zeros(out.labels.grid.shape), out.labels.grid.affine.numpy())
    expected = sitk.GetArrayFromImage(sitk.Resample(theirs, onto, sitk.Transform(), sitk.sitkNearestNeighbor)).T
    at = given.labels.grid.to_voxels(out.labels.grid.to_world(out.labels.grid.voxels(given.image.grid.affine)[None]))
    tied = ((at - at.floor() - 0.5).abs() < 1e-4).any(1)[0].numpy()  # half-way between two, either may be taken
    assert tied.mean() < 0.1
    np.testing.assert_array_equal(out.labels.data[0, 0].numpy()[~tied], expected[~tied])
    assert set(out.labels.data.unique().tolist()) == {0, 17, 53}


@pytest.mark.parametrize("shape", SHAPES)
def test_stretched_the_corners_stay(oblique, waves, shape):
    given, d = head(oblique(shape, 5), waves), len(shape)
    out = replace(NONE, shape=(20, 26, 31)[:d], stretch=True)(given)
    there = torch.cdist(corners(out.image.grid), corners(given.image.grid)).amin(1)  # in whatever order they are stored
    assert float(there.max()) < 1e-6


def test_intensities_are_from_0_to_1(oblique, waves):
    out = replace(NONE, spacing=1.1, normalise=True)(head(oblique((22, 26, 24), 6), waves))
    assert (float(out.image.data.min()), float(out.image.data.max())) == (0.0, 1.0)


def test_the_subject_that_is_given_stays_as_it_is(oblique, waves):
    given = head(oblique((22, 26, 24), 7), waves)
    before = [t.clone() for t in (given.image.data, given.image.mask, given.labels.data, given.image.grid.affine)]
    replace(NONE, crop="mask", spacing=0.9, shape=30, normalise=True, merge=Merge({17: 1}, {}))(given)
    after = (given.image.data, given.image.mask, given.labels.data, given.image.grid.affine)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ({"crop": "lables"}, "crop around 'lables': choose labels or mask"),
        ({"crop": "labels", "data": PairFolder("scans")}, r"around labels: name them.*data\.labels"),
        ({"crop": "mask", "data": PairFolder("scans")}, r"around a mask: name the masks.*data\.masks"),
        ({"merge": Merge({1: 2}, {}), "data": PairFolder("scans")}, "merge: there are no labels"),
        ({"margin": 5.0}, "a margin without a crop"),
        ({"crop": "mask", "margin": -5.0}, "a margin of -5 mm"),
        ({"spacing": 0.0}, "a spacing of 0.0 mm"),
        ({"spacing": float("nan")}, "a spacing of nan mm"),
        ({"shape": 1}, "a shape of 1: at least two"),
        ({"shape": (64, 0, 64)}, "a shape of .*: at least two"),
        ({"shape": ()}, "a shape of .*: at least two"),
        ({"stretch": True}, "stretch without a shape"),
        ({"task": "a/b"}, "task 'a/b': letters, digits"),
        ({"task": ""}, "task '': letters, digits"),
        ({"data": replace(DATA, shape=(4, 4, 4))}, r"data\.shape"),
        ({"data": replace(DATA, atlas="a")}, r"data\.atlas"),
    ],
)
def test_settings_that_cannot_be(steps, message):
    with pytest.raises(InputError, match=message):
        replace(NONE, **steps)


def test_subjects_that_cannot_be_prepared(oblique, waves):
    given = head(Grid.centred((22, 26, 24)), waves)
    empty = Labels(torch.zeros_like(given.labels.data), given.labels.grid)
    point = torch.zeros_like(given.image.mask)
    point[0, 0, 10, 10, 10] = True
    for steps, subject, message in (
        ({"crop": "labels"}, replace(given, labels=empty), "nothing to crop around: it is empty"),
        ({"crop": "labels"}, replace(given, labels=None), "nothing to crop around: it has no labels"),
        ({"crop": "mask"}, replace(given, image=replace(given.image, mask=None)), "it has no mask"),
        ({"crop": "mask"}, replace(given, image=replace(given.image, mask=point)), r"shape \(1, 1, 1\) is left"),
        ({"spacing": 90.0}, given, r"shape \(1, 1, 1\) is left"),
        ({"shape": (20, 20)}, given, r"it is 3-D and the shape \(20, 20\) is not"),
        ({"spacing": 4.0}, replace(given, image=replace(given.image, mask=point)), "between the new voxels"),
        (
            {"crop": "labels", "merge": Merge({17: 17}, {}, drop=True)},
            replace(given, image=replace(given.image, data=torch.full_like(given.image.data, 5.0))),
            "every voxel is 5",
        ),
    ):
        with pytest.raises(InputError, match=message):
            replace(NONE, **steps)(subject)
