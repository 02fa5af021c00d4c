"""Folders of scans: prepared once, read back by the same splits, and stopped or broken without harm."""

import contextlib
import csv
import gzip
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from pullback.data import Learn2Reg, PairFolder
from pullback.errors import InputError, Interrupted
from pullback.files import Merge, read_image, read_labels, write
from pullback.records.atomic import atomic_write
from pullback.space import Affine, Image, Labels, pull
from pullback.workflows import prepare as room
from pullback.workflows.preparation import Preparation
from pullback.workflows.prepare import prepare, summary

NAMES = tuple(f"{n:02d}" for n in range(9))


def scan(folder: Path, name: str, ndim: int, oblique, waves, extra: dict[str, str] | None = None) -> None:
    """A wave on a grid of its own, two labels, and a mask in the middle, where the patterns below look for them."""
    seed = int(name)
    grid = oblique((20 + seed, 24, 22)[:ndim], seed)
    where = grid.to_world(grid.voxels(torch.zeros(1))[None])
    value = 2 + waves(ndim, seed, 16.0)(where)
    depth = (where - grid.centre.view(1, -1, *[1] * ndim)).norm(dim=1, keepdim=True)
    parts = {
        f"sub-{name}/anat/sub-{name}_T1w.nii.gz": Image(value.float(), grid),
        f"derivatives/seg/sub-{name}/anat/sub-{name}_dseg.nii.gz": Labels(
            (value > 2).to(torch.uint8) * 3 + (depth < 4).to(torch.uint8), grid
        ),
        f"sub-{name}/anat/sub-{name}_mask.nii.gz": Labels((depth < 4.5).to(torch.uint8), grid),
    }
    for path, part in parts.items():
        write(part, folder / path)


@pytest.fixture
def bids(tmp_path, oblique, waves):
    """A BIDS tree with segmentations among its derivatives."""

    def make(ndim=3, names=NAMES) -> Preparation:
        for name in names:
            scan(tmp_path / "scans", name, ndim, oblique, waves)
        data = PairFolder(
            str(tmp_path / "scans"),
            "sub-*/anat/sub-*_T1w.nii.gz",
            "derivatives/seg/sub-*/anat/sub-*_dseg.nii.gz",
            "sub-*/anat/sub-*_mask.nii.gz",
        )
        return Preparation(data, crop="mask", margin=1.0, shape=18)

    return make


def anew(plan: Preparation) -> Preparation:
    """The same, and the folder is looked at again."""
    return replace(plan, data=replace(plan.data))


def rows(out) -> dict[str, dict[str, str]]:
    with (out / "subjects.csv").open(newline="") as file:
        return {row["subject"]: row for row in csv.DictReader(file)}


def state(out) -> dict[str, tuple[int, bytes]]:
    """Of the images, labels and masks: when they were written, and what they hold."""
    return {
        path.relative_to(out).as_posix(): (path.stat().st_mtime_ns, path.read_bytes()) for path in out.glob("*Tr/*")
    }


