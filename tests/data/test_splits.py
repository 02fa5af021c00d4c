"""Datasets: the three splits share no subject, and bad folders are refused in words."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import assume, given, strategies as st

from pullback.alignment import Alignment
from pullback.data import (
    FileCase,
    Learn2Reg,
    PairFolder,
    Test,
    Train,
    Validation,
    normalised,
    ordered_pairs,
    pair_of,
    write_dataset,
)
from pullback.errors import InputError
from pullback.metrics import Dice
from pullback.numerics.random import make_generator
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
    data = pattern(folder, validation_split=("3", "4"), test_split=("7", "8"))
    assert subjects(data.test) == {"7", "8"}
    assert subjects(data.validation) == {"3", "4"}
    assert len(subjects(pattern(folder, test_split=("7", "8")).validation)) >= 2
    for splits, message in (
        ({"test_split": ("77", "8")}, "no subject '77'"),
        ({"test_split": ("7", "8"), "validation_split": ("8", "9")}, "'8' is named twice"),
        ({"validation_split": ("8", "9")}, "test_split must name"),
        ({"test_split": 0.6, "validation_split": 0.5}, "less than 1 together"),
        ({"test_split": -0.1}, "none below 0"),
    ):
        with pytest.raises(InputError, match=message):
            _ = pattern(folder, **splits).test


def groups_of(names, **kwargs) -> dict[str, str]:
    """Which split each subject is in, of files that are empty: only their names are looked at."""
    with tempfile.TemporaryDirectory() as root:
        for name in names:
            (Path(root) / f"{name}.nii.gz").touch()
        groups = PairFolder(root, **kwargs)._groups
        return {case.name: split for split, cases in groups.items() for case in cases}


@given(st.integers(9, 60), st.integers(0, 10**6))
def test_a_new_subject_moves_nobody_between_training_and_test(count, seed):
    names = [f"sub-{n}" for n in range(count)]
    shares = {"validation_split": 0.15, "test_split": 0.15, "seed": seed}
    try:
        before = groups_of(names, **shares)
    except InputError:
        assume(False)  # few, and by chance none of them is left for training
    after = groups_of([*names, "sub-new"], **shares)
    order = ["test", "validation", "train"]
    steps = {order.index(after[name]) - order.index(before[name]) for name in names}
    assert steps <= {0, 1}, "never towards test, and never past validation"
    sizes = [list(before.values()).count(split) for split in order]
    if min(sizes) > 2:  # nobody was taken to make up two
        assert steps == {0}
    assert set(after) == {*names, "sub-new"}


@pytest.mark.parametrize("count", [9, 150, 800])
def test_nobody_is_left_out_of_the_pairs(tmp_path, count):
    """However many there are; few subjects make all their pairs, many one each or more."""
    for n in range(count):
        (tmp_path / f"sub-{n}.nii.gz").touch()
    data = PairFolder(str(tmp_path))
    for split, limit in (("validation", 20), ("test", 100)):
        group, listed = data._groups[split], getattr(data, split)
        assert listed.names == tuple(sorted(case.name for case in group))
        assert {fixed.name for fixed, _ in listed.pairs} == set(listed.names)
        assert len(listed) == len({*listed.pairs}) == min(max(limit, len(group)), len(group) * (len(group) - 1))


def test_shares_are_about_what_was_asked_and_do_not_depend_on_the_machine():
    sizes = list(groups_of([f"sub-{n:03d}" for n in range(300)]).values())
    assert abs(sizes.count("test") - 45) < 15
    assert abs(sizes.count("validation") - 45) < 15
    drawn = groups_of([f"sub-{n:02d}" for n in range(16)])
    assert {name for name, split in drawn.items() if split == "test"} == {"sub-09", "sub-10"}


def test_splits_say_their_subjects(folder):
    data = pattern(folder, validation_split=("4", "3"), test_split=("8", "7"))
    assert data.validation.names == ("3", "4")
    assert data.test.names == ("7", "8")
    assert data.train.names == ("0", "1", "2", "5", "6", "9")
    assert not isinstance(data.validation, Test)
    assert not isinstance(data.test, Validation)
    assert data.validation != Test(data.validation.pairs)


def test_every_star_is_the_same_subject(tmp_path):
    for n in range(6):
        write(tmp_path / f"sub-{n}" / "anat" / f"sub-{n}_T1w.nii.gz", seed=n)
        write(tmp_path / f"sub-{n}" / "anat" / f"sub-{n}_dseg.nii.gz", seed=n, labels=True)
    write(tmp_path / "sub-1" / "anat" / "sub-2_T1w.nii.gz")  # laid in the wrong folder
    data = PairFolder(str(tmp_path), "sub-*/anat/sub-*_T1w.nii.gz", "./sub-*/anat/sub-*_dseg.nii.gz")
    assert [case.name for case in data.cases] == list("012345")
    assert data.cases[2].image == tmp_path / "sub-2" / "anat" / "sub-2_T1w.nii.gz"
    assert all(case.labels for case in data.cases)


def test_what_is_no_star_stands_for_itself(tmp_path):
    root = tmp_path / "a*b[1]"
    for n, name in enumerate(("x_[T1].nii.gz", "y_[T1].nii.gz", "z_T.nii.gz", "_[T1].nii.gz")):
        write(root / name, seed=n)
    assert [case.name for case in PairFolder(str(root), "*_[T1].nii.gz").cases] == ["x", "y"]


def test_a_pair_has_its_labels_and_normalised_intensities(folder):
    pair = pattern(folder).train.draw(make_generator(0))
    assert not pair.fixed_labels.data.is_floating_point()
    assert float(pair.fixed.data.min()) == 0
    assert float(pair.fixed.data.max()) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"root": "/nowhere/at/all"}, r"not a folder.*--data"),
        ({"root": ""}, r"no folder given.*--data"),
        ({"images": "scans/*.mha"}, r'0 images match.*--set "data.images=\*_T1w.nii.gz"'),
        ({"images": "**/sub-*_T1w.nii.gz"}, r"no \*\*"),
        ({"images": "scans/sub-1_T1w.nii.gz"}, r"every \* stands for the subject"),
        ({"images": "/scans/sub-*_T1w.nii.gz"}, "a path within the folder"),
        ({"labels": "labels/*_nothing.nii.gz"}, "no labels match.*whose names are 0, 1"),
        ({"images": "labels/*.nii.gz", "labels": "labels/*_dseg.nii.gz"}, r'images.*labels.*--set "data.images='),
        ({"images": "labels/*.nii.gz", "masks": "labels/*_dseg.nii.gz"}, r'images.*masks.*--set "data.images='),
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
    for n, name in enumerate("bcd", 1):
        write(tmp_path / f"{name}.nii.gz", seed=n)
    with pytest.raises(InputError, match="4 subjects make splits"):
        _ = PairFolder(str(tmp_path)).train


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("{}_T1w", "{}_dseg"), r'sub-0_dseg.*by its name labels.*takes sub-0_T1w.*--set "data.images=\*_T1w.nii.gz"$'),
        (("{}_T1w", "{}_brain_mask"), r'sub-0_brain_mask.*--set "data.images=\*_T1w.nii.gz"$'),
        (("{}.v2_t1", "{}.v2.label"), r'sub-0.v2.label.*--set "data.images=\*_t1.nii.gz"$'),
        (("{}-T1", "{}-T1_seg"), r"sub-0-T1_seg.*takes sub-0-T1.nii.gz: put one kind into a folder of its own$"),
    ],
)
def test_labels_among_images_are_not_learned_from(tmp_path, names, message):
    for n in range(6):
        for name in names:
            write(tmp_path / f"{name.format(f'sub-{n}')}.nii.gz", seed=n)
    with pytest.raises(InputError, match=message):
        _ = PairFolder(str(tmp_path)).train


def test_a_folder_of_label_maps_alone_is_what_was_asked_for(tmp_path):
    for n in range(6):
        write(tmp_path / f"sub-{n}_dseg.nii.gz", labels=True, seed=n)
    assert len(PairFolder(str(tmp_path)).cases) == 6


def test_images_that_are_not_compressed(tmp_path):
    for n, name in enumerate("abcdefgh"):
        write(tmp_path / f"{name}.nii", seed=n)
    with pytest.raises(InputError, match=r'0 images match.*--set "data.images=\*\.nii"'):
        _ = PairFolder(str(tmp_path)).train
    assert len(PairFolder(str(tmp_path), "*.nii").cases) == 8


def test_labels_on_another_grid(folder):
    write(folder / "labels" / "sub-0_dseg.nii.gz", labels=True, offset=30.0)
    data = pattern(folder, validation_split=("1", "2"), test_split=("3", "4"))
    case = next(c for c in data.train.cases if c.name == "0")
    with pytest.raises(InputError, match=r"sub-0_dseg.*another grid"):
        case.load()


def test_cases_of_different_dimension_are_named(tmp_path):
    write(tmp_path / "flat.nii.gz", shape=(12, 14))
    write(tmp_path / "deep.nii.gz")
    flat, deep = (FileCase(name, tmp_path / f"{name}.nii.gz") for name in ("flat", "deep"))
    with pytest.raises(InputError, match=r"flat ← deep.*2-D.*3-D"):
        pair_of(flat, deep)


@pytest.mark.parametrize("codes", ["LAS", "PIR", "ASL", "RAS"])
def test_storage_does_not_show(tmp_path, codes):
    """The same head, stored otherwise, is the same tensor."""
    rng, affine = np.random.default_rng(0), nib.affines.from_matvec(np.diag([1.0, 1.5, 2.0]), [3, -7, 5])
    arrays = {
        "image": rng.random((8, 9, 7), np.float32),
        "labels": rng.integers(0, 3, (8, 9, 7)).astype(np.uint8),
        "mask": rng.integers(0, 2, (8, 9, 7)).astype(np.uint8),
    }
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes))
    cases = []
    for how in ("ras", "turned"):
        paths = {kind: tmp_path / f"{how}_{kind}.nii" for kind in arrays}
        for kind, path in paths.items():
            stored = nib.Nifti1Image(arrays[kind], affine)
            nib.save(stored if how == "ras" else stored.as_reoriented(turn), path)
        cases.append(FileCase(how, **paths))
    for shape in (None, (10, 6, 7)):
        plain, turned = (replace(case, shape=shape).load() for case in cases)
        assert torch.equal(plain.image.data, turned.image.data)
        assert torch.equal(plain.image.mask, turned.image.mask)
        assert torch.equal(plain.labels.data, turned.labels.data)
        assert plain.image.grid == turned.image.grid == turned.labels.grid
        torch.testing.assert_close(plain.image.grid.affine, turned.image.grid.affine)


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


@pytest.mark.parametrize(
    ("without", "tested"),
    [((2, 3), (0, 1)), (range(8), (2, 3)), ((3,), (2, 3)), ((0, 1, 2, 3), (2, 3))],
    ids=["kept back", "no labels at all", "one without", "neither has any"],
)
def test_learn2reg_labels_that_are_kept_back(tmp_path, without, tested):
    """The validation pairs take the place of test pairs whose labels the challenge keeps; not where nobody has any."""
    files = learn2reg(tmp_path)
    entries = [
        {"image": f} if n in without else {"image": f, "label": f.replace("images", "labels")}
        for n, f in enumerate(files)
    ]
    learn2reg(tmp_path, training=entries, registration_test=[{"fixed": files[2], "moving": files[3]}])
    assert subjects(Learn2Reg(str(tmp_path), held_out=2).test) == {f"T_{n:04d}_0000" for n in tested}


def listed(root, training, test=(), pairs=(), tested=()) -> None:
    """A layout of images, which are not written: only their names are looked at."""
    layout = {
        "training": [{"image": f} for f in training],
        "test": [{"image": f} for f in test],
        "registration_val": [{"fixed": a, "moving": b} for a, b in pairs],
        "registration_test": [{"fixed": a, "moving": b} for a, b in tested],
    }
    (root / "T_dataset.json").write_text(json.dumps(layout))


def test_learn2reg_refuses_to_choose_checkpoints_on_who_is_reported(tmp_path):
    files = [f"imagesTr/T_{n:04d}_{m:04d}.nii.gz" for n in range(6) for m in (0, 1)]
    for pair in ((files[0], files[2]), (files[2], files[5])):
        listed(tmp_path, files, pairs=[pair], tested=[(files[0], files[4])])
        with pytest.raises(InputError, match=r"T_dataset.json: 1 cases.*such as T_000[02]_000[01],.*held out"):
            _ = Learn2Reg(str(tmp_path)).validation
    listed(tmp_path, files, pairs=[(files[2], files[6])], tested=[(files[0], files[4])])
    data = Learn2Reg(str(tmp_path))
    assert data.train.names == ("T_0004_0000", "T_0004_0001", "T_0005_0000", "T_0005_0001"), "no other scan of theirs"


@pytest.mark.parametrize("dot", ["", "./"])
def test_learn2reg_images_of_one_name_in_two_folders_are_two(tmp_path, dot):
    training, test = ([f"images{part}/{n:04d}.nii.gz" for n in range(6)] for part in ("Tr", "Ts"))
    listed(tmp_path, [*training, "imagesTr/x.nii"], test[:2], [(training[4], training[5])], [(dot + test[0], test[1])])
    data = Learn2Reg(str(tmp_path))
    assert [case.image for case in data.test.pairs[0]] == [tmp_path / path for path in test[:2]]
    assert [case.image for case in data.validation.pairs[0]] == [tmp_path / path for path in training[4:]]
    assert data.test.names == tuple(test[:2]), "told apart by folder"
    assert data.train.names == ("0002", "0003", *training[:2], "x")


def test_learn2reg_names_may_have_dots(tmp_path):
    endings = (".nii.gz", ".nii", ".NII.GZ", ".mha", ".nrrd", "")
    files = [f"imagesTr/brain.{n}{ending}" for n, ending in enumerate(endings)]
    listed(tmp_path, files, pairs=[files[:2]])
    data = Learn2Reg(str(tmp_path), held_out=2)
    assert [split.names for split in (data.test, data.train, data.validation)] == [
        (f"brain.{n}", f"brain.{n + 1}") for n in (0, 2, 4)
    ]


@given(st.lists(st.integers(1, 3), min_size=6, max_size=12), st.integers(2, 4))
def test_learn2reg_holds_out_whole_patients(scans, held_out):
    """And no more of them than it takes; where each has one scan, as many as was said."""
    names = [f"T_{n:04d}_{m:04d}" for n, count in enumerate(scans) for m in range(count)]
    files = [f"imagesTr/{name}.nii.gz" for name in names]
    with tempfile.TemporaryDirectory() as root:
        listed(Path(root), files, pairs=[(files[0], files[scans[0]])])
        data = Learn2Reg(root, held_out=held_out, validation_pairs=1000)
        splits = [data.test.names, data.train.names, data.validation.names]
    learned = len(data.train.names)
    patients = [{name[:6] for name in split} for split in splits]
    assert not patients[0] & patients[1] | patients[0] & patients[2] | patients[1] & patients[2]
    left = names[sum(scans[:2]) :]
    assert data.train.names + data.validation.names == tuple(left)
    assert len(left) - learned < held_out + scans[int(left[learned][2:6])]
    assert len(left) - learned >= held_out


def test_a_dataset_that_was_written_is_read(tmp_path):
    files = learn2reg(tmp_path)
    entries = {f"s{n}": {"image": f, "label": f.replace("images", "labels")} for n, f in enumerate(files)}
    (tmp_path / "T_dataset.json").unlink()
    pairs = {"validation": [("s1", "s6"), ("s6", "s1")], "test": [("s4", "s2")]}
    write_dataset(tmp_path, "T", entries, pairs, {1: "one", 2: ""}, (12, 14, 10))
    data = Learn2Reg(str(tmp_path))
    assert data.train.names == tuple(f"T_{n:04d}_0000" for n in (0, 3, 5, 7))
    for split, kind in ((data.validation, "validation"), (data.test, "test")):
        known = [(f"T_000{a[1]}_0000", f"T_000{b[1]}_0000") for a, b in pairs[kind]]
        assert [(fixed.name, moving.name) for fixed, moving in split.pairs] == known
    stored = json.loads((tmp_path / "T_dataset.json").read_text())
    assert stored["labels"] == {"0": {"0": "background", "1": "one", "2": "label 2"}}
    assert (stored["numTraining"], stored["numTest"]) == (len(stored["training"]), len(stored["test"])) == (6, 2)


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
    data = torch.rand(1, 1, 30, 30, generator=make_generator(0), dtype=torch.float64)
    data[..., :10] = 0
    data[0, 0, 5, 25] = 1e6
    image = normalised(Image(data, grid))
    again = normalised(Image(data * 7.5e4 + 3, grid))
    torch.testing.assert_close(image.data, again.data)
    assert float(image.data.median()) > 0.2, "one bright voxel must not decide"
    with pytest.raises(ValueError, match="constant"):
        normalised(Image(torch.ones(1, 1, 5, 5), Grid.centred((5, 5))))


@given(st.integers(0, 40), st.integers(-1, 2000))
def test_everyone_is_in_as_many_ordered_pairs_as_anyone(count, limit):
    """Fixed as often as any other up to one, and moving too; none both ways before all are in, and all row by row."""
    cases = [FileCase(f"s{n}", Path(f"s{n}.nii.gz")) for n in range(count)]
    everyone = ordered_pairs(cases)
    assert everyone == [(a, b) for a in cases for b in cases if a != b]
    some = ordered_pairs(cases, limit)
    assert some == everyone if limit >= len(everyone) else len(some) == max(limit, 0)
    assert {*some} <= {*everyone}
    assert len({*some}) == len(some)
    assert len({*map(frozenset, some)}) == min(len(some), len(everyone) // 2)
    for side in zip(*some, strict=True):
        often = [side.count(case) for case in cases]
        assert max(often) - min(often) <= 1


def test_several_pairs_are_all_others_and_both_ways_last():
    """190 of 20 subjects are every two of them once: what Bigalke et al. 2023 learn from."""
    cases = tuple(FileCase(f"s{n}", Path(f"s{n}.nii.gz")) for n in range(20))
    pairs = [(a.name, b.name) for a, b in Train(cases).several(190, make_generator(0))]
    assert len({frozenset(pair) for pair in pairs}) == 190
    more = [(a.name, b.name) for a, b in Train(cases).several(1000, make_generator(0))]
    assert more[:190] == pairs
    assert len(set(more)) == len(more) == 380
    assert pairs != [(a.name, b.name) for a, b in Train(cases).several(190, make_generator(1))]
    atlas = FileCase("atlas", Path("atlas.nii.gz"))
    assert {(a.name, b.name) for a, b in Train(cases, atlas).several(99, make_generator(0))} == {
        (case.name, "atlas") for case in cases
    }


@pytest.mark.parametrize(("held_out", "left", "pairs"), [(10, 0, 20), (0, 6, 0), (1, 5, 0)])
def test_learn2reg_says_which_number_leaves_too_few(tmp_path, held_out, left, pairs):
    learn2reg(tmp_path)
    with pytest.raises(InputError, match=rf"{left} cases .* and {pairs} pairs .* data.held_out \(now {held_out}"):
        _ = Learn2Reg(str(tmp_path), held_out=held_out).train


def test_the_darkest_of_few_levels_is_no_background():
    """Nor is the order of levels lost, nor their scale: the window is as wide as it was, and a tenth."""
    data = (torch.arange(90.0).view(1, 1, 9, 10) // 30) * 40 + 100
    levels = normalised(Image(data, Grid.centred((9, 10)))).data.unique()
    torch.testing.assert_close(levels, torch.tensor([0.0, 0.1 / 1.1, 1.0]))


def test_a_binary_image_is_normalised_from_its_minimum_too():
    data = (torch.arange(64.0).view(1, 1, 8, 8) > 40).float()
    for low, high in ((0.0, 99.0), (0.5, 99.5)):
        assert torch.equal(normalised(Image(data, Grid.centred((8, 8))), low, high).data, data)
