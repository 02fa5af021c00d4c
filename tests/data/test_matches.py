"""Keypoints of images on disk: Learn2Reg's lung CT, as its file lists them."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch

from pullback.data import FileCase, Learn2Reg, Subject
from pullback.data.case import pair_of
from pullback.errors import InputError

SHAPE = (12, 14, 10)
AFFINE = np.array([[-1.75, 0, 0, 20.0], [0, -1.25, 0, 30.0], [0, 0, 1.75, -9.0], [0, 0, 0, 1]])


def name_of(person: int, breath: int) -> str:
    return f"LungCT_{person:04d}_{breath:04d}"


@pytest.fixture
def lungs(tmp_path):
    """Six people at exhale, 0000, and inhale, 0001, with keypoints that lie two voxels apart."""
    entries = []
    for person in range(1, 7):
        points = np.random.default_rng(person).uniform(3, 7, (9, 3)).round(3)
        for breath in range(2):
            name = name_of(person, breath)
            image = nib.Nifti1Image(np.random.default_rng(10 * person + breath).random(SHAPE, np.float32), AFFINE)
            nib.save(image, tmp_path / f"{name}.nii.gz")
            np.savetxt(tmp_path / f"{name}.csv", points + 2 * breath, delimiter=",", fmt="%.3f")
            entries.append({"image": f"./{name}.nii.gz", "keypoints": f"./{name}.csv"})
    pairs = [
        {"fixed": f"./{name_of(person, 0)}.nii.gz", "moving": f"./{name_of(person, 1)}.nii.gz"}
        for person in range(1, 7)
    ]
    layout = {"training": entries, "registration_val": pairs[4:], "training_paired_images": pairs[:4]}
    (tmp_path / "LungCT_dataset.json").write_text(json.dumps(layout))
    return tmp_path


def test_keypoints_match_row_by_row_and_lie_in_the_world(lungs):
    data = Learn2Reg(str(lungs), held_out=2, validation_pairs=1)
    for pair in (data.train.draw(torch.Generator().manual_seed(0)), *data.test, *data.validation):
        fixed, moving = pair.fixed_points, pair.moving_points
        assert fixed.data.shape == (1, 9, 3)
        person = pair.name.split("_")[1]
        stored = np.loadtxt(lungs / f"LungCT_{person}_0000.csv", delimiter=",")
        expected = stored @ AFFINE[:3, :3].T + AFFINE[:3, 3]
        np.testing.assert_allclose(fixed.data[0].numpy(), expected, atol=1e-9)
        apart = (moving.data - fixed.data)[0].numpy()
        np.testing.assert_allclose(apart, np.broadcast_to(AFFINE[:3, :3] @ [2, 2, 2], (9, 3)), atol=1e-9)
        there = pair.fixed.grid.to_voxels(fixed.data.mT)[0]
        assert bool((there >= 0).all())  # also where axes were turned on loading


def test_of_two_people_no_points_match(lungs):
    cases = [
        FileCase(name_of(person, 0), lungs / f"{name_of(person, 0)}.nii.gz", points=lungs / f"{name_of(person, 0)}.csv")
        for person in (1, 2)
    ]
    assert pair_of(*cases).fixed_points is None
    assert isinstance(cases[0].load(), Subject)
    assert cases[0].load().points is not None
    assert cases[0].files[-1] == cases[0].points


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y,z\n1,2,3\n", "a table of voxel coordinates"),
        ("1,2\n3,4\n", "3 finite voxel coordinates"),
        ("1,2,nan\n", "3 finite voxel coordinates"),
    ],
)
def test_tables_that_are_none_are_refused(lungs, text, message):
    path = lungs / "wrong.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        FileCase("a", lungs / f"{name_of(1, 0)}.nii.gz", points=path).load()


def test_other_numbers_of_points_are_refused(lungs):
    (lungs / f"{name_of(1, 1)}.csv").write_text("1,2,3\n")
    cases = [
        FileCase(name_of(1, breath), lungs / f"{name_of(1, breath)}.nii.gz", points=lungs / f"{name_of(1, breath)}.csv")
        for breath in range(2)
    ]
    with pytest.raises(InputError, match="row by row expected, got 9 and 1"):
        pair_of(*cases)
