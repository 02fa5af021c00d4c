"""simulate: the transform on disk has the volume change that was asked for, as other tools read it."""

import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from pullback.errors import InputError
from pullback.files import read_scalar, read_transform, write
from pullback.numerics.difference import curl, determinant, jacobian
from pullback.space import Grid, Image
from pullback.testing.problems import waved
from pullback.workflows.simulate import simulate_files


def shrunk(ndim, oblique):
    """A determinant of 0.7 in a soft ball, whose mean over the grid is below 1."""
    grid = oblique((24, 20, 18)[:ndim], seed=7)
    middle = torch.tensor(grid.shape).view(-1, *[1] * ndim) / 2
    away = (grid.voxels(torch.zeros(1, dtype=torch.float64)) - middle).norm(dim=0)
    return Image((1 - 0.3 * torch.sigmoid(1.5 * (5 - away)))[None, None].float(), grid)


@pytest.fixture
def asked(tmp_path, oblique):
    def make(ndim):
        write(shrunk(ndim, oblique), tmp_path / "J.nii.gz")
        return tmp_path / "J.nii.gz"

    return make


@pytest.mark.parametrize("ndim", [2, 3])
def test_what_is_written_has_the_volume_change(asked, tmp_path, ndim):
    """The determinant of the file as ITK sees it, by differences between voxels, but for the grid's outer voxels."""
    record = simulate_files(asked(ndim), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(record["files"])
    wanted = read_scalar(asked(ndim))
    factor = record["wanted"]["multiplied by"]
    assert 1 < factor < 1.1
    reached = read_scalar(tmp_path / "out" / "jacobian.nii.gz")
    assert reached.grid == wanted.grid
    inside = (..., *[slice(3, -3)] * ndim)
    assert float((reached.data - factor * wanted.data)[inside].abs().max()) < 0.02
    theirs = itk_determinant(tmp_path / "out" / "fixed_to_moving.h5", tmp_path / "J.nii.gz", ndim)
    np.testing.assert_allclose(theirs[inside], reached.data[0, 0].numpy()[inside], atol=2e-3)
    assert record["errors"]["determinant"]["95 %"] < 0.02
    assert record["round trip voxels"]["max"] < 0.01


def itk_determinant(transform, image, ndim):
    """The determinant by central differences of where ITK brings the voxels, in voxels."""
    image, transform = sitk.ReadImage(str(image)), sitk.ReadTransform(str(transform))
    size = image.GetSize()
    there = np.empty((*size, ndim))
    for index in np.ndindex(*size):
        point = transform.TransformPoint(image.TransformIndexToPhysicalPoint([int(n) for n in index]))
        there[index] = image.TransformPhysicalPointToContinuousIndex(point)
    slopes = np.stack([np.stack(np.gradient(there[..., a])) for a in range(ndim)])
    return np.linalg.det(np.moveaxis(slopes, (0, 1), (-2, -1)))


def test_the_inverse_undoes_it(asked, tmp_path):
    simulate_files(asked(2), tmp_path / "out")
    there, back = (read_transform(tmp_path / "out" / f"{name}.h5") for name in ("fixed_to_moving", "moving_to_fixed"))
    grid = read_scalar(asked(2)).grid
    assert float(there.displacement(grid).norm(dim=1).max()) > 0.3
    assert float((back @ there).displacement(grid).norm(dim=1).mean()) < 0.01


def test_a_curl_turns(tmp_path):
    """A determinant and a curl of one map: the map comes back from files."""
    grid = Grid.centred((26, 22), (1.0, 1.5))
    u = waved(grid, 3.0)
    write(Image(determinant(jacobian(u.field)).float(), grid), tmp_path / "J.nii.gz")
    edges = torch.tensor([1.0, 1.5]).view(-1, 1, 1)
    write(Image(curl(u.field * edges, (1.0, 1.5)).float(), grid), tmp_path / "C.nii.gz")
    record = simulate_files(tmp_path / "J.nii.gz", tmp_path / "out", [tmp_path / "C.nii.gz"])
    found = read_transform(tmp_path / "out" / "fixed_to_moving.h5").displacement(grid)
    assert float((found - u.field).norm(dim=1).mean()) < 0.02
    assert record["errors"]["curl"]["mean"] < 0.01


def test_what_cannot_be_is_refused_and_nothing_is_written(tmp_path, asked):
    path = asked(2)
    image = read_scalar(path)
    write(Image(image.data - 0.9, image.grid), tmp_path / "low.nii.gz")
    write(Image(image.data, Grid.centred(image.grid.shape)), tmp_path / "elsewhere.nii.gz")
    for path_of_it, about, words in (
        (
            tmp_path / "low.nii.gz",
            (),
            r"low.nii.gz: the determinant is -0.1\d* at least, and not above 0 in \d+ of 480",
        ),
        (path, [path, path], "curl of a 2-D map has 1 channel on the grid 24×20; got 2"),
        (path, [tmp_path / "elsewhere.nii.gz"], "both must be on one grid"),
        (tmp_path / "none.nii.gz", (), "none.nii.gz"),
    ):
        with pytest.raises(InputError, match=words):
            simulate_files(path_of_it, tmp_path / "out", about)
    assert not (tmp_path / "out").exists()


def test_the_command_tells_what_it_made(pullback, asked, tmp_path):
    code, out, err = pullback("simulate", "--jacobian", asked(2), "-o", tmp_path / "out")
    assert (code, err) == (0, "")
    said = " ".join(out.split())
    assert "careful: the determinant has a mean of 0.9" in said
    assert "it was multiplied by 1.0" in said
    assert "error of the determinant: mean 0.0" in said
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["careful"]
    code, out, _ = pullback("simulate", "--jacobian", asked(2), "-o", tmp_path / "out", "--json")
    assert code == 0
    assert json.loads(out)["files"] == record["files"]


def test_the_command_refuses_a_fold_in_one_line(pullback, tmp_path):
    data = np.ones((12, 10), dtype=np.float32)
    data[4, 4] = -0.5
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "J.nii.gz")
    code, out, err = pullback("simulate", "--jacobian", tmp_path / "J.nii.gz", "-o", tmp_path / "out")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "-0.5 at least, and not above 0 in 1 of 120 voxels" in err
