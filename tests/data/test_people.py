"""People: no split parts the images of one, whatever their files are called; their pairs are none between people."""

import json
import random
import tempfile
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from pullback.data import FileCase, Learn2Reg, PairFolder, Train, ordered_pairs
from pullback.data.case import person_of, subject_of
from pullback.data.pairing import WHOLE
from pullback.data.pattern import Pattern
from pullback.data.people import copies, numbered, person_in
from pullback.errors import InputError
from pullback.numerics.random import drawn_number, make_generator

SPLITS = ("train", "validation", "test")


def touch(root, names):
    """Empty files: only their names are looked at."""
    for name in names:
        path = root / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def scan(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.random.default_rng(seed).random((9, 8), np.float32), np.eye(4)), path)


def split_of(data) -> dict[str, str]:
    """The split of each image, by the name of its case."""
    return {case.name: kind for kind in SPLITS for case in data._groups[kind]}


@pytest.mark.parametrize(
    ("names", "images", "person"),
    [
        ("sub-{p:02d}_ses-{s}_T1w", "*_T1w.nii.gz", None),
        ("sub-{p:02d}_ses-{s}_T1w", "*.nii.gz", None),
        ("sub-{p:02d}_ses-{s}_T1w", "sub-*_T1w.nii.gz", None),
        ("sub-{p:02d}_ses-{s}_T1w", "sub-*_ses-*_T1w.nii.gz", None),
        ("sub-{p:02d}_run-{s}_T1w", "{subject}_T1w.nii.gz", None),
        ("sub-{p:02d}/ses-{s}/anat/sub-{p:02d}_ses-{s}_T1w", "sub-*/ses-*/anat/*_T1w.nii.gz", None),
        ("sub-{p:02d}/ses-{s}/anat/sub-{p:02d}_ses-{s}_T1w", "sub-*/ses-*/anat/sub-*_ses-*_T1w.nii.gz", None),
        ("sub-{p:02d}/anat/sub-{p:02d}_run-{s}_T1w", "sub-*/anat/*_T1w.nii.gz", None),
        ("sub-{p:02d}/anat/sub-{p:02d}_run-{s}_T1w", "*/anat/*_T1w.nii.gz", None),
        ("p{p:02d}/2020-0{s}/T1", "*/*/T1.nii.gz", None),
        ("Brain_{p:04d}_{s:04d}", "*.nii.gz", None),
        ("p{p:02d}_scan{s}", "*.nii.gz", "{person}_*"),
        ("OAS{p:02d}_MR_d{s}_T1w", "*_T1w.nii.gz", "{person}_MR_*"),
    ],
)
def test_all_images_of_a_person_are_in_one_split(tmp_path, names, images, person):
    touch(tmp_path, [names.format(p=p, s=s) for p in range(20) for s in (1, 2)])
    data = PairFolder(str(tmp_path), images, person=person)
    assert len(data.cases) == 40
    people = {kind: {*getattr(data, kind).names} for kind in SPLITS}
    assert sum(map(len, people.values())) == len(set.union(*people.values())) == 20
    for split in (data.validation, data.test):
        assert all(subject_of(a) != subject_of(b) for a, b in split.pairs)
    assert {a for a, _ in data.test.pairs} == {*data._groups["test"]}, "each image is fixed"
    if "{" not in images:
        within = PairFolder(str(tmp_path), images, person=person, within=True).test
        assert all(subject_of(a) == subject_of(b) for a, b in within.pairs)
        assert len(within.pairs) == 2 * len(within.names)


