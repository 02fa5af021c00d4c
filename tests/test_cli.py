"""The commands: what they say when all is well, and when it is not."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.training import save_weights

TINY = {
    "data.spacing": 14,
    "data.train_subjects": 2,
    "data.validation_subjects": 2,
    "data.test_subjects": 2,
    "network.encoder": [4, 4],
    "network.decoder": [4, 4, 4, 4],
    "training.updates": 2,
}
SETTINGS = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]


def write(path, data=None, affine=None):
    if data is None:
        data = np.random.default_rng(0).random((12, 14, 10), np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), path)
    return path


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    """A run of two updates, made by the command."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    command = [sys.executable, "-m", "pullback.cli", "train", "ofg", "-o", folder, *SETTINGS]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.mark.slow
def test_demo_in_miniature(pullback, tmp_path):
    code, out, err = pullback("demo", "-o", tmp_path / "demo", "--json", *SETTINGS, "--set", "data.spacing=8")
    assert code == 0, err
    table = json.loads(out)["table"]
    registers = ["before", "unsupervised", "guided", "50 steps of Descend", "ConvexAdam", "true transform"]
    assert list(dict.fromkeys(r["register"] for r in table)) == registers
    truth = {r["measure"]: r["mean"] for r in table if r["register"] == "true transform"}
    before = {r["measure"]: r["mean"] for r in table if r["register"] == "before"}
    assert truth["epe mm"] == 0
    assert truth["dice"] > before["dice"]
    assert (tmp_path / "demo" / "report.html").stat().st_size > 50_000


def register(pullback, *words) -> tuple[int, dict]:
    code, out, err = pullback("register", *words, "--json")
    assert out, err
    return code, json.loads(out)


@pytest.fixture(scope="session")
def blocks(tmp_path_factory):
    """Two images of the same boxes, one shifted by 3 mm, and one of other boxes."""
    root = tmp_path_factory.mktemp("blocks")
    for name, seed, first in (("fixed", 3, 0.0), ("moving", 3, 3.0), ("other", 8, 0.0)):
        rng, array, affine = np.random.default_rng(seed), np.zeros((26, 24, 22), np.float32), np.eye(4)
        for _ in range(9):
            low, size = rng.integers(3, 14, 3), rng.integers(3, 8, 3)
            box = tuple(slice(at, at + length) for at, length in zip(low, size, strict=True))
            array[box] += rng.uniform(0.3, 1)
        affine[0, 3] = first
        write(root / f"{name}.nii.gz", array, affine)
    return root


@pytest.mark.slow
def test_register_finds_a_shift(pullback, blocks, tmp_path):
    pair = ("-f", blocks / "fixed.nii.gz", "-m", blocks / "moving.nii.gz")
    code, content = register(pullback, *pair, "-o", tmp_path, "--transform", "rigid", "--start", "header", "--seed", 4)
    assert code == 0
    assert content["numbers"]["after"]["ncc"] > 0.97 > content["numbers"]["before"]["ncc"]
    assert content["begun"]["origin"] == "header"
    assert content["seed"] == content["settings"]["initialise"]["seed"] == 4
    assert list(content["seconds"]) == ["initialise", "rigid"]
    code, out, _ = pullback("register", *pair, "-o", tmp_path, "--transform", "rigid", "--start", "header")
    assert code == 0
    assert "points go fixed → moving" in out
    assert "sound" in out


@pytest.mark.slow
def test_register_of_nonsense_is_told_by_its_exit_code(pullback, blocks, tmp_path):
    """The files are there all the same."""
    pair = ("-f", blocks / "fixed.nii.gz", "-m", blocks / "other.nii.gz", "-o", tmp_path)
    words = ("--start", "header", "--preset", "fast")
    code, content = register(pullback, *pair, *words)
    assert code == 3
    assert content["quality"]["reasons"]
    assert {path.name for path in tmp_path.iterdir()} == set(content["files"])
    code, out, _ = pullback("register", *pair, *words)
    assert code == 3
    assert content["quality"]["reasons"][0] in out
    assert "FAILED" in out


