"""Two files of points: what `pullback match` writes, and what it refuses."""

import json
from pathlib import Path

import pytest
import SimpleITK as sitk
import torch

from pullback.errors import InputError
from pullback.files import read_points, write, write_image
from pullback.numerics.random import make_generator
from pullback.numerics.rotation import nearby
from pullback.numerics.smooth import gaussian
from pullback.space import Affine, Displacement, Grid, Image, Labels, pull, push
from pullback.workflows import clouds
from pullback.workflows.clouds import is_label_map
from pullback.workflows.match import match_files, summary

AXES = {2: "L,P", 3: "L,P,S"}


def written(path, points):
    """In the space of ITK, whose word stands against ours."""
    names = AXES[points.shape[1]]
    path.write_text("\n".join([names, *(",".join(f"{x:.6f}" for x in row) for row in points.tolist())]) + "\n")
    return path


def drawn(n, ndim=3, seed=0, reach=60.0):
    return reach * torch.rand(n, ndim, dtype=torch.float64, generator=make_generator(seed))


def bent(points):
    """A smooth map."""
    return points * 1.1 + 5 + 2 * torch.sin(points.roll(1, 1) / 15)


@pytest.fixture
def landmarks(tmp_path):
    fixed = drawn(60)
    return written(tmp_path / "fixed.csv", fixed), written(tmp_path / "moving.csv", bent(fixed)), fixed


def itks(path, points):
    transform = sitk.ReadTransform(str(path))
    return torch.tensor([transform.TransformPoint(row) for row in points.tolist()], dtype=torch.float64)


def test_itk_takes_matched_points_both_ways_by_what_is_written(landmarks, tmp_path):
    fixed, moving, points = landmarks
    content = match_files(fixed, moving, tmp_path / "out", matched=True)
    off = content["numbers"]["after"]["mm off as written"]
    assert off < 0.3
    assert content["numbers"]["after"]["mm between matched points"] < 1e-3
    assert content["numbers"]["before"]["mm between matched points"] > 5
    there = itks(tmp_path / "out" / "fixed_to_moving.h5", points)
    assert abs(float((there - bent(points)).norm(dim=1).mean()) - off) < 1e-3
    back = itks(tmp_path / "out" / "moving_to_fixed.h5", there)
    assert float((back - points).norm(dim=1).mean()) < 0.05


def test_clouds_in_files_that_know_each_other(landmarks, tmp_path):
    fixed, moving, points = landmarks
    content = match_files(fixed, moving, tmp_path / "out", matched=True, points=written(tmp_path / "more.csv", points))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(content["files"])
    for name in ("fixed_in_moving.csv", "fixed_points_in_moving.csv"):
        moved = read_points(tmp_path / "out" / name).points.data
        torch.testing.assert_close(moved, read_points(moving).points.data, atol=1e-3, rtol=0)
    home = read_points(tmp_path / "out" / "moving_in_fixed.csv").points.data
    assert float((home - read_points(fixed).points.data).norm(dim=2).mean()) < 0.5
    assert json.loads((tmp_path / "out" / "run.json").read_text())["points"] == [60, 60]


def test_slides_have_landmarks_too(tmp_path):
    fixed = drawn(40, 2)
    one, two = written(tmp_path / "fixed.csv", fixed), written(tmp_path / "moving.csv", bent(fixed))
    content = match_files(one, two, tmp_path / "out", matched=True)
    assert content["numbers"]["after"]["mm between matched points"] < 1e-3


@pytest.mark.slow
def test_clouds_without_partners_find_each_other(tmp_path):
    """Each lacks a tenth of the points, in another order: a regular motion much longer than the gaps between them."""
    whole = drawn(400, seed=1)
    moved = whole * 1.08 + 9
    generator = make_generator(2)
    some = [torch.randperm(400, generator=generator)[:360] for _ in range(2)]
    one = written(tmp_path / "fixed.csv", whole[some[0]])
    two = written(tmp_path / "moving.csv", moved[some[1]])
    match_files(one, two, tmp_path / "out", points=written(tmp_path / "more.csv", whole))
    pushed = read_points(tmp_path / "out" / "fixed_points_in_moving.csv").points.data[0] * torch.tensor([-1, -1, 1])
    assert float((pushed - moved).norm(dim=1).mean()) < 0.1 * float((whole - moved).norm(dim=1).mean())


