"""Pairs within a subject: who is paired with whom, that nobody is in two splits, and what tables of people say."""

import json
import tempfile
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, strategies as st

from pullback.data import FileCase, Learn2Reg, PairFolder, Train, pairs_within
from pullback.data.case import subject_of
from pullback.data.pattern import Pattern, by_number
from pullback.errors import InputError
from pullback.numerics.random import make_generator

IMAGES = "sub-{subject}/ses-{visit}/anat/*_T1w.nii.gz"
LABELS = "sub-{subject}/ses-{visit}/anat/*_dseg.nii.gz"


def touch(root, visits, ending="T1w"):
    """Empty files of each subject and visit: only their names are looked at."""
    for subject, count in visits.items():
        for visit in range(1, count + 1):
            path = Path(root) / f"sub-{subject}/ses-{visit}/anat/sub-{subject}_ses-{visit}_{ending}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def scan(path, seed=0, labels=False):
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 3, (9, 8, 7)).astype(np.uint8) if labels else rng.random((9, 8, 7), np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)


def people(pairs):
    return {subject_of(case) for pair in pairs for case in pair}


@pytest.mark.slow
@given(st.lists(st.integers(2, 4), min_size=6, max_size=14), st.integers(0, 10**6))
def test_pairs_are_of_one_subject_who_is_in_one_split(visits, seed):
    counts = {f"{n:02d}": count for n, count in enumerate(visits)}
    with tempfile.TemporaryDirectory() as root:
        touch(root, counts)
        data = PairFolder(root, IMAGES, seed=seed, within=True)
        splits = {"train": data.train, "validation": data.validation, "test": data.test}
        for split in splits.values():
            assert all(subject_of(a) == subject_of(b) and a != b for a, b in split.pairs)
            assert {*split.names} == people(split.pairs)
            images = {case for pair in split.pairs for case in pair}
            assert len(images) == sum(counts[name] for name in split.names)  # all of them
            assert {a for a, _ in split.pairs} == images  # each of them fixed
        names = [name for split in splits.values() for name in split.names]
        assert sorted(names) == sorted(counts)
        assert len(data.train.pairs) == sum(counts[name] * (counts[name] - 1) for name in data.train.names)
        assert len({*data.train.pairs}) == len(data.train.pairs)
        before = {name: kind for kind, split in splits.items() for name in split.names}
        touch(root, {"00": counts["00"] + 1})
        again = PairFolder(root, IMAGES, seed=seed, within=True)
        assert all(name in getattr(again, kind).names for name, kind in before.items())


@given(st.lists(st.integers(0, 5), max_size=6), st.integers(0, 40))
def test_rounds_of_pairs(sizes, limit):
    groups = [[FileCase(f"{g}/{n}", Path(f"{g}-{n}")) for n in range(size)] for g, size in enumerate(sizes)]
    everyone = pairs_within(groups)
    assert {*everyone} == {(a, b) for group in groups for a in group for b in group if a != b}
    assert len(everyone) == len({*everyone})
    some = pairs_within(groups, limit)
    assert some == everyone[:limit]
    often = {case: sum(fixed == case for fixed, _ in some) for group in groups if len(group) > 1 for case in group}
    more = {case: len(group) - 1 for group in groups for case in group}
    for times in often.values():
        assert all(times <= often[b] + 1 or often[b] == more[b] for b in often)


def test_drawn_pairs_are_the_named_ones():
    cases = [FileCase(str(n), Path(str(n))) for n in range(6)]
    pairs = [(cases[0], cases[1]), (cases[3], cases[2]), (cases[1], cases[0]), (cases[4], cases[5])]
    train = Train(cases, pairs=pairs)
    for seed in range(5):
        several = train.several(10, make_generator(seed))
        assert {*several} == {*pairs}
        assert len(several) == 4
        assert len({*map(frozenset, several[:3])}) == 3, "none both ways before all are in"
        assert train.several(2, make_generator(seed)) == several[:2]
    orders = {tuple(train.several(10, make_generator(seed))) for seed in range(20)}
    assert len(orders) > 3


