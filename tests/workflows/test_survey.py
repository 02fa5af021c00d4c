"""What a survey stops, what is gone on without, and runs whose subjects were taken out."""

import io
import json
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

from pullback.data import PairFolder
from pullback.energies import LNCC, SoftDice
from pullback.errors import InputError
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.study.recipe import Recipe
from pullback.study.resume import check_subjects
from pullback.study.run import leaked, run
from pullback.training import Training, Unsupervised
from pullback.workflows.survey import examine_folder, is_cohort, learns_labels, surveyed, usable_test

SMALL = {"ndim": 2, "encoder": (4, 4), "decoder": (4, 4, 4, 4)}


def cohort(root, count=16):
    root.mkdir(exist_ok=True)
    for n in range(count):
        data = np.random.default_rng(n).random((16, 16), np.float32)
        for kind, part in (("T1w", data), ("dseg", (data > 0.5).astype(np.uint8))):
            nib.save(nib.Nifti1Image(part, np.eye(4)), root / f"sub-{n:02d}_{kind}.nii.gz")
    return PairFolder(str(root), "*_T1w.nii.gz", "*_dseg.nii.gz")


def cut(root, name):
    path = root / f"{name}_T1w.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])


def recipe(data, updates):
    training = Training(updates=updates, save_every=1, validate_every=2)
    return Recipe("small", data, partial(VoxelMorph, **SMALL), Unsupervised(), training)


def heard() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=200), text


def test_bad_files_stop_the_work_by_name_or_are_left_out(tmp_path):
    data = cohort(tmp_path / "scans", 40)
    bad = data.train.names[1], data.test.names[0]
    for name in bad:
        cut(tmp_path / "scans", name)
    console, text = heard()
    with pytest.raises(InputError, match=r"2 of 40 images cannot be used") as stop:
        surveyed(data, console)
    assert all(f"{name}_T1w.nii.gz" in str(stop.value) for name in bad)
    left = surveyed(data, console, skip_bad=True)
    assert {*left.without} == {*bad}
    assert all(name in text.getvalue() for name in bad)
    for split in ("train", "validation", "test"):
        assert {*getattr(left, split).names} == {*getattr(data, split).names} - {*bad}
    console, text = heard()
    test, missing = usable_test(replace(data), console)
    assert {*missing} == {bad[1]}, "only the test split is looked at"
    assert bad[1] not in test.names
    assert bad[1] in text.getvalue()


def test_a_run_goes_on_without_a_subject_that_was_taken_out(tmp_path):
    data, out = cohort(tmp_path / "scans"), tmp_path / "run"
    run(recipe(data, 2), out)
    gone = data.train.names[0]
    for kind in ("T1w", "dseg"):
        (tmp_path / "scans" / f"{gone}_{kind}.nii.gz").unlink()
    console, text = heard()
    run(recipe(replace(data), 3), out, resume=True, console=console)
    assert gone in text.getvalue()
    assert gone not in json.loads((out / "splits.json").read_text())["train"]
    run(recipe(replace(data, without=(data.train.names[1],)), 4), out, resume=True)
    cohort(tmp_path / "scans", 20)
    with pytest.raises(InputError, match="other subjects than when this run began"):
        run(recipe(replace(data), 5), out, resume=True)


def test_nobody_changes_the_split_when_a_run_goes_on(tmp_path):
    before = {"train": ["a", "b", "c"], "validation": ["d", "e"], "test": ["f", "g"]}
    assert check_subjects(before, before, tmp_path) == []
    assert check_subjects(before, before | {"train": ["a"], "test": ["g"]}, tmp_path) == ["b", "c", "f"]
    with pytest.raises(InputError, match="other subjects"):
        check_subjects(before, before | {"train": ["a", "b"], "validation": ["c", "d", "e"]}, tmp_path)


def test_who_was_learned_from_is_known_by_another_visit(tmp_path):
    (tmp_path / "splits.json").write_text(
        json.dumps({"train": ["sub-01_ses-1", "02", "Lung_0003_0000"], "validation": ["sub-05"], "test": ["sub-06"]})
    )
    names = ("sub-01_ses-2", "sub-02", "Lung_0003_0001", "05", "sub-06", "sub-07")
    assert leaked(tmp_path, names) == {*names[:4]}


def test_parts_say_that_they_learn_from_labels(tmp_path):
    data = PairFolder(str(tmp_path))
    assert not learns_labels(recipe(data, 1))
    assert learns_labels(replace(recipe(data, 1), supervision=Unsupervised(LNCC() + 0.5 * SoftDice())))
    assert learns_labels(replace(recipe(data, 1), supervision=SimpleNamespace(learns_labels=True)))


def test_a_folder_is_examined(tmp_path):
    data = cohort(tmp_path / "scans")
    assert is_cohort(tmp_path / "scans")
    assert not is_cohort(tmp_path)
    settings = {"data.images": data.images, "data.labels": data.labels}
    (note,) = examine_folder(tmp_path / "scans", settings)
    assert "16 images of 16 people: 16×16 voxels of 1×1 mm" in note.what
    cut(tmp_path / "scans", "sub-03")
    worst, _ = examine_folder(tmp_path / "scans", settings)
    assert "sub-03_T1w.nii.gz" in worst.what
