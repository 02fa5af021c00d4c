"""`pullback register` end to end on an oblique, anisotropic pair, its files read by SimpleITK and ANTs."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from pullback.data import Cohort
from pullback.files.nifti import read_image, write_image
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.recipes import find
from pullback.space import Affine, Grid, Image, pull
from pullback.study.recipe import to_yaml
from pullback.study.register import register_files
from pullback.study.run import build, load_run
from pullback.study.trained import Trained
from pullback.training import save_weights


def turned(degrees: float, spacing: tuple[float, float, float], shape: tuple[int, int, int], flip: bool) -> Grid:
    a = np.deg2rad(degrees)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    linear = x @ z @ np.diag(spacing)
    if flip:
        linear[:, 0] *= -1
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = np.array([4.0, -18.0, 6.0]) - linear @ ((np.array(shape) - 1) / 2)
    return Grid(shape, torch.from_numpy(affine))


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """A folder with an oblique pair, its labels, and a run whose untrained network moves things by some voxels."""
    root = tmp_path_factory.mktemp("register")
    cohort = Cohort(spacing=5.0, train_subjects=2)
    grids = (turned(12, (4.0, 5.0, 6.5), (36, 34, 26), False), turned(-8, (5.0, 4.5, 5.5), (30, 38, 30), True))
    for name, case, grid in zip(("fixed", "moving"), cohort.train.cases, grids, strict=True):
        subject = case.load()
        write_image(pull(subject.image, Affine.identity(3), onto=grid), root / f"{name}.nii.gz")
        write_image(pull(subject.labels, Affine.identity(3), onto=grid), root / f"{name}_labels.nii.gz")
    recipe = replace(
        find("ofg_voxelmorph_phantom"), network=partial(VoxelMorph, ndim=3, encoder=(8, 8), decoder=(8,) * 4)
    )
    network = build(recipe)
    torch.nn.init.normal_(network.head.weight, std=0.3, generator=torch.Generator().manual_seed(0))
    (root / "run").mkdir()
    (root / "run" / "recipe.yaml").write_text(to_yaml(recipe))
    save_weights(network, root / "run" / "best.safetensors", {})
    labels = {f"{name}_labels": root / f"{name}_labels.nii.gz" for name in ("fixed", "moving")}
    _, register = load_run(root / "run")
    register_files(root / "fixed.nii.gz", root / "moving.nii.gz", register, root / "out", **labels)
    return root


def inner(array: np.ndarray, by: int = 3) -> np.ndarray:
    return array[by:-by, by:-by, by:-by]


def test_what_is_written(world):
    left = "moved.nii.gz moved_labels.nii.gz fixed_to_moving.nii.gz moving_to_fixed.nii.gz run.json report.html"
    assert {p.name for p in (world / "out").iterdir()} == set(left.split())
    content = json.loads((world / "out" / "run.json").read_text())
    assert content["numbers"]["after"].keys() >= {"dice", "ncc", "folding %", "sdlogj"}
    assert content["libraries"]["torch"].startswith("2")
    assert nib.load(world / "out" / "moved_labels.nii.gz").get_data_dtype() == np.uint8


def test_the_field_moves_something(world):
    field = np.asarray(nib.load(world / "out" / "fixed_to_moving.nii.gz").dataobj)
    assert np.linalg.norm(field, axis=-1).mean() > 1  # mm: a test on no motion would prove nothing


@pytest.fixture(scope="session")
def moved(world) -> np.ndarray:
    return np.asarray(nib.load(world / "out" / "moved.nii.gz").dataobj)


def read(path: Path) -> sitk.Image:
    return sitk.ReadImage(str(path), sitk.sitkFloat64)


@pytest.fixture(scope="session")
def seen(world) -> np.ndarray:
    """Voxels at least three from the fixed border whose values come from at least one voxel within the moving image.

    At the very border ITK repeats the image for half a voxel where we fade it out.
    """
    moving = read(world / "moving.nii.gz")
    core = np.zeros(moving.GetSize()[::-1])
    core[1:-1, 1:-1, 1:-1] = 1
    image = sitk.GetImageFromArray(core)
    image.CopyInformation(moving)
    field = sitk.ReadImage(str(world / "out" / "fixed_to_moving.nii.gz"), sitk.sitkVectorFloat64)
    transform = sitk.DisplacementFieldTransform(field)
    covered = sitk.Resample(image, read(world / "fixed.nii.gz"), transform, sitk.sitkLinear)
    inside = sitk.GetArrayFromImage(covered).T > 1 - 1e-9
    border = np.zeros_like(inside)
    border[3:-3, 3:-3, 3:-3] = True
    assert (inside & border).sum() > 5000
    return inside & border


def test_simpleitk_gives_our_moved_image(world, moved, seen):
    field = sitk.ReadImage(str(world / "out" / "fixed_to_moving.nii.gz"), sitk.sitkVectorFloat64)
    fixed, moving = read(world / "fixed.nii.gz"), read(world / "moving.nii.gz")
    transform = sitk.DisplacementFieldTransform(field)
    theirs = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear)).T
    np.testing.assert_allclose(theirs[seen], moved[seen], atol=2e-5)


def test_ants_gives_our_moved_image(world, moved, seen):
    ants = pytest.importorskip("ants", reason="antspyx is an extra: pip install 'pullback[peers]'")
    fixed, moving = (ants.image_read(str(world / f"{name}.nii.gz")) for name in ("fixed", "moving"))
    theirs = ants.apply_transforms(fixed, moving, [str(world / "out" / "fixed_to_moving.nii.gz")]).numpy()
    np.testing.assert_allclose(theirs[seen], moved[seen], atol=2e-5)


def test_the_inverse_brings_the_fixed_image_onto_the_moving_grid(world):
    """Pulled there and back again, the fixed image is itself, up to two interpolations and what left the view."""
    there = sitk.ReadImage(str(world / "out" / "fixed_to_moving.nii.gz"), sitk.sitkVectorFloat64)
    back = sitk.ReadImage(str(world / "out" / "moving_to_fixed.nii.gz"), sitk.sitkVectorFloat64)
    fixed, moving = read(world / "fixed.nii.gz"), read(world / "moving.nii.gz")
    away = sitk.Resample(fixed, moving, sitk.DisplacementFieldTransform(back), sitk.sitkLinear)
    home = sitk.Resample(away, fixed, sitk.DisplacementFieldTransform(there), sitk.sitkLinear)
    a, b = (inner(sitk.GetArrayFromImage(x).T, 5).ravel() for x in (fixed, home))
    assert np.corrcoef(a, b)[0, 1] > 0.95
    content = json.loads((world / "out" / "run.json").read_text())
    assert 0 < content["round trip mm"]["mean"] < 0.5


def test_labels_are_moved_as_labels(world):
    labels = np.asarray(nib.load(world / "out" / "moved_labels.nii.gz").dataobj)
    assert set(np.unique(labels)) <= {0, 1, 2, 3}


def test_centres_are_laid_on_each_other_when_asked(world, tmp_path):
    far = read_image(world / "moving.nii.gz")
    affine = far.grid.affine.clone()
    affine[:3, 3] += torch.tensor([300.0, -200.0, 100.0], dtype=torch.float64)
    write_image(Image(far.data, Grid(far.grid.shape, affine)), tmp_path / "far.nii.gz")
    network = load_run(world / "run")[1].network
    files = (world / "fixed.nii.gz", tmp_path / "far.nii.gz")
    lost = register_files(*files, Trained(network), tmp_path / "header")
    found = register_files(*files, Trained(network, centred=True), tmp_path / "centres")
    assert lost["numbers"]["before"]["ncc"] == 0
    assert found["numbers"]["before"]["ncc"] > 0.4


def test_the_moved_image_lies_on_the_fixed_grid(world):
    fixed, moved = nib.load(world / "fixed.nii.gz"), nib.load(world / "out" / "moved.nii.gz")
    np.testing.assert_allclose(fixed.affine, moved.affine, atol=1e-5)
    assert fixed.shape == moved.shape


def stored_otherwise(image: Image) -> Image:
    """The same world, stored with its first axis reversed and the other two exchanged."""
    data = image.data.flip(2).transpose(3, 4)
    change = torch.eye(4, dtype=torch.float64)
    change[0, 0], change[0, 3] = -1, image.grid.shape[0] - 1
    order = torch.eye(4, dtype=torch.float64)[[0, 2, 1, 3]]
    shape = tuple(image.grid.shape[axis] for axis in (0, 2, 1))
    return Image(data.contiguous(), Grid(shape, image.grid.affine @ change @ order))


def test_a_trained_network_does_not_see_how_the_array_is_stored(world):
    register = load_run(world / "run")[1]
    fixed, moving = (read_image(world / f"{name}.nii.gz") for name in ("fixed", "moving"))
    one = register(fixed, moving).transform
    two = register(stored_otherwise(fixed), stored_otherwise(moving)).transform
    points = fixed.grid.to_world(torch.tensor([[[12.0, 20.0], [15.0, 17.0], [11.0, 14.0]]])).mT
    assert float((one(points) - points).norm(dim=-1).min()) > 0.5
    torch.testing.assert_close(one(points), two(points), atol=1e-3, rtol=0)


def test_a_trained_network_works_in_the_voxel_size_of_its_training(world):
    """Images of half the voxel size are aligned as their coarse versions are, not twice as little."""
    network = load_run(world / "run")[1].network
    coarse = [case.load().image for case in Cohort(spacing=8.0, train_subjects=2).train.cases]
    grid = coarse[0].grid.at_spacing((4.0, 4.0, 4.0))
    fine = [pull(image, Affine.identity(3), onto=grid) for image in coarse]
    register = Trained(network, spacing=(8.0, 8.0, 8.0))
    one, two = (register(*images).transform.displacement(coarse[0].grid) for images in (coarse, fine))
    inner = (..., slice(4, -4), slice(4, -4), slice(4, -4))
    assert float((one - two)[inner].norm(dim=1).mean()) < 0.35 * float(one[inner].norm(dim=1).mean())
