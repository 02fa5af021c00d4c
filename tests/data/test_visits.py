"""Pairs of visits one way: the earlier one is fixed, each two are one pair, numbers count as numbers."""

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from pullback.data import FileCase, PairFolder, pairs_within, subject_of
from pullback.errors import InputError
from pullback.recipes import find

IMAGES = "sub-{subject}/ses-{visit}/anat/*_T1w.nii.gz"


def touch(root: Path, visits: dict[str, list[int]]) -> None:
    for subject, numbers in visits.items():
        for number in numbers:
            path = root / f"sub-{subject}/ses-{number}/anat/sub-{subject}_ses-{number}_T1w.nii.gz"
            path.parent.mkdir(parents=True)
            path.touch()


@given(st.lists(st.integers(0, 5), max_size=6), st.integers(0, 40))
def test_each_two_make_one_pair_of_the_earlier_and_the_later(sizes, limit):
    groups = [[FileCase(f"{g}/{n}", Path(f"{g}-{n}")) for n in range(size)] for g, size in enumerate(sizes)]
    every = pairs_within(groups, one_way=True)
    assert {*every} == {(a, b) for group in groups for n, a in enumerate(group) for b in group[n + 1 :]}
    assert len(every) == sum(size * (size - 1) // 2 for size in sizes)
    assert pairs_within(groups, limit, one_way=True) == every[:limit]
    nearer = [int(b.name[-1]) - int(a.name[-1]) for a, b in every]
    assert nearer == sorted(nearer)


def test_visits_of_a_folder_go_one_way_and_who_has_one_is_said(tmp_path):
    """The tenth visit comes after the second, in every split."""
    touch(tmp_path, {name: [10, 2, 1] for name in "abcdef"} | {"lonely": [1]})
    data = PairFolder(str(tmp_path), IMAGES, within=True, one_way=True, validation_split=("b",), test_split=("a", "c"))
    with pytest.warns(UserWarning, match="1 subjects have one image and are in no pair: lonely"):
        train = data.train
    ways = {(1, 2), (2, 10), (1, 10)}
    for split, whom in ((train, "def"), (data.validation, "b"), (data.test, "ac")):
        assert {subject_of(case) for pair in split.pairs for case in pair} == {*whom}
        numbers = [tuple(int(case.name.split("/")[1]) for case in pair) for pair in split.pairs]
        assert {*numbers} == ways
        assert len(numbers) == 3 * len(whom)


def test_one_way_needs_visits(tmp_path):
    touch(tmp_path, {name: [1, 2] for name in "abcd"})
    with pytest.raises(InputError, match=r"data.one_way: .*set data.within=true"):
        _ = PairFolder(str(tmp_path), IMAGES, one_way=True).train


def test_the_data_set_of_the_recipes_is_such_a_folder():
    data = find("residual-unet", on="visits").data
    assert isinstance(data, PairFolder)
    assert data.within
    assert data.one_way
    assert data.images == IMAGES
