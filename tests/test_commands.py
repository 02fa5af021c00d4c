"""apply, convert and doctor, as a person types them."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch

from pullback.files import TransformKind, read_any, read_grid, write, write_transform
from pullback.space import Affine, Displacement, Grid, Image


@pytest.fixture
def folder(tmp_path, smooth_field):
    """Two images on different grids, and a transform from one to the other."""
    fixed, moving = Grid.centred((18, 16, 14), 2.0), Grid.centred((12, 13, 15), 2.5)
    for name, grid in (("fixed", fixed), ("moving", moving)):
        write(
            Image(torch.rand(1, 1, *grid.shape, generator=torch.Generator().manual_seed(0)), grid),
            tmp_path / name_of(name),
        )
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, 3] = torch.tensor([1.0, -2, 0.5])
    field = smooth_field(fixed.shape, seed=1, amplitude=1.0).float()
    write_transform(Affine(matrix) @ Displacement(field, fixed), tmp_path / "t.h5")
    return tmp_path


def name_of(stem):
    return f"{stem}.nii.gz"


def test_the_direction_is_said_in_words(pullback):
    said = " ".join(pullback("apply", "--help")[1].split())
    assert "Images travel moving → fixed with fixed_to_moving." in said
    assert "Points travel fixed → moving with the same file." in said
    assert "moving_to_fixed, or --invert" in said


def test_apply_moves_an_image(pullback, folder):
    images = [folder / name_of(name) for name in ("moving", "fixed", "out")]
    code, out, err = pullback("apply", "-i", images[0], "-r", images[1], "-t", folder / "t.h5", "-o", images[2])
    assert (code, err) == (0, "")
    assert "18 × 16 × 14, linear between voxels" in " ".join(out.split())
    assert read_grid(images[2]) == read_grid(images[1])


def test_apply_there_and_back(pullback, folder):
    (folder / "p.csv").write_text("name,R,A,S\ntip,1,2,3\nend,-4,0,2\n")
    code, out, _ = pullback("apply", "-i", folder / "p.csv", "-t", folder / "t.h5", "-o", folder / "q.csv", "--json")
    assert code == 0
    assert json.loads(out)["output"] == str(folder / "q.csv")
    assert json.loads(out)["what"].endswith(f"pushed through {folder / 't.h5'}")
    options = ["-t", folder / "t.h5", "--invert"]
    code, out, _ = pullback("apply", "-i", folder / "q.csv", *options, "-o", folder / "r.csv")
    assert code == 0
    assert f"pushed through the inverse of {folder / 't.h5'}" in out
    there, back = (np.genfromtxt(folder / n, delimiter=",", skip_header=1)[:, 1:] for n in ("q.csv", "r.csv"))
    np.testing.assert_allclose(back, [[1, 2, 3], [-4, 0, 2]], atol=0.1 * 2)  # a tenth of a voxel
    assert np.abs(there - back).max() > 0.5
    assert (folder / "r.csv").read_text().splitlines()[1].startswith("tip,")


def test_apply_says_what_points_meet_and_in_which_order(pullback, folder):
    write_transform(Affine(torch.eye(4, dtype=torch.float64)), folder / "a.tfm")
    (folder / "p.csv").write_text("R,A,S\n1,2,3\n")
    one, two = folder / "a.tfm", folder / "t.h5"
    words = ["apply", "-i", folder / "p.csv", "-t", f"[{one},1]", "-t", two, "-o", folder / "q.csv"]
    assert f"pushed through the inverse of {one}, then {two}\n" in pullback(*words)[1]
    assert f"pushed through the inverse of {two}, then {one}\n" in pullback(*words, "--invert")[1]


def test_apply_says_that_nothing_is_in_view(pullback, folder):
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[0, 3] = 900
    write_transform(Affine(matrix), folder / "far.tfm")
    images = [folder / name_of(name) for name in ("moving", "fixed", "out")]
    command = ["apply", "-i", images[0], "-r", images[1], "-t", folder / "far.tfm", "-o", images[2]]
    code, _, err = pullback(*command)
    assert code == 0
    assert err.startswith("pullback: careful: ")
    assert "0 everywhere" in err
    assert "0 everywhere" in json.loads(pullback(*command, "--json")[1])["doubt"]


def test_prepare_by_all_its_options(pullback, tmp_path):
    """Each arrives where it is used; the table of what was done and the files tell."""
    rng, scans = np.random.default_rng(0), tmp_path / "scans"
    scans.mkdir()
    for n in range(7):
        for kind, values in (("T1w", rng.random((15, 14, 13), np.float32)), ("dseg", rng.integers(0, 4, (15, 14, 13)))):
            nib.save(nib.Nifti1Image(values.astype(np.float32), np.diag([2.0, 2, 3, 1])), scans / f"s{n}_{kind}.nii.gz")
    (tmp_path / "merge.csv").write_text("label,merged,name\n1,5,left\n2,5,left\n")
    patterns = ("--set", "data.images=*_T1w.nii.gz", "--set", "data.labels=*_dseg.nii.gz", "--set", "data.seed=3")
    labels = ("--merge", tmp_path / "merge.csv", "--drop", "--crop", "labels", "--margin", "1.5", "--normalise")
    voxels = ("--spacing", "1.5", "--shape", "20,21,22", "--stretch", "--task", "T")
    words = ("prepare", "--data", scans, "-o", tmp_path / "out", *patterns, *labels, *voxels, "--json")
    code, out, err = pullback(*words)
    assert (code, err) == (0, "")
    settings = json.loads(out)["settings"]
    unset = {f"data.{key}": None for key in ("masks", "shape", "atlas", "synthetic")}
    shares = {f"data.{key}": 0.15 for key in ("validation_split", "test_split")}
    assert {key: value for key, value in settings.items() if key != "merge"} == unset | shares | {
        "data.images": "*_T1w.nii.gz",
        "data.labels": "*_dseg.nii.gz",
        "data.seed": 3,
        "data.atlas_moves": True,
        "data.within": False,
        "crop": "labels",
        "margin": 1.5,
        "spacing": 1.5,
        "shape": [20, 21, 22],
        "stretch": True,
        "normalise": True,
        "task": "T",
    }
    assert (tmp_path / "out" / "labels.csv").read_text().split() == ["label,name,subjects", "5,left,7"]
    image = nib.load(tmp_path / "out" / "imagesTr" / "T_0007_0000.nii.gz")
    assert image.shape == (20, 21, 22)
    assert (image.get_fdata().min(), image.get_fdata().max()) == (0, 1)
    code, out, _ = pullback(*words[:-1])
    assert code == 0
    assert "7 subjects" in out
    assert "0 of them now" in out
    code, _, err = pullback(*words[:-1], "--margin", "2")
    assert code == 1
    assert "margin was 1.5 and is 2.0" in err


TARGETS = {
    "a.h5": ("itk", "LPS mm", 1),
    "a.tfm": (None, "LPS mm", 1),
    "warp.nii.gz": (None, "intent 1007", 1),
    "warp_fsl.nii.gz": ("fsl", "relative warp", 1),
    "disp_1_2.nii.gz": (None, "in voxels", 1),
    "disp.npz": (None, "in voxels", 1),
    "ours_": ("ants", "1Warp, then 0GenericAffine", 4),
    "a.x5": ("x5", "RAS mm", 1),
    "field.mha": (None, "LPS mm", 1),
    "y_a.nii": (None, "SPM", 1),
    "nreg.nii.gz": ("niftyreg", "NiftyReg", 1),
    "TransformParameters.0.txt": (None, "elastix", 1),
}


@pytest.mark.parametrize("name", TARGETS)
def test_convert_there_and_read_again(pullback, folder, name):
    """Through a file of any kind, points of the fixed image still land where they landed."""
    if name.endswith(".x5"):
        pytest.importorskip("nitransforms")
    kind, words, count = TARGETS[name]
    images = ["--fixed", folder / name_of("fixed"), "--moving", folder / name_of("moving")]
    to = ["--to", kind] if kind else []
    code, out, err = pullback("convert", folder / "t.h5", folder / name, *to, *images, "--json")
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert len(said["output"]) == count
    assert words in said["what"]
    source = ["--from", "fsl"] if kind == "fsl" else []
    assert pullback("convert", folder / name, folder / "again.h5", *source, *images)[0] == 0
    grid = read_grid(folder / name_of("fixed"))
    points = grid.centre + torch.from_numpy(np.random.default_rng(0).uniform(-9, 9, (20, 3)))
    before, after = (read_any(folder / file)(points) for file in ("t.h5", "again.h5"))
    torch.testing.assert_close(after, before, atol=0.02, rtol=0)


def test_kinds_are_all_named_in_the_help(pullback):
    said = pullback("convert", "--help")[1]
    assert all(kind.word in said for kind in TransformKind)


def sick(folder):
    stored = nib.load(folder / name_of("fixed"))
    values = np.asarray(stored.dataobj).copy()
    values[0, 0, 0] = np.nan
    turned = np.diag([-2.0, 2, 2, 1])
    image = nib.Nifti1Image(values, turned)
    image.header.set_xyzt_units("unknown")
    nib.save(image, folder / "sick.nii.gz")
    return folder / "sick.nii.gz"


def test_the_doctor_of_two_good_files(pullback, folder):
    code, out, err = pullback("doctor", folder / name_of("fixed"), folder / name_of("moving"))
    assert (code, err) == (0, "")
    assert out.strip().endswith("nothing found: nothing stands in the way")


def test_the_doctor_tells_the_worst_first(pullback, folder):
    code, out, _ = pullback("doctor", folder / name_of("fixed"), sick(folder), "--json")
    said = json.loads(out)
    levels = [finding["severity"] for finding in said["findings"]]
    assert code == 1
    assert levels[0] == "error"
    assert levels == sorted(levels, key=["error", "warning", "note"].index)
    assert all(finding["remedy"] for finding in said["findings"])
    assert any("left-handed" in finding["what"] for finding in said["findings"])


def test_the_doctor_prints_what_and_remedy(pullback, folder):
    code, out, _ = pullback("doctor", sick(folder))
    said = " ".join(out.split())
    assert code == 1
    assert said.index("1 voxels that are NaN") < said.index("nan_to_num") < said.index("left-handed")
    assert said.endswith("mend the errors first")


@pytest.mark.parametrize("mm", [15, 500])
def test_only_errors_are_failures(pullback, folder, mm):
    """Fields of view that touch are a warning; apart, an error."""
    stored = nib.load(folder / name_of("fixed"))
    affine = stored.affine.copy()
    affine[0, 3] += mm * 1.3
    image = nib.Nifti1Image(np.asarray(stored.dataobj), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, folder / "shifted.nii.gz")
    code, out, _ = pullback("doctor", folder / name_of("fixed"), folder / "shifted.nii.gz")
    assert code == (mm == 500)
    assert "centres" in out
