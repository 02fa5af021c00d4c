"""Segmentation by atlases, as typed: what is written, what is kept, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image as Picture

from pullback.errors import InputError
from pullback.files import read_image, read_labels
from pullback.records.csv_records import read_csv
from pullback.space import pull
from pullback.workflows.atlases import images_in, stored_maps
from pullback.workflows.how import How, register_of
from pullback.workflows.segment import Learning, segment_files

SIZE = (30, 26)
AFFINE = np.diag([2.0, 2.0, 1, 1])


def saved(path: Path, data: np.ndarray, affine=AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data[..., None], affine), path)
    return path


def disc(x: float, y: float, radius: float = 5.0) -> np.ndarray:
    i, j = np.indices(SIZE)
    return (((i - x) ** 2 + (j - y) ** 2) < radius**2).astype(np.uint8)


def image(x: float, y: float, seed: int) -> np.ndarray:
    return (disc(x, y) + 0.2 * np.random.default_rng(seed).random(SIZE)).astype(np.float32)


PLACES = {f"t{n}": (11.0 + n % 3, 10.0 + n % 4) for n in range(9)}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Nine targets with six label maps each: of the first three, four share an error; one map of each other is bad."""
    for n, (name, (x, y)) in enumerate(PLACES.items()):
        saved(tmp_path / "targets" / f"{name}.nii.gz", image(x, y, n))
        for k in range(6):
            off = (5, 4) if (k < 4 if n < 3 else k == n % 6) else (0, 0)
            path = tmp_path / "maps" / name / f"a{k}.nii.gz"
            saved(path, 7 * disc(x + off[0], y + off[1]))
    return tmp_path


def dice(path: Path, place: tuple[float, float]) -> float:
    found, truth = np.asarray(nib.load(path).dataobj)[:, :, 0] == 7, disc(*place) > 0
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


def test_a_consensus_of_label_maps_that_are_there(folder):
    targets = images_in(folder / "targets")
    content = segment_files(targets, stored_maps(folder / "maps", targets), "simple", folder / "out")
    assert json.loads((folder / "out" / "run.json").read_text())["consensus"] == "simple"
    assert content["label maps"] == 54
    assert content["quality"] == {"passed": True, "lost": []}
    for name, place in PLACES.items():
        right = dice(folder / "out" / "labels" / f"{name}.nii.gz", place)
        assert (right == 1) == (name not in ("t0", "t1", "t2"))
        sure = np.asarray(nib.load(folder / "out" / "probability" / f"{name}.nii.gz").dataobj)
        assert 0.5 <= sure.min() <= sure.max() <= 1 + 1e-6
        assert np.allclose(nib.load(folder / "out" / "labels" / f"{name}.nii.gz").affine, AFFINE)
    rows = [row for row in read_csv(folder / "out" / "trust.csv") if row["target"] == "t5"]
    assert sum(row["weight"] for row in rows) == pytest.approx(1, abs=1e-5)
    assert [row["atlas"] for row in rows if row["rank"] == 6] == ["a5"]
    assert [row["dice"] for row in rows].count(1.0) == 5
    with Picture.open(folder / "out" / "segmented.png") as film:
        assert film.n_frames == 9


def test_what_all_targets_together_know(folder):
    """Four of six share an error in three targets: trust finds it, and goes on where it was."""
    targets = images_in(folder / "targets")
    maps, learning = stored_maps(folder / "maps", targets), Learning(epochs=20, lr=1e-2, most=600)
    content = segment_files(targets, maps, "deep-staple", folder / "out", learning)
    assert content["learning"]["epochs"] == 20
    for name, place in PLACES.items():
        assert dice(folder / "out" / "labels" / f"{name}.nii.gz", place) > 0.95
    (run,) = (folder / "out" / "training").iterdir()
    before = (run / "training.csv").read_bytes(), (folder / "out" / "trust.csv").read_text()
    segment_files(targets, maps, "deep-staple", folder / "out", learning)
    assert before == ((run / "training.csv").read_bytes(), (folder / "out" / "trust.csv").read_text())
    saved(maps["t8"]["a0"], 7 * disc(12, 12))
    with pytest.warns(UserWarning, match="trusted nearly alike"):
        segment_files(targets, maps, "deep-staple", folder / "out", replace(learning, epochs=1))
    assert len([*(folder / "out" / "training").iterdir()]) == 2, "by other label maps nothing is gone on with"


def test_targets_that_no_atlas_reaches_and_maps_that_contradict_each_other(folder):
    for name in ("t0", "t1"):
        for k in range(6):
            saved(folder / "maps" / name / f"a{k}.nii.gz", np.zeros(SIZE, np.uint8))
    for k in range(6):
        saved(folder / "maps" / "t4" / f"a{k}.nii.gz", disc(4 + 4 * k, 13, 2))
    targets = images_in(folder / "targets")
    with pytest.warns(UserWarning, match="no atlas marks anything in t0, t1"):
        content = segment_files(targets, stored_maps(folder / "maps", targets), "majority", folder / "out")
    assert content["quality"] == {"passed": True, "lost": ["t4", "t0", "t1"]}
    assert not np.asarray(nib.load(folder / "out" / "labels" / "t0.nii.gz").dataobj).any()


