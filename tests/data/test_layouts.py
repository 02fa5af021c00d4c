"""The recipes' images in the layout that their owners distribute: small ones."""

import gzip
import json
import pickle
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.data import Learn2Reg, PairFolder
from pullback.errors import InputError
from pullback.numerics.random import make_generator
from pullback.recipes import find
from pullback.space import Affine, Grid, Image, Labels
from pullback.study.run import _of_pairs
from pullback.study.trained import Trained

SHAPE = (14, 16, 12)


def write(path, labels=False, seed=0, kind=nib.Nifti1Image, shape=SHAPE):
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 4, shape).astype(np.uint8) if labels else (rng.random(shape) * 500).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(kind(data, np.diag([2.0, 2.0, 2.0, 1.0])), path)


def rooted(key, folder):
    return replace(find(*key).data, root=str(folder))


def pickled(path, seed, protocol=4):
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    image, labels = rng.random(SHAPE, np.float32), rng.integers(0, 46, SHAPE).astype(np.int16)
    path.write_bytes(pickle.dumps((image, labels), protocol))
    return image, labels


@pytest.fixture
def ixi(tmp_path):
    for folder, numbers in (("Train", (0, 4, 6, 7)), ("Val", (2, 5)), ("Test", (1, 3, 8))):
        for n in numbers:
            pickled(tmp_path / folder / f"subject_{n}.pkl", n, protocol=3)
    pickled(tmp_path / "atlas.pkl", 99)
    return tmp_path


def test_ixi_has_its_splits_and_the_atlas_moving_in_every_pair(ixi):
    data = rooted(("ofg", "transmorph", "ixi"), ixi)
    assert data.train.names == ("subject_0", "subject_4", "subject_6", "subject_7")
    drawn = [data.train.draw(make_generator(0, n)).name for n in range(20)]
    assert {name.split(" ← ")[1] for name in drawn} == {"atlas"}
    assert len(set(drawn)) > 2
    for split, names in (
        (data.validation, ["subject_2", "subject_5"]),
        (data.test, [f"subject_{n}" for n in (1, 3, 8)]),
    ):
        assert [pair.name for pair in split] == [f"{name} ← atlas" for name in names]
        assert split.names == tuple(names)


def test_ixi_reads_what_was_pickled(ixi):
    image, labels = pickled(ixi / "Test" / "subject_1.pkl", 5)
    pair = next(iter(rooted(("ofg", "voxelmorph", "ixi"), ixi).test))
    np.testing.assert_array_equal(pair.fixed_labels.data[0, 0].numpy(), labels)
    assert np.corrcoef(pair.fixed.data.flatten().numpy(), image.ravel())[0, 1] > 0.999
    assert pair.fixed.grid == pair.moving.grid


def test_ixi_that_is_not_whole(ixi):
    (ixi / "Val" / "subject_0.pkl").write_bytes((ixi / "Train" / "subject_0.pkl").read_bytes())
    with pytest.raises(InputError, match=r"but subject_0 is in two of them$"):
        _ = rooted(("ofg", "voxelmorph", "ixi"), ixi).train
    (ixi / "Val" / "subject_0.pkl").unlink()
    (ixi / "atlas.pkl").unlink()
    with pytest.raises(InputError, match=r"Train, Val and Test of .pkl expected.*, but atlas.pkl is missing$"):
        _ = rooted(("ofg", "voxelmorph", "ixi"), ixi).test
    (ixi / "Train").rename(ixi / "train")
    with pytest.raises(InputError, match=r"but there is none in Train, atlas.pkl is missing$"):
        _ = rooted(("ofg", "voxelmorph", "ixi"), ixi).validation


def dice_of(recipe, labels):
    """What the recipe calls Dice of a pair that is aligned, of these labels."""
    grid = Grid.centred((len(labels), 2))
    known = Labels(torch.tensor(labels, dtype=torch.int16).repeat_interleave(2).view(1, 1, -1, 2), grid)
    image = Image(known.data.float(), grid)
    return find(*recipe).metrics[0](Alignment(Pair(image, image, known, known), Affine.identity(2)))


def counted(numbers):
    return {int(name.removeprefix("dice/")) for name in numbers if name.startswith("dice/")}


@pytest.mark.parametrize(("data", "count", "without"), [("ixi", 30, (5, 26, 251)), ("lpba40", 54, (181, 182))])
def test_dice_is_of_the_labels_that_the_paper_counts(data, count, without):
    found = counted(dice_of(("ofg", "transmorph", data), range(256)))
    assert len(found) == count
    assert not {*without} & found
    assert len(dice_of(("ofg", "transmorph", "oasis"), range(36))) == 1 + 35


def test_dice_of_ixi_is_of_whole_brains():
    """Names are of FreeSurfer's table; the papers' numbers are places among the 46 codes of the files, in order."""
    sides = {2: 41, 3: 42, 4: 43, 7: 46, 8: 47, 10: 49, 11: 50, 12: 51, 13: 52, 17: 53, 18: 54, 28: 60, 31: 63}
    middle = {14, 15, 16, 24}  # third and fourth ventricle, brain stem, cerebrospinal fluid
    small = {5, 26, 30, 44, 58, 62, 72, 77, 80, 85, *range(251, 256)}
    codes = sorted({0, *sides, *sides.values(), *middle, *small})
    assert len(codes) == 46
    found = counted(dice_of(("ofg", "voxelmorph", "ixi"), codes))
    assert found == {*sides, *sides.values(), *middle}
    published = [1, 2, 3, *range(5, 17), 18, *range(20, 24), *range(25, 33), 34, 36]
    assert sorted(map(codes.index, found)) == published