def test_training_draws_two_visits_of_one(tmp_path):
    for n in range(3):
        for visit in (1, 2):
            for labels, kind in ((False, "T1w"), (True, "dseg")):
                name = f"sub-{n}/ses-{visit}/anat/sub-{n}_ses-{visit}_{kind}.nii.gz"
                scan(tmp_path / name, 2 * n + visit, labels)
    (tmp_path / "participants.tsv").write_text("participant_id\tage\tsex\nsub-0\t7.5\tF\nsub-1\tn/a\tM\n2\t9\tn/a\n")
    data = PairFolder(str(tmp_path), IMAGES, LABELS, within=True)
    seen = set()
    for seed in range(12):
        pair = data.train.draw(make_generator(seed))
        assert pair.fixed_labels is not None
        seen.add(pair.name)
    (name,) = data.train.names
    assert seen == {f"{name}/1 ← {name}/2", f"{name}/2 ← {name}/1"}
    about = {case.name: dict(case.load().about) for case in data.cases}
    assert about["0/1"] == {"visit": "1", "age": 7.5, "sex": "F"}
    assert about["1/2"] == {"visit": "2", "sex": "M"}
    assert about["2/1"] == {"visit": "1", "age": 9.0}


def test_what_tables_say_of_subjects_with_one_image(tmp_path):
    """And nothing of who is not in them, or where there is none."""
    for n in range(6):
        scan(tmp_path / f"sub-{n}_T1w.nii.gz", n)
    plain = [case.load().about for case in PairFolder(str(tmp_path), "sub-*_T1w.nii.gz").cases]
    assert plain == [{}] * 6
    (tmp_path / "participants.tsv").write_text("participant_id\tage\nsub-3\t70\n")
    for images in ("sub-*_T1w.nii.gz", "*_T1w.nii.gz", "sub-{subject}_T1w.nii.gz"):
        cases = PairFolder(str(tmp_path), images).cases
        assert [case.load().about for case in cases] == [{}] * 3 + [{"age": 70.0}] + [{}] * 2
    for text in ("age\tsex\n1\tF\n", "participant_id\tage\nsub-1\n", "participant_id,age\nsub-1,3\n"):
        (tmp_path / "participants.tsv").write_text(text)
        with pytest.raises(InputError, match=r"participants.tsv: a table of BIDS"):
            _ = PairFolder(str(tmp_path), "sub-*_T1w.nii.gz").cases


def test_named_wild_cards_of_one_image_each_are_stars(tmp_path):
    """The same cases, splits and pairs."""
    for n in range(12):
        (tmp_path / f"sub-{n}_T1w.nii.gz").touch()
    star, named = (PairFolder(str(tmp_path), f"sub-{card}_T1w.nii.gz") for card in ("*", "{subject}"))
    assert star.cases == named.cases
    for split in ("train", "validation", "test"):
        assert getattr(star, split) == getattr(named, split)


def test_between_subjects_their_images_are_in_one_split_all_the_same(tmp_path):
    touch(tmp_path, {f"{n}": 1 + n % 3 for n in range(9)})
    data = PairFolder(str(tmp_path), IMAGES)
    names = [data.train.names, data.validation.names, data.test.names]
    assert sorted(name for split in names for name in split) == sorted(map(str, range(9)))
    assert len(data.cases) == 18
    assert data.train.pairs == ()


def test_visits_are_in_the_order_of_their_numbers(tmp_path):
    for visit in ("10", "2", "1"):
        for subject in "abc":
            path = tmp_path / f"{subject}_month{visit}.nii.gz"
            path.touch()
    data = PairFolder(str(tmp_path), "{subject}_{visit}.nii.gz", within=True)
    assert [case.name for case in data.cases[:3]] == ["a/month1", "a/month2", "a/month10"]
    assert sorted(["x10y", "x9", "9", "x10"], key=by_number) == ["9", "x9", "x10", "x10y"]