def test_a_table_says_who_is_who(tmp_path):
    touch(tmp_path, [f"scan{n:02d}" for n in range(24)])
    rows = "".join(f"scan{n:02d}\tp{n // 2}\n" for n in range(24))
    (tmp_path / "participants.tsv").write_text(f"participant_id\tperson\n{rows}")
    (tmp_path / "who.csv").write_text("image,patient\n" + rows.replace("\t", ","))
    by_itself, told = PairFolder(str(tmp_path)), PairFolder(str(tmp_path), person="who.csv")
    assert split_of(by_itself) == split_of(told)
    assert {subject_of(case) for case in told.cases} == {f"p{n}" for n in range(12)}
    (tmp_path / "who.csv").write_text("image,patient\nscan00,p0\n")
    for person, message in (
        ("who.csv", "does not say whose scan01 is"),
        ("none.csv", "no such table"),
        ("{person}_*", "does not say whose it is"),
    ):
        with pytest.raises(InputError, match=message):
            _ = PairFolder(str(tmp_path), person=person).cases


def test_copies_under_other_names_are_of_one_person(tmp_path):
    for n in range(16):
        scan(tmp_path / f"a{n:02d}.nii.gz", n)
    for n in range(0, 16, 2):
        (tmp_path / f"z{n:02d}.nii.gz").write_bytes((tmp_path / f"a{n:02d}.nii.gz").read_bytes())
    with pytest.warns(UserWarning, match=r"copies.*a00.nii.gz = z00.nii.gz"):
        where = split_of(PairFolder(str(tmp_path), seed=3))
    assert all(where[f"a{n:02d}"] == where[f"z{n:02d}"] for n in range(0, 16, 2))
    assert [*where.values()].count("train") > 10
    three = [tmp_path / f"{name}.nii.gz" for name in ("a00", "a01", "z00")]
    same = copies([*three, tmp_path / "none"])
    assert same == [[tmp_path / "a00.nii.gz", tmp_path / "z00.nii.gz"]]


@given(st.integers(9, 40), st.integers(0, 10**6))
def test_who_has_one_image_is_where_the_name_of_the_file_drew_it(count, seed):
    """As it was before there were persons: by the number that seed and name give alone."""
    with tempfile.TemporaryDirectory() as root:
        touch(Path(root), [f"sub-{n}_T1w" for n in range(count)])
        for images, name in (("*_T1w.nii.gz", "sub-{}"), ("sub-*_T1w.nii.gz", "{}"), ("*.nii.gz", "sub-{}_T1w")):
            groups = PairFolder(root, images, seed=seed)._groups
            drawn = sorted((drawn_number(seed, name.format(n)), name.format(n)) for n in range(count))
            test = max(2, sum(number < 0.15 for number, _ in drawn))
            assert [case.name for case in groups["test"]] == [each for _, each in drawn[:test]]


def test_a_session_that_is_added_moves_nobody(tmp_path):
    touch(tmp_path, [f"sub-{n:02d}_ses-1_T1w" for n in range(30)])
    before = {kind: getattr(PairFolder(str(tmp_path), "*_T1w.nii.gz"), kind).names for kind in SPLITS}
    touch(tmp_path, [f"sub-{n:02d}_ses-2_T1w" for n in range(0, 30, 3)])
    assert before == {kind: getattr(PairFolder(str(tmp_path), "*_T1w.nii.gz"), kind).names for kind in SPLITS}


def test_what_names_say():
    assert [*map(person_in, ("sub-01_ses-2_T1w", "sub-01", "01", "Lung_0004_0001", "x/sub-7/ses-1", "IXI002"))] == [
        *("01", "01", "01", "Lung_0004", "7", "IXI002")
    ]
    assert numbered([f"p{n}_scan{s}" for n in range(4) for s in (1, 2)]).keys() == {"p0", "p1", "p2", "p3"}
    assert numbered([f"sub-{n:02d}" for n in range(9)]) == {}
    assert numbered([f"OASIS-TRT-20-{n}" for n in range(20)]) == {}