@pytest.mark.parametrize("ndim", [2, 3])
def test_read_back_by_the_same_splits(bids, tmp_path, ndim):
    plan, out = bids(ndim), tmp_path / "out"
    content = prepare(plan, out)
    assert (content["status"], content["subjects"], content["made"]) == ("finished", 9, 9)
    own = {row["file"]: name for name, row in rows(out).items()}
    back = Learn2Reg(str(out))
    for split in ("train", "validation", "test"):
        names = [own[name] for name in getattr(back, split).names]
        assert sorted(names) == sorted(getattr(plan.data, split).names), split
        assert all(rows(out)[name]["split"] == split for name in names)
    for split in ("validation", "test"):
        listed = [[(own.get(c.name, c.name)) for c in pair] for pair in getattr(back, split).pairs]
        assert listed == [[c.name for c in pair] for pair in getattr(plan.data, split).pairs]
    pair = next(iter(back.test))
    assert pair.fixed.grid.shape == (18,) * ndim
    assert pair.fixed_labels is not None
    assert pair.fixed.mask is not None
    for path in out.glob("labelsTr/*"):
        assert nib.load(path).get_data_dtype() == np.uint8
    stored = json.loads((out / "prepared_dataset.json").read_text())
    assert stored["tensorImageShape"] == {"0": [18] * ndim}
    assert {path.name for path in out.iterdir()} == {
        *("imagesTr", "labelsTr", "masksTr", "subjects.csv", "labels.csv", "prepared_dataset.json"),
        *("ledger.jsonl", "run.json"),
    }
    assert "9 subjects" in summary(content, out)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize(
    "how", [{"spacing": 0.8, "shape": None}, {"shape": 40}, {"shape": (38, 40, 36), "stretch": True}]
)
def test_back_on_the_grid_it_came_from_by_headers_alone(bids, tmp_path, ndim, how):
    """Both files are read as strangers would: in the mask, some voxels from the border, the image is there again."""
    if isinstance(how["shape"], tuple):
        how = how | {"shape": how["shape"][:ndim]}
    plan, out = replace(bids(ndim), margin=4.0, **how), tmp_path / "out"
    prepare(plan, out)
    for name in NAMES[:3]:
        case = next(case for case in plan.data.cases if case.name == name)
        original, file = read_image(case.image), f"{rows(out)[name]['file']}.nii.gz"
        made = read_image(out / "imagesTr" / file)
        back = pull(made, Affine.identity(ndim), onto=original, mode="cubic")
        inside = pull(read_labels(out / "masksTr" / file), Affine.identity(ndim), onto=original).data > 0
        assert inside.sum() > 25
        torch.testing.assert_close(back.data[inside], original.data[inside], rtol=0, atol=0.01)
        labels = pull(read_labels(out / "labelsTr" / file), Affine.identity(ndim), onto=original)
        same = labels.data == read_labels(case.labels).data
        assert float(same[inside].float().mean()) > 0.93  # nearest, twice: borders move by half a voxel


def test_images_alone_keep_their_splits(bids, tmp_path):
    plan = bids()
    data = replace(plan.data, labels=None, masks=None)
    out = tmp_path / "out"
    prepare(Preparation(data, spacing=2.0), out)
    own, back = {row["file"]: name for name, row in rows(out).items()}, Learn2Reg(str(out))
    for split in ("train", "validation", "test"):
        assert sorted(own[name] for name in getattr(back, split).names) == sorted(getattr(data, split).names)
    assert not (out / "labels.csv").exists()
    assert json.loads((out / "prepared_dataset.json").read_text())["tensorImageShape"] == {}


def test_merged_labels_are_named_and_counted(bids, tmp_path):
    merge = Merge({1: 2, 3: 1, 4: 2}, {1: "wave", 2: "middle"})
    prepare(replace(bids(), merge=merge), tmp_path / "out")
    assert (tmp_path / "out" / "labels.csv").read_text().split() == ["label,name,subjects", "1,wave,9", "2,middle,9"]
    named = json.loads((tmp_path / "out" / "prepared_dataset.json").read_text())["labels"]["0"]
    assert named == {"0": "background", "1": "wave", "2": "middle"}
    with pytest.warns(UserWarning, match="nobody has the merged labels 9 lesion"):
        prepare(replace(bids(), merge=Merge({77: 9}, {9: "lesion"})), tmp_path / "other")


def test_a_second_call_does_nothing_again(bids, tmp_path):
    plan, out = bids(), tmp_path / "out"
    prepare(plan, out)
    before = state(out)
    with contextlib.suppress(KeyError), atomic_write(out / "imagesTr" / "prepared_0003_0000.nii.gz") as left:
        raise KeyError
    left.write_text("half of what a killed process wrote")
    assert prepare(plan, out)["made"] == 0
    moved = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "scans", moved)  # the same bytes, at another place and time
    assert prepare(replace(plan, data=replace(plan.data, root=str(moved))), out)["made"] == 0
    assert state(out) == before


def test_only_what_changed_or_is_missing_or_new_is_made(bids, tmp_path, oblique, waves):
    plan, out = bids(), tmp_path / "out"
    prepare(plan, out)
    before, numbers = state(out), {name: row["file"] for name, row in rows(out).items()}
    labels = tmp_path / "scans/derivatives/seg/sub-03/anat/sub-03_dseg.nii.gz"
    known = read_labels(labels)
    write(Labels((known.data > 0).to(torch.uint8), known.grid), labels)
    (out / "imagesTr" / f"{numbers['05']}.nii.gz").unlink()
    scan(tmp_path / "scans", "10", 3, oblique, waves)
    assert prepare(anew(plan), out)["made"] == 3
    after = state(out)
    assert {name: row["file"] for name, row in rows(out).items()} == numbers | {"10": "prepared_0010_0000"}
    touched = {path.split("/")[1] for path in after if after[path] != before.get(path)}
    assert touched == {f"{numbers['03']}.nii.gz", f"{numbers['05']}.nii.gz", "prepared_0010_0000.nii.gz"}
    labels = f"labelsTr/{numbers['05']}.nii.gz"
    assert np.array_equal(np.asarray(nib.load(out / labels).dataobj), stored(before[labels][1]))