@pytest.mark.parametrize(
    ("pattern", "path", "values"),
    [
        ("sub-{subject}/ses-{visit}/*_T1w.nii", "sub-1/ses-2/sub-1_ses-2_T1w.nii", ("1", "2")),
        ("sub-{subject}/sub-{subject}_{visit}_*.nii", "sub-1/sub-1_a_b_c.nii", ("1", "a")),
        ("sub-{subject}/sub-{subject}_{visit}_*.nii", "sub-1/sub-2_a_b.nii", None),
        ("{breath}/{subject}.nii", "in/x.y.nii", ("in", "x.y")),
        ("{subject}*.nii", "ab.nii", ("a",)),
        ("[{subject}]_{visit}+.nii", "[a]_b+.nii", ("a", "b")),
        ("{subject}/{visit}.nii", "a/b/c.nii", None),
    ],
)
def test_what_wild_cards_stand_for(tmp_path, pattern, path, values):
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).touch()
    assert Pattern(pattern).files(tmp_path) == ({} if values is None else {values: tmp_path / path})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": "sub-*_T1w.nii.gz"}, r"a name for the subject and for what tells its images apart"),
        ({"images": "sub-{subject}/ses-1/anat/*_T1w.nii.gz"}, r"a name for the subject"),
        ({"images": "sub-{who}/ses-{visit}/anat/*_T1w.nii.gz"}, r"\{subject\} is expected in it, beside who, visit"),
        (
            {"labels": "sub-{subject}/ses-1/anat/*_dseg.nii.gz"},
            r"wild cards of the images are subject, visit;.*not sub",
        ),
        ({"images": "sub-{subject}/ses-{visit}/anat/*.nii.gz"}, r"both match .* as 0/1: narrow it, or name"),
        ({"atlas": "0"}, "data.atlas"),
        ({"test_split": ("0/1",), "validation_split": ("1",)}, "no subject '0/1'"),
    ],
)
def test_bad_patterns(tmp_path, change, message):
    touch(tmp_path, {str(n): 2 for n in range(6)})
    touch(tmp_path, {str(n): 2 for n in range(6)}, "dseg")
    with pytest.raises(InputError, match=message):
        _ = PairFolder(str(tmp_path), **({"images": IMAGES, "within": True} | change)).train


def test_subjects_with_one_image_are_left_out_and_said(tmp_path):
    touch(tmp_path, {"a": 1, "b": 2, "c": 3, "d": 2, "e": 1})
    data = PairFolder(str(tmp_path), IMAGES, within=True)
    with pytest.warns(UserWarning, match="2 subjects have one image and are in no pair: a, e"):
        names = data.train.names
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        assert sorted(names + data.validation.names + data.test.names) == ["b", "c", "d"]
    touch(tmp_path / "alone", dict.fromkeys("abcdef", 1))
    with pytest.raises(InputError, match="each of the 6 subjects has one image"):
        _ = PairFolder(str(tmp_path / "alone"), IMAGES, within=True).train
    touch(tmp_path / "few", {"a": 2, "b": 2})
    with pytest.raises(InputError, match=r"2 subjects make splits of .*each needs at least 1"):
        _ = PairFolder(str(tmp_path / "few"), IMAGES, within=True).train


# Learn2Reg

NAMES = [f"imagesTr/Lung_{n:04d}_{m:04d}.nii.gz" for n in range(8) for m in (0, 1)]


def layout(root, names=NAMES, write=True, **lists):
    for name in names if write else ():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    content = {"training": [{"image": f"./{name}"} for name in names]}
    content |= {key: [{"fixed": f"./{a}", "moving": b} for a, b in pairs] for key, pairs in lists.items()}
    (root / "Lung_dataset.json").write_text(json.dumps(content))


def named(pairs):
    return [(fixed.name[5:], moving.name[5:]) for fixed, moving in pairs]