def test_hidden_files_are_no_images(tmp_path):
    names = [f"sub-{n}/anat/sub-{n}_T1w" for n in range(6)]
    touch(tmp_path, [*names, "sub-0/anat/._sub-0_T1w", ".sub-9/anat/sub-9_T1w", "__MACOSX/anat/sub-3_T1w"])
    for images in ("sub-*/anat/*_T1w.nii.gz", "*/anat/*_T1w.nii.gz", "sub-{subject}/anat/*_T1w.nii.gz"):
        assert [case.image.name for case in PairFolder(str(tmp_path), images).cases] == [
            f"sub-{n}_T1w.nii.gz" for n in range(6)
        ]
    assert len(Pattern("*/anat/*_T1w.nii.gz").hidden(tmp_path)) == 3
    touch(tmp_path, [f".hidden/{n}" for n in range(3)])
    assert len(PairFolder(str(tmp_path), ".hidden/*.nii.gz").cases) == 3


def test_labels_belong_to_the_image_of_their_session(tmp_path):
    stems = [f"sub-{n}/ses-{s}/anat/sub-{n}_ses-{s}" for n in range(4) for s in (1, 2)]
    touch(tmp_path, [f"{stem}_T1w" for stem in stems])
    touch(tmp_path, [f"derivatives/seg/{stem}_space-T1w_dseg" for stem in stems[1:]])
    for labels in ("derivatives/seg/sub-*/ses-*/anat/*_dseg.nii.gz",):
        cases = PairFolder(str(tmp_path), "sub-*/ses-*/anat/*_T1w.nii.gz", labels).cases
        assert [case.labels is not None for case in cases] == [False, *[True] * 7]
        for case in cases[1:]:
            assert case.labels.name.startswith(case.image.name.removesuffix("_T1w.nii.gz"))
    flat = tmp_path / "flat"
    flat.mkdir()
    touch(flat, [f"{stem.split('/')[-1]}_dseg" for stem in stems])
    cases = PairFolder(str(tmp_path), "sub-*/ses-*/anat/*_T1w.nii.gz", "flat/*_dseg.nii.gz").cases
    assert all(case.labels.name == case.image.name.replace("T1w", "dseg") for case in cases)


def test_patterns_are_channels(tmp_path):
    for n in range(8):
        scan(tmp_path / f"sub-{n}_T1w.nii.gz", n)
        scan(tmp_path / f"sub-{n}_T2w.nii.gz", 100 + n)
    case = PairFolder(str(tmp_path), ("*_T1w.nii.gz", "*_T2w.nii.gz")).cases[3]
    both = case.load().image.data
    alone = [PairFolder(str(tmp_path), f"*_{kind}.nii.gz").cases[3].load().image.data for kind in ("T1w", "T2w")]
    assert torch.equal(both, torch.cat(alone, 1))


def test_two_folders_are_the_pairs(tmp_path):
    touch(tmp_path, [f"{side}/p{n:02d}" for n in range(20) for side in ("fixed", "moving")])
    touch(tmp_path, ["fixed/alone"])
    data = PairFolder(str(tmp_path), "fixed/*.nii.gz", moving="moving/*.nii.gz")
    with pytest.warns(UserWarning, match="1 images have no moving one.*alone"):
        splits = [data.train, data.validation, data.test]
    pairs = [pair for split in splits for pair in split.pairs]
    assert sorted((a.image.parent.name, b.image.parent.name) for a, b in pairs) == [("fixed", "moving")] * 20
    assert all(a.image.name == b.image.name for a, b in pairs)
    assert sorted(name for split in splits for name in split.names) == [f"p{n:02d}" for n in range(20)]


def test_everyone_may_be_tested(tmp_path):
    touch(tmp_path, [f"s{n:02d}" for n in range(12)])
    names = tuple(f"s{n:02d}" for n in range(12))
    for split in (names, 1.0):
        data = PairFolder(str(tmp_path), test_split=split)
        assert data.test.names == names
        with pytest.raises(InputError, match="12 subjects make splits of"):
            _ = data.train


@pytest.mark.parametrize("count", [9, 12, 30])
def test_who_is_left_out_moves_nobody_else(tmp_path, count):
    """In a small folder too, where those who drew least make up the splits."""
    names = [f"s{n:02d}" for n in range(count)]
    touch(tmp_path, names)
    whole = split_of(PairFolder(str(tmp_path)))
    for left in names:
        others = {name: kind for name, kind in whole.items() if name != left}
        assert split_of(PairFolder(str(tmp_path), without=(left,))) == others