def test_an_atlas_that_is_not_there(tmp_path):
    for n in range(6):
        write(tmp_path / f"s{n}_T1w.nii.gz", seed=n)
    with pytest.raises(InputError, match="no atlas 'atlas'; found s0, s1"):
        _ = PairFolder(str(tmp_path), "*_T1w.nii.gz", atlas="atlas").train


def test_lpba40_in_delineation_space(tmp_path):
    """Analyze pairs with a fourth axis of one, voxels compressed beside a plain header, 40 subjects in folders."""
    for n in range(1, 41):
        folder = tmp_path / f"S{n:02d}"
        for word, labels in (("skullstripped", False), ("structure.label", True)):
            path = folder / f"S{n:02d}.delineation.{word}.img"
            write(path, labels, n, nib.Spm2AnalyzeImage, (*SHAPE, 1))
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    data = rooted(("ofg", "voxelmorph", "lpba40"), tmp_path)
    assert data.test.names == tuple(f"S{n:02d}" for n in range(2, 11))
    assert data.validation.names == ("S39", "S40")
    assert len(data.train.names) == 28
    assert {fixed.name for split in (data.validation, data.test) for fixed, _ in split.pairs} == {"S01"}
    assert [moving.name for _, moving in data.test.pairs] == list(data.test.names)
    assert {fixed.name for fixed, _ in data.train.several(99, make_generator(0))} == {"S01"}
    with pytest.warns(UserWarning, match="which side is left"):
        pair, drawn = next(iter(data.test)), data.train.draw(make_generator(0))
    assert drawn.name.startswith("S01 ← ")
    assert pair.fixed.grid.shape == SHAPE
    assert pair.fixed_labels.data.unique().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("task", "name"), [("OASIS", "oasis"), ("AbdomenCTCT", "abdomen")])
def test_learn2reg_tasks_are_learned_both_ways_and_measured_one_way(tmp_path, task, name):
    cases = [f"{task}_{n:04d}_0000.nii.gz" for n in range(1, 17)]
    for n, case in enumerate(cases):
        write(tmp_path / "imagesTr" / case, seed=n)
        write(tmp_path / "labelsTr" / case, labels=True, seed=n)
        write(tmp_path / "masksTr" / case, labels=True, seed=n)
    kinds = {"image": "imagesTr", "label": "labelsTr", "mask": "masksTr"}
    entries = [{kind: f"./{folder}/{case}" for kind, folder in kinds.items()} for case in cases]
    listed = [{"fixed": f"./imagesTr/{a}", "moving": f"./imagesTr/{b}"} for a, b in ((cases[0], cases[1]),)]
    layout = {"training": entries, "registration_val": listed}
    (tmp_path / f"{task}_dataset.json").write_text(json.dumps(layout))
    data = replace(rooted(("ofg", "transmorph", name), tmp_path), held_out=3)
    names = [pair.name for pair in data.test]
    first, second = (case.split(".")[0] for case in cases[:2])
    assert names == [f"{first} ← {second}"]
    drawn = {tuple(data.train.draw(make_generator(n)).name.split(" ← ")) for n in range(200)}
    assert any(way[::-1] in drawn for way in drawn)
    assert not set(data.test.names) & {*data.train.names, *data.validation.names}
    masks = [next(iter(each.test)).fixed.mask for each in (data, Learn2Reg(str(tmp_path), held_out=3))]
    assert masks[0] is None, "the paper's energies look everywhere"
    assert masks[1] is not None


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
    data = rooted(("cyclical", "feature-registration", "abdomen"), tmp_path)
    assert (len(data.test), len(data.train.cases), len(data.validation.names)) == (45, 17, 3)
    assert all(case.labels is not None for pair in data.validation.pairs for case in pair)
    assert len(rooted(("ofg", "voxelmorph", "abdomen"), tmp_path).test) == 45


def test_abdomens_are_hounsfield_units_over_500_and_nothing_is_cut_off(tmp_path):
    """For the network that learns, and for the one that is used on images as stored."""
    hu = np.random.default_rng(0).integers(-1024, 3000, SHAPE).astype(np.int16)
    names = [f"A_{n:04d}_0000.nii.gz" for n in range(8)]
    (tmp_path / "imagesTr").mkdir()
    for name in names:
        nib.save(nib.Nifti1Image(hu, np.eye(4)), tmp_path / "imagesTr" / name)
    layout = {"training": [{"image": f"./imagesTr/{name}"} for name in names]}
    layout |= {"registration_val": [{"fixed": f"./imagesTr/{names[0]}", "moving": f"./imagesTr/{names[1]}"}]}
    (tmp_path / "AbdomenCTCT_dataset.json").write_text(json.dumps(layout))
    pair = next(iter(rooted(("ofg", "voxelmorph", "abdomen"), tmp_path).test))
    for image in pair.images:
        np.testing.assert_allclose(image.data[0, 0], hu / 500, rtol=1e-6)
    seen = []

    class Looking(torch.nn.Module):
        def forward(self, fixed, moving):
            seen.extend((fixed.data, moving.data))
            return Alignment(Pair(fixed, moving), Affine.identity(3))

    stored = Image(torch.from_numpy(hu).float()[None, None], pair.fixed.grid)
    Trained(Looking(), scale=500.0)(stored, stored)
    for data in seen:
        torch.testing.assert_close(data, pair.fixed.data, atol=1e-4, rtol=0)
    recipe = find("ofg", "voxelmorph", "abdomen")
    (tmp_path / "run.json").write_text("{}")
    assert _of_pairs(tmp_path, recipe, Looking()).scale == 500
    assert _of_pairs(tmp_path, find("ofg", "voxelmorph", "oasis"), Looking()).scale is None