@pytest.mark.slow
def test_register_by_a_network_refined(pullback, run_folder, blocks, tmp_path):
    pair = ("-f", blocks / "fixed.nii.gz", "-m", blocks / "fixed.nii.gz", "-o", tmp_path)
    code, content = register(pullback, *pair, "--network", run_folder, "--refine", 3, "--energy", "mse")
    assert code == 0
    assert content["settings"]["first"]["network"] == "VoxelMorph"
    energy = content["settings"]["then"][0]["deformable"]["energy"]["parts"][0]["part"]
    assert energy == "pullback.energies.similarity.MSE"


@pytest.mark.slow
def test_a_linear_map_descends_the_energy_that_is_asked_for(pullback, blocks, tmp_path):
    pair = ("-f", blocks / "fixed.nii.gz", "-m", blocks / "fixed.nii.gz", "-o", tmp_path)
    code, content = register(pullback, *pair, "--transform", "affine", "--energy", "ngf", "--start", "header")
    assert code == 0
    (parts,) = {str(posed["energy"]["parts"]) for _, posed in content["settings"]["linear"]}
    assert "NGF" in parts
    assert "Diffusion" not in parts


def test_register_says_what_fits_not_together(pullback, run_folder, blocks, tmp_path):
    pair = ("-f", blocks / "fixed.nii.gz", "-m", blocks / "moving.nii.gz", "-o", tmp_path / "out")
    cases = {
        ("--preset", "fats"): "did you mean 'fast'",
        ("--transform", "afine"): "did you mean 'affine'",
        ("--energy", "cc"): "--energy cc: there is lncc, mse",
        ("--start", "center"): "did you mean 'centres'",
        ("--smoothness", "-1"): "a factor of 0 or more",
        ("--smoothness", "2", "--transform", "rigid"): "a rigid map has none",
        ("--refine", "5"): "there is no --network",
        ("--network", run_folder, "--preset", "fast"): "--preset: not together with --network",
        ("--network", run_folder, "--energy", "mi"): "it takes --refine",
        ("--network", run_folder, "--refine", "0"): "a number of steps",
        ("--network", run_folder, "--start", "global"): "there is auto, header, centres",
        ("-m", blocks / "moving.nii.gz"): "1 channels, but",
        ("--ants-prefix", "a/b"): "no folder",
        ("--start", tmp_path / "none.h5"): "no such file",
        ("--fixed-points", tmp_path / "none.csv"): "none.csv: no such file",
    }
    for words, message in cases.items():
        assert message in complaint(pullback, "register", *pair, *words, clean=tmp_path / "out")


@pytest.mark.slow
def test_evaluate(pullback, run_folder, tmp_path):
    code, out, err = pullback("evaluate", run_folder, run_folder, "-o", tmp_path / "eval", "--json")
    assert code == 0, err
    measures = {r["measure"] for r in json.loads(out)["table"]}
    assert {"dice", "folding %", "sdlogj", "epe mm", "seconds", "peak MB"} <= measures
    assert {p.name for p in (tmp_path / "eval").iterdir()} == {"pairs.csv", "summary.csv"}
    assert "no row of ConvexAdam: ConvexAdam looks at blocks of 6 voxels" in " ".join(err.split())
    _, out, err = pullback("evaluate", run_folder, "-o", tmp_path / "eval", "--json", "--runs-only")
    assert "ConvexAdam" not in out + err


def test_a_run_called_before_is_not_taken_for_what_was_before(pullback, run_folder, tmp_path, monkeypatch):
    shutil.copytree(run_folder, tmp_path / "before")
    monkeypatch.chdir(tmp_path)
    assert "rename the folder" in complaint(pullback, "evaluate", "before", "-o", tmp_path / "eval")