# Pairs


def cases_of(sizes):
    return [FileCase(f"p{p}/{n}", __file__, subject=f"p{p}") for p, size in enumerate(sizes) for n in range(size)]


@given(st.lists(st.integers(1, 3), min_size=1, max_size=9), st.integers(0, 60))
def test_pairs_are_of_two_people_in_rounds(sizes, limit):
    cases = cases_of(sizes)
    everyone = ordered_pairs(cases)
    alone = len(sizes) == 1
    assert {*everyone} == {(a, b) for a in cases for b in cases if a != b and (alone or a.subject != b.subject)}
    some = ordered_pairs(cases, limit)
    assert len(some) == len({*some}) == min(limit, len(everyone))
    assert {*some} <= {*everyone}
    often = [sum(a is case for a, _ in some) for case in cases]
    possible = [sum(a is case for a, _ in everyone) for case in cases]
    assert all(n >= max(often) - 1 or n == most for n, most in zip(often, possible, strict=True))


@given(st.integers(2, 9), st.integers(0, 80))
def test_of_one_image_each_the_pairs_are_as_ever(n, limit):
    cases = cases_of([1] * n)
    before = [(case, cases[(i + k) % n]) for k in range(1, n) for i, case in enumerate(cases)]
    expected = before[:limit] if limit < n * (n - 1) else [(a, b) for a in cases for b in cases if a is not b]
    assert ordered_pairs(cases, limit) == expected


def test_training_draws_two_people():
    cases = cases_of([3, 1, 2])
    drawn = [Train(cases).several(30, make_generator(seed)) for seed in range(5)]
    for ways in drawn:
        assert {*ways} == {*ordered_pairs(cases)}
        assert all(person_of(a) != person_of(b) for a, b in ways)


def test_of_many_cases_some_pairs_are_drawn_without_making_all():
    count = 2000
    assert count * (count - 1) // 2 > WHOLE
    cases = cases_of([1] * count)
    some = Train(cases).several(300, make_generator(0))
    assert len({frozenset(way) for way in some}) == 300
    assert some == Train(cases).several(300, make_generator(0))


# Learn2Reg


def paired(root, **more):
    names = [f"imagesTr/Lung_{n:04d}_{m:04d}.nii.gz" for n in range(16) for m in (0, 1)]
    random.Random(0).shuffle(names)
    touch(root, [name.removesuffix(".nii.gz") for name in names])
    pairs = [
        {"fixed": f"./imagesTr/Lung_{n:04d}_0000.nii.gz", "moving": f"imagesTr/Lung_{n:04d}_0001.nii.gz"}
        for n in range(16)
    ]
    content = {"training": [{"image": f"./{name}"} for name in names], "registration_val": pairs[12:], **more}
    (root / "Lung_dataset.json").write_text(json.dumps(content))
    return pairs


@pytest.mark.parametrize("how", ["listed", "said", "both"])
def test_pairs_that_are_listed_are_learned_and_validated_by(tmp_path, how):
    pairs = paired(tmp_path)
    more = {"training_paired_images": pairs[:12]} if how != "said" else {}
    more |= {"pairings": "paired", "registration_direction": {"fixed": 0, "moving": 1}} if how != "listed" else {}
    paired(tmp_path, **more)
    data = Learn2Reg(str(tmp_path), held_out=6)
    for split in (data.train, data.validation, data.test):
        assert split.pairs
        assert all(a.name[:9] == b.name[:9] and a.name[-4:] == "0000" and b.name[-4:] == "0001" for a, b in split.pairs)
    learned = {a.name[:9] for a, _ in data.train.pairs}
    assert len(learned) + len({a.name[:9] for a, _ in data.validation.pairs}) == 12


def test_copies_on_mac_are_no_second_list(tmp_path):
    paired(tmp_path)
    (tmp_path / "._Lung_dataset.json").write_bytes(b"\0\5\26\7")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(Learn2Reg(str(tmp_path)).cases) == 32