@pytest.mark.slow
def test_a_map_that_tears_is_not_believed(landmarks, tmp_path):
    """Clouds that have nothing in common, and one in another unit; the true partners are believed."""
    fixed, moving, points = landmarks
    stranger = written(tmp_path / "stranger.csv", drawn(60, seed=5))
    metres = written(tmp_path / "metres.csv", bent(points) / 1000)
    for name, other, matched, passed in (
        ("friend", moving, True, True),
        ("stranger", stranger, True, False),
        ("metres", metres, True, False),
        ("any", stranger, False, False),
    ):
        content = match_files(fixed, other, tmp_path / name, matched=matched)
        assert (name, content["quality"]["passed"]) == (name, passed)
        assert bool(content["quality"]["reasons"]) is not passed


@pytest.fixture
def mask(tmp_path):
    def made(name, values):
        path = tmp_path / name
        write_image(Labels(values[None, None].to(torch.uint8), Grid.centred((12, 12, 12), 6.0)), path)
        return path

    return made


def test_what_does_not_fit_is_refused_and_nothing_is_written(landmarks, mask, tmp_path):
    fixed, moving, points = landmarks
    fewer = written(tmp_path / "fewer.csv", points[:50])
    flat = written(tmp_path / "flat.csv", points[:, :2])
    plane = written(tmp_path / "plane.csv", points * torch.tensor([1.0, 1.0, 0.0]))
    whole, empty = mask("whole.nii.gz", torch.ones(12, 12, 12)), mask("empty.nii.gz", torch.zeros(12, 12, 12))
    out = tmp_path / "out"
    for arguments, what in (
        ({"moving": fewer, "matched": True}, "60 points, but .*fewer.csv: 50"),
        ({"moving": flat}, "in 3-D, but .*flat.csv: in 2-D"),
        ({"moving": plane, "matched": True}, "into one place"),
        ({"smoothing": 3.0}, "is for --matched points"),
        ({"matched": True, "smoothing": -3.0}, "0 or more"),
        ({"masks": (whole, None)}, "give both"),
        ({"matched": True, "masks": (whole, whole)}, "not matched"),
        ({"masks": (whole, empty)}, "empty.nii.gz: the mask is empty"),
    ):
        with pytest.raises(InputError, match=what):
            match_files(**{"fixed": fixed, "moving": moving, "out": out} | arguments)
        assert not out.exists()


# images


def seen(shape, spacing, seed):
    """Smooth noise, which has corners."""
    noise = torch.randn(1, 1, *shape, generator=make_generator(seed))
    return Image(gaussian(noise, 1.5), Grid.centred(shape, spacing))


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """An image, what a rotation and a smooth motion make of it, the motion, and masks of the middle of both."""
    folder = tmp_path_factory.mktemp("scans")
    moving = seen((60, 56, 52), 2.0, 0)
    turn = nearby(torch.eye(3, dtype=torch.float64)[None], 1, 6.0, make_generator(3))[0]
    turn = Affine.about(turn, torch.zeros(3).double(), torch.tensor([6.0, -4, 3]).double())
    grid = moving.grid
    where = grid.to_world(grid.voxels(torch.zeros(1).double())[None])
    motion = turn @ Displacement(grid.from_mm(2 * (where.roll(1, 1) / 20).sin()), grid)
    fixed = pull(moving, motion, onto=grid)
    for name, image in (("fixed", fixed), ("moving", moving)):
        write(image, folder / f"{name}.nii.gz")
        write(Labels((where.abs().amax(1, keepdim=True) < 47).to(torch.uint8), grid), folder / f"{name}_mask.nii.gz")
    return folder, motion


