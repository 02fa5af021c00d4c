"""Datasets: the three splits share no subject, and bad folders are refused in words."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch

from pullback.alignment import Alignment
from pullback.data import Cohort, Learn2Reg, PairFolder, Test, Train, Validation, normalised, ordered_pairs
from pullback.errors import InputError
from pullback.metrics import Dice, EndPointError, Folding
from pullback.numerics.random import generator
from pullback.space import Affine, Grid, Image


def write(path, shape=(12, 14, 10), labels=False, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 3, shape).astype(np.uint8) if labels else rng.random(shape, np.float32) * 500
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[0, 3] = offset
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)


@pytest.fixture
def folder(tmp_path):
    for n in range(10):
        write(tmp_path / "scans" / f"sub-{n}_T1w.nii.gz", seed=n)
        write(tmp_path / "labels" / f"sub-{n}_dseg.nii.gz", labels=True, seed=n)
    return tmp_path


def subjects(split) -> set[str]:
    return {c.name for c in split.cases} if isinstance(split, Train) else {c.name for p in split.pairs for c in p}


def pattern(folder, **kwargs) -> PairFolder:
    return PairFolder(str(folder), images="scans/sub-*_T1w.nii.gz", labels="labels/sub-*_dseg.nii.gz", **kwargs)


def test_splits_are_types_of_their_own_and_share_nobody(folder):
    data = pattern(folder)
    assert (type(data.train), type(data.validation), type(data.test)) == (Train, Validation, Test)
    splits = [subjects(s) for s in (data.train, data.validation, data.test)]
    assert set.union(*splits) == {str(n) for n in range(10)}
    assert sum(map(len, splits)) == 10
    assert subjects(pattern(folder).test) == splits[2]
    assert any(subjects(pattern(folder, seed=seed).test) != splits[2] for seed in range(1, 5))


def test_named_splits(folder):
    data = pattern(folder, validation_names=("3", "4"), test_names=("7", "8"))
    assert subjects(data.test) == {"7", "8"}
    assert subjects(data.validation) == {"3", "4"}
    with pytest.raises(InputError, match="no subject '77'"):
        _ = pattern(folder, test_names=("77", "8")).test


def test_a_pair_has_its_labels_and_normalised_intensities(folder):
    pair = pattern(folder).train.draw(generator(0))
    assert pair.fixed_labels.data.dtype == torch.int64
    assert float(pair.fixed.data.min()) == 0
    assert float(pair.fixed.data.max()) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"root": "/nowhere/at/all"}, r"not a folder.*--data"),
        ({"images": "scans/*.mha"}, "0 images match"),
        ({"images": "scans/*_*.nii.gz"}, r"one \* is needed"),
        ({"labels": "labels/*_nothing.nii.gz"}, "no labels match"),
    ],
)
def test_bad_folders(folder, change, message):
    known = {"root": str(folder), "images": "scans/sub-*_T1w.nii.gz", "labels": None} | change
    with pytest.raises(InputError, match=message):
        _ = PairFolder(**known).train


def test_an_empty_folder_and_one_image_only(tmp_path):
    with pytest.raises(InputError, match=r"0 images match.*at least 2"):
        _ = PairFolder(str(tmp_path)).train
    write(tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match=r"1 images match.*at least 2"):
        _ = PairFolder(str(tmp_path)).train
    for name in "bcd":
        write(tmp_path / f"{name}.nii.gz")
    with pytest.raises(InputError, match="4 subjects make splits"):
        _ = PairFolder(str(tmp_path)).train


def test_labels_on_another_grid(folder):
    write(folder / "labels" / "sub-0_dseg.nii.gz", labels=True, offset=30.0)
    data = pattern(folder, validation_names=("1", "2"), test_names=("3", "4"))
    case = next(c for c in data.train.cases if c.name == "0")
    with pytest.raises(InputError, match=r"sub-0_dseg.*another grid"):
        case.load()


def learn2reg(root, count=8, **extra):
    for n in range(count):
        write(root / "imagesTr" / f"T_{n:04d}_0000.nii.gz", shape=(12 + n % 3, 14, 10), seed=n)
        write(root / "labelsTr" / f"T_{n:04d}_0000.nii.gz", shape=(12 + n % 3, 14, 10), labels=True, seed=n)
    files = [f"./imagesTr/T_{n:04d}_0000.nii.gz" for n in range(count)]
    layout = {
        "name": "T",
        "training": [{"image": f, "label": f.replace("images", "labels")} for f in files],
        "registration_val": [{"fixed": files[0], "moving": files[1]}],
    }
    (root / "T_dataset.json").write_text(json.dumps(layout | extra))
    return files


def test_learn2reg_keeps_the_reported_pairs_apart(tmp_path):
    learn2reg(tmp_path)
    data = Learn2Reg(str(tmp_path), shape=(16, 16, 16), held_out=2)
    assert subjects(data.test) == {"T_0000_0000", "T_0001_0000"}
    assert subjects(data.validation) == {"T_0006_0000", "T_0007_0000"}
    assert len(data.train.cases) == 4
    pair = next(iter(data.test))
    assert pair.fixed.grid == pair.moving.grid
    assert pair.fixed.grid.shape == (16, 16, 16)


def test_learn2reg_with_a_test_split_of_its_own(tmp_path):
    files = learn2reg(tmp_path)
    learn2reg(tmp_path, registration_test=[{"fixed": files[2], "moving": files[3]}])
    data = Learn2Reg(str(tmp_path))
    assert subjects(data.test) == {"T_0002_0000", "T_0003_0000"}
    assert subjects(data.validation) == {"T_0000_0000", "T_0001_0000"}


def test_learn2reg_refuses_other_folders(tmp_path):
    with pytest.raises(InputError, match=r"exactly one .*_dataset.json, found 0"):
        _ = Learn2Reg(str(tmp_path)).train
    (tmp_path / "T_dataset.json").write_text('{"name": 1}')
    with pytest.raises(InputError, match=r"not the Learn2Reg layout.*training"):
        _ = Learn2Reg(str(tmp_path)).train


def test_hippocampus(shared):
    data = Learn2Reg(str(shared / "data" / "hippocampus"), shape=(48, 64, 48))
    assert (len(data.train.cases), len(data.validation), len(data.test)) == (152, 20, 60)  # 38 cases make the 60 pairs
    assert not subjects(data.train) & (subjects(data.validation) | subjects(data.test))
    dice = [Dice()(Alignment(pair, Affine.identity(3)))["dice"] for pair in data.test]
    assert np.mean(dice) == pytest.approx(0.55, abs=0.015)  # as its README says of the centre-padded pairs


def test_normalised_is_robust_and_sees_no_scale():
    grid = Grid.centred((30, 30))
    data = torch.rand(1, 1, 30, 30, generator=generator(0), dtype=torch.float64)
    data[..., :10] = 0
    data[0, 0, 5, 25] = 1e6
    image = normalised(Image(data, grid))
    again = normalised(Image(data * 7.5e4 + 3, grid))
    torch.testing.assert_close(image.data, again.data)
    assert float(image.data.median()) > 0.2, "one bright voxel must not decide"
    with pytest.raises(ValueError, match="constant"):
        normalised(Image(torch.ones(1, 1, 5, 5), Grid.centred((5, 5))))


def test_the_cohort_knows_its_truth():
    data = Cohort(spacing=6.0, train_subjects=2, validation_subjects=2, test_subjects=2)
    splits = [subjects(s) for s in (data.train, data.validation, data.test)]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 6
    for pair in data.test:
        before, after = Alignment(pair, Affine.identity(3)), Alignment(pair, pair.truth)
        assert EndPointError()(after) == {"epe mm": 0.0}
        assert EndPointError()(before)["epe mm"] > 2
        assert Dice()(after)["dice"] > Dice()(before)["dice"] + 0.1
        assert Folding()(after)["folding % (all)"] == 0
        back = pair.truth.inverse() @ pair.truth
        inner = Alignment(pair, back).transform.displacement(pair.fixed.grid)[..., 4:-4, 4:-4, 4:-4]
        assert float(inner.norm(dim=1).mean()) < 0.1


def test_the_cohort_is_drawn_from_its_seed():
    small = {"spacing": 10.0, "train_subjects": 2}
    a, b, c = (Cohort(**small, seed=seed).train.cases[0].load().image.data for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_ordered_pairs_spread_evenly():
    cases = Cohort(test_subjects=5).test.pairs
    everyone = sorted({c for p in cases for c in p}, key=lambda c: c.number)
    assert len(ordered_pairs(everyone)) == 20
    some = ordered_pairs(everyone, 7)
    assert len(set(some)) == 7
    assert {a.number for a, _ in some} == {c.number for c in everyone}