def test_train_resume_of_a_finished_run_changes_nothing(pullback, run_folder):
    before = (run_folder / "last.safetensors").read_bytes()
    code, _, err = pullback("train", "ofg", "-o", run_folder, "--resume", *SETTINGS)
    assert code == 0, err
    assert (run_folder / "last.safetensors").read_bytes() == before


@pytest.mark.slow
def test_training_on_pairs_that_are_made(pullback, tmp_path):
    """As the command line has it: made for training, for validation and for the test, of a folder of one's own."""
    for n in range(8):
        write(tmp_path / "images" / f"s{n}.nii.gz", np.random.default_rng(n).random((16, 18, 16), np.float32))
    made = "{part: pullback.data.synthesis.Synthesis, translation: 3.0}"
    settings = {
        "training.augment": made,
        "data.synthetic": f"{{part: pullback.data.synthesis.Synthetic, synthesis: {made}, per_subject: 3}}",
        "training.updates": 2,
        "network.encoder": [4, 4],
        "network.decoder": [4, 4, 4, 4],
        "metrics": "[{part: pullback.metrics.physical.EndPointError}]",
    }
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    data, out = ("--data", tmp_path / "images"), tmp_path / "run"
    code, _, error = pullback("train", "voxelmorph", *data, "-o", out, *words)
    assert code == 0, error
    code, _, error = pullback("evaluate", out, *data, "-o", tmp_path / "measured", "--json")
    assert code == 0, error
    rows = (tmp_path / "measured" / "pairs.csv").read_text()
    assert rows.count("← synthetic 3") == 2 * 3  # of two test subjects: unmoved, by the network, by ConvexAdam
    assert "epe mm" in rows
    moved = tmp_path / "elsewhere"
    (tmp_path / "images").rename(moved)
    code, _, error = pullback("train", "voxelmorph", "--data", moved, "-o", out, "--resume")
    assert code == 0, error