def off(path, points, motion):
    """How far the written map takes points from where they belong, mm, on average."""
    there = push(points, motion).data[0] * torch.tensor([-1, -1, 1])
    return float((itks(path, points.data[0] * torch.tensor([-1, -1, 1])) - there).norm(dim=1).mean())


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True])
def test_images_make_their_own_clouds(scans, tmp_path, masked):
    folder, motion = scans
    masks = [folder / f"{side}_mask.nii.gz" if masked else None for side in ("fixed", "moving")]
    content = match_files(folder / "fixed.nii.gz", folder / "moving.nii.gz", tmp_path / "out", masks=masks)
    assert content["clouds"] == ["keypoints", "keypoints"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(content["files"])
    assert {"fixed_keypoints.csv", "moving_keypoints.csv", "fixed_in_moving.csv"} <= {*content["files"]}
    points = read_points(tmp_path / "out" / "fixed_keypoints.csv").points
    assert content["points"][0] == points.data.shape[1] > 30
    assert not masked or float(points.data.abs().max()) < 47
    before = float((push(points, motion).data - points.data).norm(dim=2).mean())
    share = 0.6 if masked else 0.35  # some forty points lie in the masks, where lungs have a thousand
    assert off(tmp_path / "out" / "fixed_to_moving.h5", points, motion) < share * before
    assert "fixed keypoints and moving keypoints" in summary(content, "out")
    moved = read_points(tmp_path / "out" / "fixed_in_moving.csv").points
    assert moved.data.shape == points.data.shape


@pytest.mark.slow
def test_label_maps_are_matched_by_their_outlines(tmp_path, monkeypatch):
    """An ellipsoid with a kernel, larger and shifted."""
    monkeypatch.setattr(clouds, "OUTLINE", 150)
    grid = Grid.centred((40, 40, 40), 3.0)
    where = grid.to_world(grid.voxels(torch.zeros(1).double())[None])
    for name, middle, size in (("fixed", 0.0, 1.0), ("moving", 8.0, 1.15)):
        depth = ((where - middle) / (size * torch.tensor([45.0, 30, 36]).view(1, 3, 1, 1, 1))).norm(dim=1, keepdim=True)
        write(Labels((depth < 1).to(torch.uint8) + (depth < 0.5).to(torch.uint8), grid), tmp_path / f"{name}.nii.gz")
    content = match_files(tmp_path / "fixed.nii.gz", tmp_path / "moving.nii.gz", tmp_path / "out")
    assert content["clouds"] == ["outline", "outline"]
    assert content["points"] == [150, 150]
    assert [Path(path).name for path in content["surfaces"]] == ["fixed.nii.gz", "moving.nii.gz"]
    axes = torch.tensor([45.0, 30, 36])

    def off_surface(name):
        """How far points are from the moving surface, as a share of its size."""
        points = read_points(tmp_path / "out" / name).points.data[0]
        return float((((points - 8) / (1.15 * axes)).norm(dim=1) - 1).abs().mean())

    assert off_surface("fixed_in_moving.csv") < 0.5 * off_surface("fixed_outline.csv")


def test_what_is_a_label_map():
    grid = Grid.centred((8, 9, 7))
    noise = torch.rand(1, 1, 8, 9, 7, generator=make_generator(0))
    blocks = (noise[..., :1, :1, :1] > 2).float() + torch.arange(8.0).div(4).floor().view(8, 1, 1).expand(1, 1, 8, 9, 7)
    for data, expected in (
        (blocks, True),
        (300 * blocks, True),
        (noise, False),
        ((255 * noise).round(), False),
        (blocks - 1, False),
        (blocks / 2, False),
        (torch.zeros_like(noise), False),
    ):
        assert is_label_map(Image(data, grid)) is expected


def test_images_that_cannot_be_matched_are_refused(scans, landmarks, tmp_path):
    folder, _ = scans
    write(seen((40, 40), 2.0, 1), tmp_path / "slice.nii.gz")
    write(seen((12, 12, 12), 2.0, 2), tmp_path / "small.nii.gz")
    fixed, moving, out = folder / "fixed.nii.gz", folder / "moving.nii.gz", tmp_path / "out"
    for arguments, what in (
        ({"fixed": tmp_path / "slice.nii.gz"}, r"slice.nii.gz: a 2-D image; keypoints are matched in 3-D alone"),
        ({"moving": tmp_path / "small.nii.gz"}, r"small.nii.gz: \d+ keypoints, and 20 are needed"),
        ({"matched": True}, r"fixed.nii.gz: an image has no landmarks"),
        ({"fixed": landmarks[0], "matched": True}, r"moving.nii.gz: an image has no landmarks"),
        ({"space": "ras"}, r"--space: is of points, and there are none"),
        ({"moving": tmp_path / "none.nii.gz"}, r"none.nii.gz: no such file"),
        ({"masks": (folder / "fixed_mask.nii.gz", None)}, "give both"),
    ):
        with pytest.raises(InputError, match=what):
            match_files(**{"fixed": fixed, "moving": moving, "out": out} | arguments)
        assert not out.exists()


def named(path, points, names, title="label"):
    rows = [f"{name},{','.join(f'{x:.6f}' for x in row)}" for name, row in zip(names, points.tolist(), strict=True)]
    path.write_text("\n".join([f"{title},{AXES[points.shape[1]]}", *rows]) + "\n")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("title", ["Label", "name", "n", "id", ""])
def test_landmarks_of_one_name_belong_together(tmp_path, title):
    """In another order, and some without a partner; in a column without a title numbers are names."""
    points = drawn(60)
    order = torch.randperm(60, generator=make_generator(3))
    one = named(tmp_path / "fixed.csv", points[:55], range(55), title)
    two = named(tmp_path / "moving.csv", bent(points)[order], order.tolist(), "name" if title else "")
    content = match_files(one, two, tmp_path / "out", matched=True, points=one)
    assert (content["matched by"], content["pairs"], content["left out"]) == ("name", 55, [0, 5])
    assert content["numbers"]["after"]["mm between matched points"] < 1e-3
    assert "55 pairs, matched by name; without a partner: 0 fixed, 5 moving" in summary(content, "out")
    moved = read_points(tmp_path / "out" / "fixed_points_in_moving.csv")
    assert moved.points.name == tuple(map(str, range(55)))
    signs = torch.tensor([-1, -1, 1])
    torch.testing.assert_close(moved.points.data[0] * signs, bent(points)[:55], atol=1e-3, rtol=0)
    assert len(read_points(tmp_path / "out" / "moving_in_fixed.csv").points.name) == 60


@pytest.mark.slow
def test_landmarks_of_slicer_belong_together_by_their_labels(tmp_path):
    points, names = drawn(20), [f"F-{n}" for n in range(20)]
    (tmp_path / "fixed.fcsv").write_text(
        "# CoordinateSystem = LPS\n# columns = id,x,y,z,label\n"
        + "".join(f"{n},{x},{y},{z},F-{n}\n" for n, (x, y, z) in enumerate(points.tolist()))
    )
    controls = [
        {"id": "1", "label": name, "position": row} for name, row in zip(names, bent(points).tolist(), strict=True)
    ]
    markups = {"markups": [{"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": controls[:0:-1]}]}
    (tmp_path / "moving.mrk.json").write_text(json.dumps(markups))
    content = match_files(tmp_path / "fixed.fcsv", tmp_path / "moving.mrk.json", tmp_path / "out", matched=True)
    assert (content["matched by"], content["left out"]) == ("name", [1, 0])
    assert content["numbers"]["after"]["mm between matched points"] < 1e-3


@pytest.mark.slow
def test_points_that_one_file_does_not_name_belong_together_by_their_row(landmarks, tmp_path):
    _, moving, points = landmarks
    content = match_files(
        named(tmp_path / "named.csv", points, range(60, 0, -1)), moving, tmp_path / "out", matched=True
    )
    assert (content["matched by"], content["pairs"], content["left out"]) == ("row", 60, [0, 0])
    assert content["numbers"]["after"]["mm between matched points"] < 1e-3


def test_labels_of_structures_are_no_names(tmp_path):
    """ANTs' tables have such a column: where neither file tells its points apart, rows do."""
    points = drawn(20)
    one, two = (
        named(tmp_path / f"{side}.csv", where, [n % 3 for n in range(20)])
        for side, where in (("fixed", points), ("moving", bent(points)))
    )
    content = match_files(one, two, tmp_path / "out", matched=True)
    assert (content["matched by"], content["pairs"]) == ("row", 20)


def test_names_that_do_not_tell_partners_are_refused(tmp_path):
    points = drawn(20)
    one = named(tmp_path / "fixed.csv", points, range(20))
    for name, names, what in (
        ("doubled", [*range(19), 3], "doubled.csv: 3 is the name of more than one point"),
        ("few", range(17, 37), r"3 names are in both \(0, 1, 2, … against 17, 18, 19, …\), and 4 are needed"),
    ):
        two = named(tmp_path / f"{name}.csv", bent(points), names)
        with pytest.raises(InputError, match=what):
            match_files(one, two, tmp_path / "out", matched=True)
        assert not (tmp_path / "out").exists()
