"""Slices located in a volume, from files to files."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pullback.cli import app
from pullback.data.phantoms.femur import femur_in, femur_on, neck_slices
from pullback.errors import InputError
from pullback.files import read_image, read_transform, write_image, write_transform
from pullback.files.images.plane import read_slice
from pullback.numerics.rotation import of_vector
from pullback.numerics.smooth import smooth_noise
from pullback.space import Affine, Grid, Image, emulated, laid_in, placed
from pullback.workflows.apply import apply_files, read_in_order
from pullback.workflows.locate_in_volume import LocateHow, locate_in_volume

QUICK = {"search.starts": "0", "solver.steps": "60", "solver.step_size": "0.4"}
GRID = Grid.centred((32, 34, 30), 2.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[list[Path], Path, Affine]:
    """Two slices of another contrast, whose headers are wrong by a known pose, and the volume."""
    folder = tmp_path_factory.mktemp("slices")
    draws = torch.Generator().manual_seed(2)
    coarse, fine = (smooth_noise((1, 1, *GRID.shape), sigma, draws, torch.zeros(1)) for sigma in (6.0, 2.5))
    volume = Image(coarse + 0.5 * fine, GRID)
    seen = Image((1.6 * volume.data).sin() + 0.3 * volume.data, GRID)
    truth = Affine.about(
        of_vector(torch.tensor([[0.05, -0.06, 0.04]]).double())[0], torch.tensor([2.0, 1, -1]).double()
    )
    truth = Affine(truth.matrix + torch.tensor([[0, 0, 0, 2.0], [0, 0, 0, -1.5], [0, 0, 0, 1], [0] * 4]).double())
    paths = []
    for n, axes in enumerate(((0, 1, 2), (2, 1, 0))):
        affine = torch.zeros(4, 4).double()
        affine[3, 3] = 1
        for stored, (axis, edge) in enumerate(zip(axes, (2.0, 2.0, 4.0), strict=True)):
            affine[axis, stored] = edge
        affine[:3, 3] = -12.5 * affine[:3, :2].sum(1)
        one = emulated(seen, Affine.identity(3), Grid((26, 26, 1), affine))
        paths.append(folder / f"slice_{n}.nii.gz")
        write_image(placed(one, truth), paths[-1])
    write_image(volume, folder / "volume.nii.gz")
    return paths, folder / "volume.nii.gz", truth


@pytest.fixture(scope="module")
def located(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    paths, volume, _ = files
    return locate_in_volume(paths, volume, out, how=LocateHow(QUICK)), out


def test_the_transform_is_the_pose(files, located):
    content, out = located
    _, _, truth = files
    found = read_transform(out / "slices_to_volume.h5")
    points = torch.tensor([[15.0, -10, 0], [-12, 8, 3], [0, 0, -14]]).double()
    assert float((found(points) - truth(points)).norm(dim=1).max()) < 0.3
    back = read_transform(out / "volume_to_slices.h5")
    assert torch.allclose(back(found(points)), points, atol=1e-6)
    assert content["quality"]["passed"]
    assert content["undetermined"] == []
    assert json.loads((out / "run.json").read_text())["slices"]["slice_0"]["file"] == str(files[0][0])


def test_apply_brings_the_volume_onto_the_slice(files, located, tmp_path):
    """By the transform that was written; of one layer it is what the workflow writes, but for thickness."""
    _, out = located
    paths, volume, _ = files
    transform = read_in_order([str(out / "slices_to_volume.h5")])
    apply_files(volume, transform, tmp_path / "onto.nii.gz", reference=paths[0])
    theirs, ours = nib.load(tmp_path / "onto.nii.gz"), nib.load(out / "slice_0_from_volume.nii.gz")
    assert theirs.shape == ours.shape == (26, 26, 1)
    assert np.allclose(theirs.affine, ours.affine, atol=1e-4)
    middle = (slice(3, -3), slice(3, -3), 0)
    assert np.corrcoef(theirs.get_fdata()[middle].ravel(), ours.get_fdata()[middle].ravel())[0, 1] > 0.97


def test_a_slice_in_the_volume_has_its_own_pixels_where_they_lie(files, located):
    _, out = located
    for n, path in enumerate(files[0]):
        own, there = read_slice(path), read_slice(out / f"slice_{n}_in_volume.nii.gz")
        assert torch.equal(own.data, there.data)
        pose = read_transform(out / "slices_to_volume.h5")
        corner = torch.tensor([[0.0, 0, 0]]).double()
        assert torch.allclose(
            pose(own.grid.to_world(corner.T[None])[0].T), there.grid.to_world(corner.T[None])[0].T, atol=1e-3
        )


def test_what_was_measured_lies_on_the_volumes_grid(files, located):
    _, out = located
    count = nib.load(out / "slices_there.nii.gz").get_fdata()
    mean = nib.load(out / "in_volume.nii.gz").get_fdata()
    assert count.shape == GRID.shape
    assert set(np.unique(count)) == {0, 1, 2}
    assert np.all(mean[count == 0] == 0)


def test_slices_laid_in_their_own_grid_are_themselves():
    """A volume cut into slices along an axis is made of them again."""
    volume = Image(torch.randn(1, 1, 6, 7, 5, generator=torch.Generator().manual_seed(0)), Grid.centred((6, 7, 5), 2.0))
    slices = []
    for n in range(5):
        affine = volume.grid.affine.clone()
        affine[:3, 3] += n * affine[:3, 2]
        slices.append(Image(volume.data[..., n : n + 1], Grid((6, 7, 1), affine)))
    mean, count = laid_in(slices, [Affine.identity(3)] * 5, volume.grid)
    inner = count.data == 1
    assert torch.allclose(mean.data[inner], volume.data[inner], atol=1e-6)
    assert float(inner.float().mean()) > 0.99 or set(count.data.unique().tolist()) <= {1, 2}


def test_the_page_shows_it_and_needs_nothing_else(located):
    _, out = located
    page = (out / "index.html").read_text()
    assert "data:image/png;base64," in page
    assert "All six directions of the pose are determined." in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_command_begins_from_a_transform_and_writes_each_pose(files, tmp_path, monkeypatch):
    paths, volume, truth = files
    write_transform(truth, tmp_path / "start.tfm")
    settings = [f"--set={key}={value}" for key, value in {**QUICK, "solver.steps": "5"}.items()]
    words = ["locate", *map(str, paths), "--in", str(volume), "-o", str(tmp_path / "out"), "--apart", "--json"]
    result = CliRunner().invoke(app, [*words, "--start", str(tmp_path / "start.tfm"), *settings])
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["begun"] == "given"
    assert {"slice_0_to_volume.h5", "slice_1_to_volume.h5", "index.html"} <= set(content["files"])


def test_what_does_not_fit_is_refused_before_anything_is_written(files, tmp_path):
    paths, volume, _ = files
    out = tmp_path / "out"
    for how, words in (
        (LocateHow(QUICK, masks=[paths[0]]), "belong together"),
        (LocateHow({"bins": "3"}), "is not there"),
        (LocateHow(QUICK, reorder=True), "3 to 7"),
    ):
        with pytest.raises(InputError, match=words):
            locate_in_volume(paths, volume, out, how=how)
    with pytest.raises(InputError, match="one slice is expected"):
        locate_in_volume([volume], volume, out, how=LocateHow(QUICK))
    with pytest.raises(InputError, match="a slice; a volume"):
        locate_in_volume(paths, paths[0], out, how=LocateHow(QUICK))
    assert not out.exists()
    assert read_image(volume).grid == GRID


@pytest.mark.nightly
def test_masks_of_a_bone_give_the_start(tmp_path):
    """Six sections of a femur, 15 mm and 20° off, whose body is laid on the bone of the volume first."""
    affine = torch.diag(torch.tensor([3.0, 3, 3, 1]).double())
    affine[:3, 3] = torch.tensor([-70.0, -70, -120])
    grid = Grid((58, 46, 60), affine)
    flesh = smooth_noise((1, 1, *grid.shape), 2.5, torch.Generator().manual_seed(1), torch.zeros(1).double())
    volume = Image((femur_on(grid).data / 8).tanh() + 0.3 * flesh, grid)
    turn = of_vector(torch.tensor([[0.2, -0.25, 0.15]]).double())[0]
    truth = Affine.about(turn, torch.zeros(3).double(), torch.tensor([9.0, -10, 7]).double())
    slices, masks = [], []
    for n, where in enumerate(neck_slices(side=44)):
        one = emulated(replace(volume, data=(2 * volume.data).cos()), Affine.identity(3), where)
        slices.append(tmp_path / f"slice_{n}.nii.gz")
        masks.append(tmp_path / f"mask_{n}.nii.gz")
        write_image(placed(one, truth), slices[-1])
        write_image(placed(femur_in(where), truth), masks[-1])
    write_image(volume, tmp_path / "volume.nii.gz")
    write_image(femur_in(grid), tmp_path / "bone.nii.gz")
    how = LocateHow({"search.starts": "0"}, masks=masks, bone=tmp_path / "bone.nii.gz")
    content = locate_in_volume(slices, tmp_path / "volume.nii.gz", tmp_path / "out", how=how)
    found = read_transform(tmp_path / "out/slices_to_volume.h5")
    points = truth.inverse()(torch.tensor([[20.0, 0, 0], [0, 20, 0], [0, 0, -20], [-20, 0, 0]]).double())
    assert float((points - truth(points)).norm(dim=1).mean()) > 12
    assert float((found(points) - truth(points)).norm(dim=1).mean()) < 0.5
    assert content["begun"] == "given"
    with pytest.raises(InputError, match="one of each slice"):
        locate_in_volume(slices[:5], tmp_path / "volume.nii.gz", tmp_path / "no", how=how)