@pytest.fixture
def atlases(tmp_path) -> Path:
    """A target, and three atlases on other grids, called as nnU-Net calls images."""
    saved(tmp_path / "targets" / "t.nii.gz", image(14, 12, 0))
    for k in range(3):
        moved = AFFINE.copy()
        moved[0, 3] = 2.0 * k
        saved(tmp_path / "atlases" / f"a{k}_0000.nii.gz", image(14 - k, 12, 9), moved)
        saved(tmp_path / "labels" / f"a{k}.nii.gz", disc(14 - k, 12), moved)
    return tmp_path


def test_the_command_registers_once(pullback, atlases):
    """Each label map is what the register makes of it; the same words find it made, others make it anew."""
    words = ["segment", "-t", atlases / "targets", "-a", atlases / "atlases", "-l", atlases / "labels"]
    words += ["-o", atlases / "out", "--method", "convex-adam", "--aligned", "--set", "descent.solver.steps=1"]
    code, out, err = pullback(*words, "--set", "spacing=3", "--json")
    assert code == 0, err
    assert json.loads(out.strip().splitlines()[-1])["label maps"] == 3
    made = {path: path.stat().st_mtime_ns for path in (atlases / "out" / "candidates").rglob("*.nii.gz")}
    assert len(made) == 3
    settings = {"descent.solver.steps": "1", "spacing": "3"}
    register = register_of(How("convex-adam", settings=settings, aligned=True))
    fixed, moving = (read_image(atlases / path) for path in ("targets/t.nii.gz", "atlases/a1_0000.nii.gz"))
    expected = pull(read_labels(atlases / "labels/a1.nii.gz"), register(fixed, moving).transform, onto=fixed)
    found = read_labels(atlases / "out" / "candidates" / "t" / "a1_0000.nii.gz", on=fixed.grid)
    assert torch.equal(found.data, expected.data)
    assert found.data.any()
    code, _, err = pullback(*words, "--set", "spacing=3", "--consensus", "staple")
    assert code == 0, err
    assert made == {path: path.stat().st_mtime_ns for path in made}
    code, _, _ = pullback(*words, "--set", "spacing=4")
    assert code == 0
    assert all(path.stat().st_mtime_ns > when for path, when in made.items())


def test_an_atlas_is_not_its_own_target(pullback, atlases):
    words = ("segment", "-t", atlases / "atlases", "-a", atlases / "atlases", "-l", atlases / "labels", "--aligned")
    code, _, err = pullback(*words, "-o", atlases / "out", "--method", "convex-adam", "--set", "spacing=3")
    assert code == 0, err
    rows = read_csv(atlases / "out" / "trust.csv")
    assert len(rows) == 6
    assert all(row["target"] != row["atlas"] for row in rows)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("-a", "atlases"), "--atlases with their --labels, or --candidates"),
        ((), "--atlases with their --labels, or --candidates"),
        (("-a", "atlases", "-l", "labels", "--candidates", "out"), "--atlases with their --labels"),
        (("-a", "atlases", "-l", "targets"), "no labels of a0_0000, a1_0000"),
        (("-a", "nowhere", "-l", "labels"), "no such folder"),
        (("--candidates", "atlases"), "no folder of label maps for t"),
        (("--candidates", "atlases", "--method", "convex-adam"), "--method: aligns atlases"),
        (("-a", "atlases", "-l", "labels", "--consensus", "majorty"), "did you mean 'majority'"),
        (("-a", "atlases", "-l", "labels", "--consensus", "deep-staple"), "learns little from 3"),
    ],
)
def test_refused(pullback, atlases, words, says):
    paths = [atlases / word if (atlases / word).is_dir() or word == "nowhere" else word for word in words]
    code, _, err = pullback("segment", "-t", atlases / "targets", "-o", atlases / "out", *paths)
    assert code == 1
    assert says in err.replace("\n", " ")
    assert not (atlases / "out").exists() or not [*(atlases / "out").rglob("*.nii.gz")]


def test_too_few_label_maps_to_learn_from(folder):
    targets = dict([*images_in(folder / "targets").items()][:3])
    with pytest.raises(InputError, match="learns little from 18; give 50 or more, or say --consensus simple"):
        segment_files(targets, stored_maps(folder / "maps", targets), "deep-staple", folder / "out")


def test_label_maps_on_another_grid_and_names_that_are_alike(folder):
    targets = images_in(folder / "targets")
    saved(folder / "maps" / "t3" / "a2.nii.gz", disc(9, 9), 2 * AFFINE)
    with pytest.raises(InputError, match="another grid than the image"):
        segment_files(targets, stored_maps(folder / "maps", targets), "simple", folder / "out")
    saved(folder / "targets" / "t3.nii", disc(9, 9))
    with pytest.raises(InputError, match="called alike"):
        images_in(folder / "targets")
