"""Folds: each person is tested once, and is never on two sides."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import assume, given, settings, strategies as st

from pullback.data import BrainPhantom, Folds, Singles, Synthetic, Test, Train, Validation
from pullback.data.case import FileCase, person_of, with_atlas
from pullback.errors import InputError
from pullback.study.arms import is_stored


@dataclass(frozen=True)
class Listing:
    """A dataset of given splits."""

    train: Train | Singles
    validation: Validation
    test: Test
    root: str = ""
    centred: bool = True


def cases(people: int, each: int = 1) -> list[FileCase]:
    return [FileCase(f"sub-{p:02d}_ses-{v}", f"{p}-{v}.nii.gz") for p in range(people) for v in range(each)]  # type: ignore[arg-type]


def any_two(people: int, each: int = 1) -> Listing:
    known = cases(people, each)
    first, second = len(known) // 2, 3 * len(known) // 4
    validation, test = (
        [(a, b) for a in some for b in some if a != b] or [(some[0], some[0])]
        for some in (known[first:second], known[second:])
    )
    return Listing(Train(known[:first]), Validation(validation), Test(test))


def within(people: int) -> Listing:
    """A dataset of pairs of one person's visits, the second of which is fixed."""
    known = cases(people, 2)
    pairs = [(known[2 * p + 1], known[2 * p]) for p in range(people)]
    return Listing(Train(known[:-4], pairs=pairs[:-2]), Validation(pairs[-2:-1]), Test(pairs[-1:]))


def people_of(split) -> set[str]:
    found = split.cases if isinstance(split, Train | Singles) else [case for pair in split.pairs for case in pair]
    return {person_of(case) for case in found}


@settings(max_examples=40, deadline=None)
@given(
    people=st.integers(6, 23),
    count=st.integers(2, 6),
    seed=st.integers(0, 5),
    each=st.integers(1, 3),
    chosen_by=st.sampled_from([None, 1, 2]),
)
def test_each_person_is_tested_once_and_is_on_one_side(people, count, seed, each, chosen_by):
    data = any_two(people, each) if people >= 2 * count else within(people)
    assume(chosen_by is not None or count > 2)
    assume(chosen_by != 1 or people < 2 * count)  # of one image of any two there is no pair
    tested = []
    for number in range(count):
        folds = Folds(data, count, number, seed=seed, chosen_by=chosen_by)
        sides = [people_of(split) for split in (folds.train, folds.validation, folds.test)]
        assert sum(map(len, sides)) == len(set.union(*sides)) == people
        assert min(map(len, sides)) > 0
        assert chosen_by is None or len(sides[1]) == chosen_by
        tested += sorted(sides[2])
    assert len(tested) == len({*tested}) == people
    sizes = [len(fold) for fold in Folds(data, count, seed=seed).folds]
    assert max(sizes) - min(sizes) <= 1


def test_the_next_fold_chooses_and_seeds_deal_differently():
    data = any_two(20)
    for number in range(5):
        folds = Folds(data, 5, number)
        assert people_of(folds.validation) == {*folds.folds[(number + 1) % 5]}
        assert people_of(folds.test) == {*folds.folds[number]}
    assert Folds(data, 5).folds == Folds(data, 5, 3).folds
    assert len({Folds(data, 5, seed=seed).folds for seed in range(5)}) == 5


def test_folds_can_be_given_by_any_of_a_persons_names():
    data = within(6)
    lists = (("03", "sub-01_ses-0"), ("00", "05"), ("sub-04_ses-1", "02"))
    folds = Folds(data, 3, 1, lists)
    assert folds.folds == (("03", "01"), ("00", "05"), ("04", "02"))
    assert people_of(folds.test) == {"00", "05"}
    assert people_of(folds.validation) == {"04", "02"}
    assert people_of(folds.train) == {"03", "01"}


def test_listed_pairs_stay_pairs_and_keep_their_sides():
    folds = Folds(within(10), 5, 2)
    assert isinstance(folds.train, Train)
    for split, pairs in ((folds.train, 6), (folds.validation, 2), (folds.test, 2)):
        assert len(split.pairs) == pairs
        assert all(person_of(fixed) == person_of(moving) for fixed, moving in split.pairs)
        assert all(fixed.name.endswith("ses-1") for fixed, _ in split.pairs)


def test_an_atlas_is_nobody_and_in_all_pairs():
    known, atlas = cases(8), FileCase("atlas", "atlas.nii.gz")  # type: ignore[arg-type]
    pairs = [with_atlas(case, atlas, True) for case in known]
    data = Listing(Train(known[:4], atlas), Validation(pairs[4:6], atlas), Test(pairs[6:], atlas))
    for number in range(4):
        folds = Folds(data, 4, number)
        assert isinstance(folds.train, Train)
        assert folds.train.atlas == atlas
        assert atlas not in folds.train.cases
        for split in (folds.validation, folds.test):
            assert [moving for _, moving in split.pairs] == [atlas, atlas]
            assert "atlas" not in split.names


def test_single_cases_and_made_pairs_stay_what_they_are():
    known = cases(9)
    data = Listing(Singles(known[:5]), Validation.singles(known[5:7]), Test.singles(known[7:]))
    folds = Folds(data, 3)
    assert isinstance(folds.train, Singles)
    assert [a for a, b in folds.test.pairs if a is b] == [a for a, _ in folds.test.pairs]
    assert (len(folds.train.cases), len(folds.validation), len(folds.test)) == (3, 3, 3)
    made = BrainPhantom(24.0, 2, 2, 2, synthetic=Synthetic(per_subject=2))
    tested = Folds(made, 3, 1).test
    assert len(tested) == 4
    assert tested.make == made.test.make
    assert [pair.name for pair in tested] == [
        f"{c.name} ← synthetic {n}" for c, n in zip(*_by_two(tested), strict=True)
    ]


def _by_two(split):
    return [fixed for fixed, _ in split.pairs], [1, 2] * (len(split) // 2)


def test_the_most_pairs_of_a_split():
    data = any_two(24)
    assert len(Folds(data, 3, pairs=None).test) == 8 * 7
    assert len(Folds(data, 3, pairs=10).test) == 10


def test_a_folder_goes_to_the_dataset():
    data = within(6)
    assert Folds(data, 3, root="there")._placed == replace(data, root="there")
    assert Folds(data, 3).centred
    assert Folds(data, 3).train.of == Folds(data, 3)
    assert is_stored(Folds(data, 3))
    assert not is_stored(Folds(BrainPhantom(), 3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Folds(any_two(8), 1), "two folds or more"),
        (lambda: Folds(any_two(8), 3, 3), "number of one of them"),
        (lambda: Folds(within(4), 5).train, "5 folds of 4 people"),
        (lambda: Folds(within(4), 2).train, "chosen_by between 1 and 1"),
        (lambda: Folds(within(4), 2, chosen_by=2).train, "chosen_by between 1 and 1"),
        (lambda: Folds(within(4), 2, people=(("00", "01"), ("02", "07"))).folds, "no subject '07'"),
        (lambda: Folds(within(4), 2, people=(("00", "01"), ("02", "01"))).folds, "twice: 01; in none: 03"),
        (lambda: Folds(within(4), 3, people=(("00", "01"), ("02", "03"))).folds, "3 folds in which"),
        (lambda: Folds(any_two(4), 4).test, "makes no pair"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