def test_a_strangers_folder_runs_nothing_when_it_is_gone_on_with(pullback, run_folder, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    text = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(text.replace("pullback.methods.pair.voxelmorph.VoxelMorph", "subprocess.Popen"))
    code, _, err = pullback("train", "ofg", "-o", folder, "--resume")
    assert code == 1
    assert "not one of this package's parts" in err


def test_a_run_is_gone_on_with_by_its_own_recipe_alone(pullback, run_folder):
    """Not by one that was mistyped, though nothing of it would be used."""
    before = (run_folder / "last.safetensors").read_bytes()
    for recipe, words in (
        (("ofg", "--network", "transmorph"), "is a run of Guided, Once, VoxelMorph.*recipe that was named .TransMorph"),
        (("voxelmorph", "--on", "folder"), "is a run of Guided"),
        (("ofg", "--on", "hippocampus"), "is a run of Guided.*not of the recipe that was named.*recipe.yaml --resume"),
        (("nonsense",), "no method 'nonsense'"),
    ):
        code, _, err = pullback("train", *recipe, "-o", run_folder, "--resume")
        assert code == 1
        assert re.search(words, err), err
    assert (run_folder / "last.safetensors").read_bytes() == before


def test_there_is_nothing_to_go_on_with(pullback, tmp_path):
    """With or without images that the recipe could be begun on."""
    for recipe in (("ofg",), ("ofg", "--on", "folder")):
        words = ("train", *recipe, "-o", tmp_path / "tpyo", "--resume", *SETTINGS)
        assert "tpyo: there is no run to go on with" in complaint(pullback, *words, clean=tmp_path / "tpyo")


def test_a_folder_of_runs_is_no_run(pullback, run_folder):
    for more in ((), ("--resume",)):
        code, _, err = pullback("train", "ofg", "-o", run_folder.parent, *SETTINGS, *more)
        assert code == 1
        assert f"{run_folder.parent}: holds other runs" in err
    assert sorted(path.name for path in run_folder.parent.iterdir()) == [run_folder.name]


def test_a_damaged_record_is_told(pullback, run_folder, tmp_path):
    shutil.copytree(run_folder, tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text('{"seed": ')
    assert "run.json: cannot be read" in complaint(pullback, "evaluate", tmp_path / "run", "-o", tmp_path / "eval")


@pytest.mark.filterwarnings("ignore:.*copies of one image")
def test_evaluate_on_files_of_other_names(pullback, tmp_path):
    for name in ("one/s{}.nii.gz", "two/s{}_T1w.nii.gz", "two/s{}_T2w.nii.gz"):
        for n in range(8):
            write(tmp_path / name.format(n), np.random.default_rng(n).random((16, 18, 16), np.float32))
    tiny = [word for key in ("network.encoder", "network.decoder") for word in ("--set", f"{key}={TINY[key]}")]
    words = ("--data", tmp_path / "one", "-o", tmp_path / "run", *tiny, "--set", "training.updates=1")
    code, _, err = pullback("train", "voxelmorph", *words)
    assert code == 0, err
    words = ("evaluate", tmp_path / "run", "--data", tmp_path / "two", "--runs-only", "-o", tmp_path / "eval")
    code, _, err = pullback(*words, "--set", "data.images=*_T1w.nii.gz")
    assert code == 0, err
    assert "T2w" not in (tmp_path / "eval" / "pairs.csv").read_text()
    assert "only data.… is set so" in complaint(pullback, *words, "--set", "training.lr=1")
    (tmp_path / "file").touch()
    assert "cannot write there" in complaint(pullback, *words[:-1], tmp_path / "file")


def complaint(pullback, *words, clean=None) -> str:
    """The one line of an error that a person can mend: exit 1, nothing on stdout, nothing left behind."""
    code, out, err = pullback(*words)
    assert code == 1, err
    assert out == ""
    assert "Traceback" not in err
    assert clean is None or not clean.exists()
    machine, _, json_err = pullback(*words, "--json")
    assert machine == 1
    assert json.loads(json_err.splitlines()[-1])["error"] in err.replace("pullback: ", "").replace("\n", " ") + " "
    return err


def test_bad_images(pullback, run_folder, tmp_path):
    good, out = write(tmp_path / "good.nii.gz"), tmp_path / "out"
    array = np.random.default_rng(0).random((12, 14, 10), np.float32)
    holes = array.copy()
    holes[3, 3, 3] = np.nan
    text = tmp_path / "text.nii.gz"
    text.write_text("not an image")
    cases = {
        tmp_path / "missing.nii.gz": "no such file",
        text: "not a readable NIfTI",
        write(tmp_path / "nan.nii.gz", holes): "1 voxels are NaN",
        write(tmp_path / "flat.nii.gz", np.full((9, 9, 9), 7, np.float32)): "every voxel is 7",
        write(tmp_path / "4d.nii.gz", np.stack([array] * 3, -1)): "a 4-D image",
        write(tmp_path / "2d.nii.gz", array[:, :, 0]): "2-D",
    }
    for path, message in cases.items():
        error = complaint(pullback, "register", "-f", good, "-m", path, "--network", run_folder, "-o", out, clean=out)
        assert path.name in error
        assert message in error
    error = complaint(
        pullback,
        "register",
        "-f",
        tmp_path / "2d.nii.gz",
        "-m",
        tmp_path / "2d.nii.gz",
        "--network",
        run_folder,
        "-o",
        out,
    )
    assert "trained on 3-D images" in error


def test_labels_on_another_grid(pullback, run_folder, tmp_path):
    good = write(tmp_path / "good.nii.gz")
    labels = write(tmp_path / "labels.nii.gz", np.ones((6, 7, 5), np.uint8), np.diag([2.0, 2, 2, 1]))
    words = (
        "register",
        "-f",
        good,
        "-m",
        good,
        "--network",
        run_folder,
        "-o",
        tmp_path / "o",
        "--fixed-labels",
        labels,
        "--moving-labels",
        labels,
    )
    error = complaint(pullback, *words, clean=tmp_path / "o")
    assert "labels.nii.gz: labels on another grid than the image" in error


def test_bad_folders(pullback, tmp_path):
    (tmp_path / "empty").mkdir()
    words = ("train", "ofg", "--on", "brains", "-o", tmp_path / "run", "--data", tmp_path / "empty")
    assert "0 images match" in complaint(pullback, *words, clean=tmp_path / "run")
    write(tmp_path / "empty" / "sub-01_T1w.nii.gz")
    words = ("train", "ofg", "-o", tmp_path / "run", "--data", tmp_path / "empty")
    assert "1 images match" in complaint(pullback, *words, clean=tmp_path / "run")
    assert "takes no folder" in complaint(pullback, "train", "ofg", "--on", "phantom", "--data", tmp_path)


def test_a_misspelt_key(pullback):
    error = complaint(pullback, "train", "ofg", "--set", "training.updats=3")
    assert "did you mean 'updates'" in error
    assert "expected a.b=c" in complaint(pullback, "train", "ofg", "--set", "training.updates")


def test_a_checkpoint_of_another_network(pullback, run_folder, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.yaml").write_text((run_folder / "recipe.yaml").read_text())
    save_weights(VoxelMorph(ndim=3), folder / "best.safetensors", {})
    image = write(tmp_path / "good.nii.gz")
    words = ("register", "-f", image, "-m", image, "--network", folder, "-o", tmp_path / "out")
    assert "weights are of another network" in complaint(pullback, *words, clean=tmp_path / "out")
    words = ("register", "-f", image, "-m", image, "--network", tmp_path / "no", "-o", tmp_path / "out")
    assert "no such run" in complaint(pullback, *words)


def test_a_full_disk(pullback, run_folder, tmp_path, monkeypatch):
    image = write(tmp_path / "good.nii.gz")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    error = complaint(pullback, "register", "-f", image, "-m", image, "--network", run_folder, "-o", tmp_path / "out")
    assert "No space left on device" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "out", "remedy"),
    [
        (("train", "ofg"), "run", "--resume"),
        pytest.param(("demo",), "run/unsupervised", "the same command goes on", marks=pytest.mark.nightly),
    ],
)
def test_ctrl_c_in_training_and_back_again(pullback, tmp_path, words, out, remedy):
    settings = [*SETTINGS, "--set", "training.updates=100000", "--set", "training.log_every=1"]
    command = [
        sys.executable,
        "-m",
        "pullback.cli",
        *words,
        "-o",
        tmp_path / "run",
        *settings,
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 90
    while not (tmp_path / out / "training.csv").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped after update" in error
    assert remedy in error
    assert "Traceback" not in error
    assert (tmp_path / out / "last.safetensors").is_file()


@pytest.mark.slow
def test_a_scheduler_that_ends_a_registration_finds_nothing_left(tmp_path):
    values = np.random.default_rng(0).random((72, 72, 72)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "image.nii.gz")
    files = ["-f", tmp_path / "image.nii.gz", "-m", tmp_path / "image.nii.gz", "-o", tmp_path / "out"]
    command = [sys.executable, "-m", "pullback.cli", "register", *files, "--preset", "accurate"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 90
    while not list(tmp_path.glob("out/.pullback.*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.terminate()
    _, error = process.communicate(timeout=60)
    assert (process.returncode, [path.name for path in tmp_path.iterdir()]) == (143, ["image.nii.gz"])
    assert "Traceback" not in error


def test_a_terminal_without_arrows(tmp_path):
    sitk.WriteTransform(sitk.AffineTransform(3), str(tmp_path / "still.tfm"))
    command = [sys.executable, "-m", "pullback.cli", "convert", "still.tfm", "still.txt"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        encoding="cp1252",
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "fixed ? moving" in " ".join(done.stdout.split())


def test_the_version(pullback):
    assert pullback("--version") == (0, f"pullback {version('pullback')}\n", "")
