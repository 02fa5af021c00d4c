"""The recipes' images in the layout that each recipe names: small ones. Learn2Reg's and LONI's are their owners'."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from pullback.data import PairFolder
from pullback.errors import InputError
from pullback.numerics.random import generator
from pullback.recipes import find

SHAPE = (14, 16, 12)


def write(path, labels=False, seed=0, kind=nib.Nifti1Image, shape=SHAPE):
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 4, shape).astype(np.uint8) if labels else (rng.random(shape) * 500).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(kind(data, np.diag([2.0, 2.0, 2.0, 1.0])), path)


def rooted(name, folder):
    return replace(find(name).data, root=str(folder))


def test_ixi_has_the_atlas_moving_in_every_pair(tmp_path):
    for name in ("atlas", *(f"IXI{n:03d}" for n in range(12))):
        write(tmp_path / f"{name}_T1w.nii.gz", seed=len(name))
        write(tmp_path / f"{name}_dseg.nii.gz", labels=True)
    data = rooted("ofg_transmorph_ixi", tmp_path)
    splits = (data.train, data.validation, data.test)
    assert "atlas" not in data.train.names
    drawn = [data.train.draw(generator(0, n)).name for n in range(20)]
    assert all(name.endswith(" ← atlas") for name in drawn)
    assert len(set(drawn)) > 3
    for split in (data.validation, data.test):
        assert {moving.name for _, moving in split.pairs} == {"atlas"}
        assert "atlas" not in split.names
        fixed = [case.name for case, _ in split.pairs]
        assert len(set(fixed)) == len(fixed)
    known = [set(data.train.names), *({fixed.name for fixed, _ in split.pairs} for split in splits[1:])]
    assert sum(map(len, known)) == len(set.union(*known)) == 12


def test_an_atlas_that_is_not_there(tmp_path):
    for n in range(6):
        write(tmp_path / f"s{n}_T1w.nii.gz")
    with pytest.raises(InputError, match="no atlas 'atlas'; found s0, s1"):
        _ = PairFolder(str(tmp_path), "*_T1w.nii.gz", atlas="atlas").train


def test_lpba40_in_delineation_space(tmp_path):
    """Analyze pairs with a fourth axis of one, 40 subjects in folders of their own."""
    for n in range(1, 41):
        folder = tmp_path / f"S{n:02d}"
        for word, labels in (("skullstripped", False), ("structure.label", True)):
            path = folder / f"S{n:02d}.delineation.{word}.img"
            write(path, labels, n, nib.Spm2AnalyzeImage, (*SHAPE, 1))
    data = rooted("ofg_voxelmorph_lpba40", tmp_path)
    assert data.test.names == tuple(f"S{n:02d}" for n in range(2, 11))
    assert data.validation.names == ("S39", "S40")
    assert len(data.train.names) == 28
    assert {fixed.name for split in (data.validation, data.test) for fixed, _ in split.pairs} == {"S01"}
    assert [moving.name for _, moving in data.test.pairs] == list(data.test.names)
    assert {fixed.name for fixed, _ in data.train.several(99, generator(0))} == {"S01"}
    with pytest.warns(UserWarning, match="which side is left"):
        pair, drawn = next(iter(data.test)), data.train.draw(generator(0))
    assert drawn.name.startswith("S01 ← ")
    assert pair.fixed.grid.shape == SHAPE
    assert pair.fixed_labels.data.unique().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("task", "name"), [("OASIS", "oasis"), ("AbdomenCTCT", "abdomen")])
def test_learn2reg_tasks_in_both_directions(tmp_path, task, name):
    cases = [f"{task}_{n:04d}_0000.nii.gz" for n in range(1, 17)]
    for n, case in enumerate(cases):
        write(tmp_path / "imagesTr" / case, seed=n)
        write(tmp_path / "labelsTr" / case, labels=True, seed=n)
    entries = [{"image": f"./imagesTr/{case}", "label": f"./labelsTr/{case}"} for case in cases]
    listed = [{"fixed": f"./imagesTr/{a}", "moving": f"./imagesTr/{b}"} for a, b in ((cases[0], cases[1]),)]
    layout = {"training": entries, "registration_val": listed}
    (tmp_path / f"{task}_dataset.json").write_text(json.dumps(layout))
    data = replace(rooted(f"ofg_transmorph_{name}", tmp_path), held_out=3)
    names = [pair.name for pair in data.test]
    first, second = (case.split(".")[0] for case in cases[:2])
    assert names == [f"{first} ← {second}", f"{second} ← {first}"]
    assert not set(data.test.names) & {*data.train.names, *data.validation.names}


def test_the_abdomen_of_learn2reg_is_learned_from_what_is_labelled_and_listed_for_training(tmp_path):
    """30 cases with labels, of which the last ten make the 45 pairs of validation; 20 whose labels are kept back."""
    training = [
        {"image": f"./imagesTr/A_{n:04d}_0000.nii.gz", "label": f"./labelsTr/A_{n:04d}_0000.nii.gz"} for n in range(30)
    ]
    hidden = [{"image": f"./imagesTs/A_{n:04d}_0000.nii.gz"} for n in range(30, 50)]
    val = [entry["image"] for entry in training[20:]]
    pairs = [{"fixed": a, "moving": b} for n, a in enumerate(val) for b in val[:n]]
    layout = {"training": training, "test": hidden, "registration_val": pairs}
    (tmp_path / "AbdomenCTCT_dataset.json").write_text(json.dumps(layout))
    data = rooted("cyclical_correlated_abdomen", tmp_path)
    assert (len(data.test), len(data.train.cases), len(data.validation.names)) == (45, 17, 3)
    assert all(case.labels is not None for pair in data.validation.pairs for case in pair)
    assert len(rooted("ofg_voxelmorph_abdomen", tmp_path).test) == 90