def stored(content: bytes) -> np.ndarray:
    return np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(content)).dataobj)


def test_two_at_once_make_the_same_files(bids, tmp_path):
    plan = bids()
    prepare(plan, tmp_path / "one")
    prepare(anew(plan), tmp_path / "two", workers=2)
    one, two = (state(tmp_path / name) for name in ("one", "two"))
    assert {path: data for path, (_, data) in one.items()} == {path: data for path, (_, data) in two.items()}
    assert rows(tmp_path / "one") == rows(tmp_path / "two")


def test_other_settings_are_refused(bids, tmp_path):
    plan, out = bids(), tmp_path / "out"
    prepare(plan, out)
    before = state(out)
    for other, message in (
        (replace(plan, shape=20), "shape was 18 and is 20"),
        (replace(plan, spacing=1.0), "spacing was null and is 1.0"),
        (replace(plan, merge=Merge({3: 1}, {})), "merge was "),
        (replace(plan, task="brains"), 'task was ".*" and is "brains"'),
        (replace(plan, data=replace(plan.data, seed=1)), "data.seed was 0 and is 1"),
        (replace(plan, data=replace(plan.data, test_split=("00", "01"))), "data.test_split was "),
    ):
        with pytest.raises(InputError, match=rf"out: was prepared with other settings: {message}.*-o"):
            prepare(other, out)
    assert state(out) == before
    shutil.rmtree(tmp_path / "scans" / "sub-04")
    with pytest.raises(InputError, match="1 subjects that were prepared are not among the scans any more, 04"):
        prepare(anew(plan), out)


def test_folders_of_something_else(bids, tmp_path):
    plan = bids()
    (tmp_path / "l2r").mkdir()
    (tmp_path / "l2r" / "T_dataset.json").write_text("{}")
    with pytest.raises(InputError, match=r"T_dataset\.json: there is another data set already"):
        prepare(plan, tmp_path / "l2r")
    others = [tmp_path / folder / "imagesTr" / ".DS_Store" for folder in ("l2r", "images")]
    for path in others:
        path.parent.mkdir(parents=True)
        path.touch()
    for folder in ("l2r", "images"):
        with pytest.raises(InputError, match="there is another data set already"):
            prepare(plan, tmp_path / folder)
    out = tmp_path / "own"
    prepare(plan, out)
    others.append(out / "imagesTr" / ".DS_Store")
    others[-1].touch()
    prepare(plan, out)
    assert all(path.exists() for path in others), "nothing hidden goes but what was half-written here"
    for text in ("{}", "[]", "no json"):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / "run.json").write_text(text)
        with pytest.raises(InputError, match=r"run\.json: not of a preparation"):
            prepare(plan, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]


def test_stopped_it_goes_on(bids, tmp_path, monkeypatch):
    """Ctrl-C at the third subject: that one is finished, and the others are made by the next call."""
    plan, out, whole = bids(), tmp_path / "out", tmp_path / "whole"
    prepare(plan, whole)
    real, seen = room._make, []

    def make(case, *arguments):
        seen.append(case.name)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return real(case, *arguments)

    monkeypatch.setattr(room, "_make", make)
    with pytest.raises(Interrupted, match="3 of 9 subjects are prepared; the same command goes on"):
        prepare(plan, out)
    assert len(rows(out)) == 3
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
    assert not (out / "prepared_dataset.json").exists(), "not to be read before it is whole"
    before = state(out)
    assert prepare(plan, out)["made"] == 6
    assert seen == list(NAMES)
    after = state(out)
    assert {path: after[path] for path in before} == before
    assert {path: stored(content[1]).tobytes() for path, content in after.items()} == {
        path: stored(content[1]).tobytes() for path, content in state(whole).items()
    }
    assert (out / "prepared_dataset.json").read_text() == (whole / "prepared_dataset.json").read_text()
    assert (out / "subjects.csv").read_text() == (whole / "subjects.csv").read_text()


