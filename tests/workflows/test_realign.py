"""Realignment of files: what the table says is what the transforms do, and what cannot be used is refused."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pullback.cli import app
from pullback.errors import InputError
from pullback.files import read_series
from pullback.methods.pose.tissue_model import TissueModel
from pullback.metrics.motion import motion_numbers
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import gaussian
from pullback.records.csv_records import read_csv
from pullback.solvers.realigned import Realigned
from pullback.space import Affine, Grid, Image, Motion, pull
from pullback.workflows.realign import Realigning, about_frame, realign_files, realigning

COLUMNS = ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z", "framewise_displacement"]
GRID = Grid.centred((22, 20, 14), (4.0, 4.0, 5.0))
COUNT = 4


def head() -> torch.Tensor:
    """Three maps of tissue, `(1, 3, …)`."""
    at = GRID.to_world(GRID.voxels(torch.zeros(1, dtype=torch.float64))[None])[0]
    radius = (at / torch.tensor([36.0, 30.0, 26.0]).view(3, 1, 1, 1)).norm(dim=0)
    fluid = ((at - 8) / torch.tensor([8.0, 14.0, 10.0]).view(3, 1, 1, 1)).norm(dim=0) < 1
    inner, whole = (radius < 0.7) & ~fluid, radius < 1
    return gaussian(torch.stack([whole & ~inner & ~fluid, inner, fluid])[None].float(), 0.7)


def poses() -> Motion:
    motion = Motion.rigid(Affine.identity(3), GRID)
    drawn = torch.randn(COUNT, 6, generator=make_generator(5), dtype=torch.float64)
    return motion.with_params(1.5 * (drawn - drawn.mean(0)))


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> Path:
    """Magnitudes of a head that moves, whole numbers, σ 3."""
    maps = Image(head(), GRID)
    seen = pull(maps, poses().as_affine, onto=GRID).data
    signal = (seen * torch.tensor([60.0, 40.0, 120.0]).view(1, 3, 1, 1, 1)).sum(1)
    noise = 3 * torch.randn(2, *signal.shape, generator=make_generator(6))
    data = torch.hypot(signal + noise[0], noise[1]).round().short().movedim(0, -1).numpy()
    image = nib.Nifti1Image(data, GRID.affine.numpy())
    image.header["pixdim"][4] = 2.5
    image.header.set_xyzt_units("mm", "sec")
    path = tmp_path_factory.mktemp("series") / "bold.nii.gz"
    nib.save(image, path)
    return path


@pytest.fixture(scope="module")
def maps(series) -> list[Path]:
    paths = []
    for n, values in enumerate(head()[0]):
        paths.append(series.parent / f"c{n}.nii.gz")
        nib.save(nib.Nifti1Image(values.numpy(), GRID.affine.numpy()), paths[-1])
    return paths


@pytest.fixture(scope="module")
def plain(series, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out")
    found = CliRunner().invoke(app, ["realign", "-i", str(series), "-o", str(out), "--json"])
    assert found.exit_code == 0, found.output
    return out


def test_the_table_tells_the_motion_that_was_made(plain):
    rows = read_csv(plain / "motion.csv")
    assert (plain / "motion.csv").read_text().splitlines()[0].split(",") == COLUMNS
    known = motion_numbers(poses().matrix, GRID.centre)
    for name in COLUMNS[:6]:
        found = torch.tensor([row[name] for row in rows], dtype=torch.float64)
        within = 0.25 if name.startswith("trans") else 0.25 / 26  # mm at the edge of the head
        off = (found - found.mean()) - (known[name] - known[name].mean())
        assert float(off.abs().max()) < within, name
    assert "framewise_displacement" not in rows[0]
    assert rows[1]["framewise_displacement"] > 0.5


def test_apply_makes_the_corrected_frames_again_and_the_header_is_kept(series, plain):
    words = ["apply", "-i", str(series), "-r", str(series), "-t", str(plain / "transforms"), "-n", "cubic"]
    found = CliRunner().invoke(app, [*words, "-o", str(plain / "again.nii.gz")])
    assert found.exit_code == 0, found.output
    made, again = (nib.load(plain / name) for name in ("corrected.nii.gz", "again.nii.gz"))
    assert np.abs(made.get_fdata() - again.get_fdata()).max() < 0.05
    assert made.header["pixdim"][4] == 2.5
    assert made.header.get_xyzt_units() == ("mm", "sec")
    mean = nib.load(plain / "mean.nii.gz").get_fdata()
    np.testing.assert_allclose(mean, made.get_fdata().mean(-1), rtol=0, atol=1e-3)


def test_the_record_says_what_became_better_and_the_page_shows_it(series, plain):
    record = json.loads((plain / "run.json").read_text())
    spread = record["deviation over frames"]
    assert spread["after"] < 0.6 * spread["before"]
    assert record["quality"] == {"passed": True}
    assert record["interpolation"] == "cubic"
    assert {"corrected.nii.gz", "motion.csv", "motion.html", "transforms/frame_0003.h5"} <= {*record["files"]}
    page = (plain / "motion.html").read_text()
    assert page.count("<svg") == 2
    assert "framewise" in page


def test_a_frame_may_stay_and_the_others_lie_to_it_as_before(series):
    found = Realigned(read_series(series), poses())
    there = about_frame(found, 2)
    torch.testing.assert_close(there.motion.matrix[2], torch.eye(4, dtype=torch.float64))
    for n in range(COUNT):
        before, after = (torch.linalg.inv(each.motion.matrix[2]) @ each.motion.matrix[n] for each in (found, there))
        torch.testing.assert_close(before, after)
    assert about_frame(found, None) is found


def test_tissues_give_intensities_noise_and_the_files_own_numbers(series, maps, tmp_path):
    words = ["realign", "-i", str(series), "-o", str(tmp_path / "out"), "--asleep", "--set", "rounds=6"]
    for path in maps:
        words += ["--tissues", str(path)]
    found = CliRunner().invoke(app, [*words, "--json"])
    assert found.exit_code == 0, found.output
    record = json.loads(found.output.splitlines()[-1])
    assert record["sigma"] == pytest.approx(3, rel=0.15)
    assert record["settings"] != {}
    np.testing.assert_allclose(record["intensities"], [60, 40, 120], rtol=0.1)
    stored = nib.load(tmp_path / "out" / "corrected.nii.gz")
    assert stored.get_data_dtype() == np.int16
    assert set(np.unique(stored.dataobj)) <= {0, *np.unique(nib.load(series).dataobj)}
    rows = read_csv(tmp_path / "out" / "motion.csv")
    assert all(np.isfinite(row["log_likelihood"]) for row in rows)
    known, shifts = poses(), torch.tensor([[row[name] for name in COLUMNS[:3]] for row in rows], dtype=torch.float64)
    true = torch.stack([motion_numbers(known.matrix, GRID.centre)[name] for name in COLUMNS[:3]], 1)
    assert float((shifts - true).abs().max()) < 0.6


@pytest.mark.nightly
def test_a_folder_of_frames_is_a_series(series, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for n, frame in enumerate(read_series(series)):
        nib.save(nib.Nifti1Image(frame.data[0, 0].numpy(), GRID.affine.numpy()), folder / f"frame_{n}.nii")
    content = realign_files(folder, Realigning(), tmp_path / "out")
    assert content["frames"] == COUNT
    assert nib.load(tmp_path / "out" / "corrected.nii.gz").shape == (*GRID.shape, COUNT)


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"noise": "poisson"}, "there is rician, gaussian, rician-mean"),
        ({"asleep": True}, "--tissues gives"),
        ({"settings": {"smooth": "3"}}, "is not there"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, words):
    asked = {"tissues": (), "noise": "rician", "asleep": False, "sodium": False, "settings": {}} | options
    with pytest.raises(InputError, match=words):
        realigning(**asked)


def test_files_that_cannot_be_used_are_refused_by_name(series, maps, tmp_path):
    volume, labels = tmp_path / "one.nii.gz", tmp_path / "labels.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((5, 5, 5), np.float32), np.eye(4)), volume)
    nib.save(nib.Nifti1Image(head()[0].argmax(0).numpy().astype(np.uint8) + 1, GRID.affine.numpy()), labels)
    out = tmp_path / "out"
    with pytest.raises(InputError, match="4-D one, or a folder"):
        realign_files(volume, Realigning(), out)
    with pytest.raises(InputError, match="--at 9"):
        realign_files(series, Realigning(at=9), out)
    with pytest.raises(InputError, match="a label map, it seems"):
        realign_files(series, Realigning(tissues=[labels]), out)
    with pytest.raises(InputError, match="leave it out"):
        realigning(maps, "rician", False, False, {}, at=1)
    with pytest.raises(InputError, match="nearest, linear, cubic"):
        realign_files(series, Realigning(mode="sinc"), out)
    assert not out.exists()
    assert TissueModel(Image(head(), GRID)).head.any()