@pytest.mark.parametrize("both", [False, True])
def test_pairs_of_one_patient_as_the_file_lists_them(tmp_path, both):
    """Fixed is fixed; patients of validation and test are not learned from, though listed for training too."""
    pairs = [(NAMES[2 * n + 1], NAMES[2 * n]) for n in range(8)]
    layout(tmp_path, training_paired_images=pairs, registration_val=pairs[6:], registration_test=pairs[4:6])
    data = Learn2Reg(str(tmp_path), within=True, both_ways=both)
    for split, patients in ((data.train, range(4)), (data.validation, (6, 7)), (data.test, (4, 5))):
        ways = [(f"{n:04d}_0001", f"{n:04d}_0000") for n in patients]
        assert named(split.pairs) == [way for pair in ways for way in ((pair, pair[::-1]) if both else (pair,))]
        assert split.names == tuple(f"Lung_{n:04d}" for n in patients)


def test_patients_are_held_out_with_their_pairs(tmp_path):
    pairs = [(NAMES[2 * n + 1], NAMES[2 * n]) for n in range(8)]
    layout(tmp_path, training_paired_images=pairs[1:], registration_val=pairs[:1])
    data = Learn2Reg(str(tmp_path), held_out=3, within=True)
    assert data.test.names == ("Lung_0000",)
    assert data.validation.names == ("Lung_0006", "Lung_0007")  # three images, and all others of their patients
    assert named(data.validation.pairs) == [(f"000{n}_0001", f"000{n}_0000") for n in (6, 7)]
    assert data.train.names == tuple(f"Lung_{n:04d}" for n in range(1, 6))


def test_images_of_one_patient_are_paired_where_no_list_says_how(tmp_path):
    more = [*NAMES, "imagesTr/Lung_0003_0002.nii.gz", "imagesTr/Lung_0009_0000.nii.gz"]
    layout(tmp_path, more, registration_val=[(NAMES[0], NAMES[1])])
    data = Learn2Reg(str(tmp_path), held_out=2, within=True)
    assert "Lung_0009" not in data.train.names + data.validation.names, "one image"
    assert {*named(data.train.pairs)} == {
        (f"{n:04d}_000{a}", f"{n:04d}_000{b}")
        for n, count in ((1, 2), (2, 2), (3, 3), (4, 2), (5, 2), (6, 2))
        for a in range(count)
        for b in range(count)
        if a != b
    }
    assert data.validation.names == ("Lung_0007",)


def test_listed_pairs_are_learned_without_within_too(tmp_path):
    pairs = [(NAMES[2 * n + 1], NAMES[2 * n]) for n in range(8)]
    layout(tmp_path, training_paired_images=pairs, registration_val=pairs[:1])
    data = Learn2Reg(str(tmp_path), held_out=2)
    assert named(data.train.pairs) == [(f"000{n}_0001", f"000{n}_0000") for n in range(1, 7)]
    assert named(data.validation.pairs) == [("0007_0001", "0007_0000")]
    assert data.train.names[0] == "Lung_0001_0000", "images, as without pairs"


def test_lists_that_cannot_be_so_are_refused(tmp_path):
    pairs = [(NAMES[2 * n + 1], NAMES[2 * n]) for n in range(8)]
    layout(tmp_path, training_paired_images=[*pairs, (NAMES[2], "imagesTr/none.nii.gz")], registration_val=pairs[:1])
    with pytest.raises(InputError, match=r"1 images of its pairs are not there.*such as imagesTr/none.nii.gz"):
        _ = Learn2Reg(str(tmp_path), within=True).train
    (tmp_path / NAMES[5]).unlink()
    layout(tmp_path, write=False, training_paired_images=pairs, registration_val=pairs[:1])
    with pytest.raises(InputError, match=rf"such as {NAMES[5]}"):
        _ = Learn2Reg(str(tmp_path), within=True).train
    layout(tmp_path, training_paired_images=pairs, registration_val=[(NAMES[0], NAMES[2])])
    with pytest.raises(InputError, match=r"Lung_0000_0000 with Lung_0001_0000, which are of two patients"):
        _ = Learn2Reg(str(tmp_path), within=True).train
    layout(tmp_path, NAMES[::2], registration_val=pairs[:0])
    with pytest.raises(InputError, match="lists neither registration_val"):
        _ = Learn2Reg(str(tmp_path), within=True).train