@pytest.mark.parametrize("at", [1, 4, 5])
def test_broken_off_in_the_middle_of_a_subject(bids, tmp_path, monkeypatch, at):
    """Whatever file it is that fails, none is left half-written, and the next call makes up for it."""
    plan, out = bids(), tmp_path / "out"
    real, count = room.write_image, []

    def fails(part, path):
        count.append(path)
        if len(count) == at:
            raise InputError(f"{path}: writing failed (No space left on device)")
        real(part, path)

    with monkeypatch.context() as patch:
        patch.setattr(room, "write_image", fails)
        with pytest.raises(InputError, match="No space left"):
            prepare(plan, out)
    assert not list(out.rglob(".*")), "nothing half-written"
    if out.exists():
        for path in out.glob("*Tr/*"):
            nib.load(path).get_fdata()
    assert prepare(plan, out)["made"] == 9 - (at - 1) // 3
    assert len(Learn2Reg(str(out)).train.names) == len(plan.data.train.names)


def test_a_broken_scan_stops_it_and_leaves_nothing(bids, tmp_path):
    plan, out = bids(), tmp_path / "out"
    path = tmp_path / "scans/sub-00/anat/sub-00_T1w.nii.gz"
    path.write_text("not an image")
    with pytest.raises(InputError, match="sub-00_T1w"):
        prepare(plan, out)
    assert not out.exists()


def test_the_file_is_named(bids, tmp_path):
    plan, out = bids(), tmp_path / "out"
    labels = tmp_path / "scans/derivatives/seg/sub-02/anat/sub-02_dseg.nii.gz"
    known = read_labels(labels)
    for values, steps, message in (
        (known.data.long() + 300, {}, r"sub-02_dseg.*labels from 0 to 304; 8 bits hold 0 to 255.*--merge"),
        (known.data.short() - 2, {}, r"sub-02_dseg.*labels from -2 to 2; 8 bits"),
        (known.data * 0, {"crop": "labels"}, r"sub-02_dseg.*nothing to crop around"),
    ):
        write(Labels(values, known.grid), labels)
        with pytest.raises(InputError, match=message):
            prepare(replace(plan, **steps), tmp_path / f"out-{len(message)}")
    write(Labels(known.data.long() + 300, known.grid), labels)
    merge = Merge({300 + n: n for n in (0, 1, 3, 4)}, {})
    assert prepare(replace(plan, merge=merge), out)["status"] == "finished"


def test_visits_are_read_back_as_pairs_of_one_subject(tmp_path):
    """TASK_SUBJECT_VISIT, as Learn2Reg names patients; a later visit gets the next number of its subject."""
    generator = np.random.default_rng(0)

    def visit(subject, number):
        path = tmp_path / f"scans/sub-{subject}/ses-{number}/sub-{subject}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(generator.random((9, 8, 7), np.float32), np.eye(4)), path)

    for n in range(8):
        visit(n, 1)
        visit(n, 2)
    data = PairFolder(str(tmp_path / "scans"), "sub-{subject}/ses-{visit}/*_T1w.nii.gz", within=True)
    plan, out = Preparation(data, shape=8), tmp_path / "out"
    assert prepare(plan, out)["made"] == 16
    visit(3, 3)
    assert prepare(anew(plan), out)["made"] == 1
    assert rows(out)["3/3"]["file"] == "prepared_0004_0002"
    data = replace(data)
    own = {row["file"]: name for name, row in rows(out).items()}
    back = Learn2Reg(str(out), within=True)
    for split in ("train", "validation", "test"):
        listed = [tuple(own[case.name] for case in pair) for pair in getattr(back, split).pairs]
        assert listed == [tuple(case.name for case in pair) for pair in getattr(data, split).pairs]
        assert len(getattr(back, split).names) == len(getattr(data, split).names)
    assert len(back.train.pairs) >= 8


def test_a_folder_that_was_prepared_before_there_was_a_setting_goes_on(bids, tmp_path):
    plan, out = bids(), tmp_path / "out"
    prepare(plan, out)
    content = json.loads((out / "run.json").read_text())
    del content["settings"]["data.within"]
    (out / "run.json").write_text(json.dumps(content))
    assert prepare(anew(plan), out)["made"] == 0
