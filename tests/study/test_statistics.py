"""Tests and effect sizes by enumeration, by counting, by statsmodels and by closed forms; intervals by what they are
for."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.stats import norm, rankdata, ttest_ind
from statsmodels.stats.meta_analysis import effectsize_smd
from statsmodels.stats.multicomp import pairwise_tukeyhsd
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.nonparametric import rank_compare_2indep

from pullback.errors import InputError
from pullback.numerics.random import make_generator
from pullback.study.statistics import Interval, benjamini_hochberg, mann_whitney, mean_interval, paired, tukey

SIDES = ("two-sided", "less", "greater")


def normal(n, shift=0.0, seed=0):
    return shift + np.random.default_rng(seed).normal(size=n)


def share(statistics, seen, side):
    """The p of a statistic among all that could have come about: of one side, or twice the lesser."""
    less, greater = np.mean(statistics <= seen + 1e-9), np.mean(statistics >= seen - 1e-9)
    return {"less": less, "greater": greater, "two-sided": min(1, 2 * min(less, greater))}[side]


# pairs


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("shift", [0.0, 0.5, -0.8])
def test_p_of_pairs_is_the_share_of_all_changes_of_sign(side, shift):
    off = normal(10, shift, seed=3)
    ranks = rankdata(np.abs(off))
    sums = np.array([ranks[list(signs)].sum() for signs in itertools.product([False, True], repeat=10)])
    found = paired(off, np.zeros(10), make_generator(0), side)
    assert found.statistic == ranks[off > 0].sum()
    assert found.p == pytest.approx(share(sums, found.statistic, side))


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=30))
def test_the_effect_of_pairs_is_the_share_of_ranks_in_favour_less_that_against(differences):
    off = np.array(differences, dtype=float)
    left = off[off != 0]
    ranks = rankdata(np.abs(left))
    found = paired(off, np.zeros(len(off)), make_generator(0))
    for_a, for_b = (ranks[chosen].sum() / max(ranks.sum(), 1) for chosen in (left > 0, left < 0))
    assert found.effect == pytest.approx(for_a - for_b)
    assert found.difference == pytest.approx(off.mean())
    assert (found.p is None) == (len(left) == 0)


def test_exchanged_pairs_change_their_sign():
    a, b = normal(15, 0.3), normal(15, seed=1)
    one, other = paired(a, b, make_generator(0)), paired(b, a, make_generator(0))
    assert (other.difference, other.effect) == pytest.approx((-one.difference, -one.effect))
    assert other.p == pytest.approx(one.p)
    assert paired(b, a, make_generator(0), "less").p == pytest.approx(paired(a, b, make_generator(0), "greater").p)


def test_pairs_that_are_better_throughout():
    b = normal(12)
    found = paired(b - 1 - np.arange(12), b, make_generator(0), "less")
    assert (found.effect, found.statistic, found.p) == (-1, 0, pytest.approx(0.5**12))
    assert found.test == "Wilcoxon signed-rank"
    assert found.side == "less"


def test_pairs_of_which_a_number_is_missing_are_left_out():
    a, b = normal(9), normal(9, seed=1)
    first, second = a.copy(), b.copy()
    first[2], second[5] = math.nan, math.nan
    keep = [0, 1, 3, 4, 6, 7, 8]
    assert paired(first, second, make_generator(0)) == paired(a[keep], b[keep], make_generator(0))
    assert paired(first, second, make_generator(0)).n == (7, 7)


def test_pairs_without_a_difference_are_no_test():
    a = normal(8)
    found = paired(a, a, make_generator(0))
    assert (found.p, found.effect, found.difference, found.interval) == (None, 0, 0, Interval(0, 0))
    one = paired([1.0], [0.5], make_generator(0))
    assert (one.difference, one.interval, one.p) == (0.5, None, 1)


def test_groups_of_pairs_are_of_one_length():
    with pytest.raises(InputError, match=r"3 numbers against 2.*NaN where it is missing"):
        paired([1, 2, 3], [1, 2], make_generator(0))
    with pytest.raises(InputError, match="no pair has a number in both"):
        paired([1, math.nan], [math.nan, 2], make_generator(0))
    with pytest.raises(InputError, match="infinite"):
        paired([1, math.inf], [0, math.inf], make_generator(0))


# groups of their own


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("shift", [0.0, 1.0, -0.6])
def test_p_of_two_groups_is_the_share_of_all_ways_to_part_them(side, shift):
    a, b = normal(5, shift, seed=7), normal(6, seed=8)
    ranks = rankdata(np.concatenate([a, b]))
    sums = np.array([sum(ranks[list(chosen)]) for chosen in itertools.combinations(range(11), 5)])
    found = mann_whitney(a, b, make_generator(0), side)
    assert found.p == pytest.approx(share(sums - 15, found.statistic, side))
    assert found.n == (5, 6)
    assert found.side == side


@given(st.lists(st.integers(0, 6), min_size=1, max_size=12), st.lists(st.integers(0, 6), min_size=1, max_size=12))
def test_the_effect_of_two_groups_by_counting(a, b):
    signs = np.array([np.sign(x - y) for x in a for y in b])
    found = mann_whitney(a, b, make_generator(0), "less")
    assert found.effect == pytest.approx(signs.mean())
    assert found.statistic == (signs > 0).sum() + 0.5 * (signs == 0).sum()
    assert (found.p is None) == (len({*a, *b}) == 1)


def test_the_effect_of_two_groups_as_statsmodels():
    a, b = normal(20, 0.4), normal(31, seed=1)
    expected = 2 * rank_compare_2indep(a, b).prob1 - 1
    assert mann_whitney(a, b, make_generator(0), "greater").effect == pytest.approx(expected)


def test_which_side_is_asked_of_the_first_group():
    """That its numbers are less is likelier the less they are; groups exchanged ask the other way round."""
    a, b = normal(11), normal(11, 1.0, seed=1)
    less, greater = (mann_whitney(a, b, make_generator(0), side).p for side in ("less", "greater"))
    assert less < 0.05 < 0.95 < greater
    assert mann_whitney(b, a, make_generator(0), "greater").p == pytest.approx(less)


def test_two_groups_in_which_all_is_equal_are_no_test():
    found = mann_whitney([0.1] * 3, [0.1] * 4, make_generator(0), "less")
    assert (found.p, found.effect, found.difference) == (None, 0, 0)
    assert mann_whitney([0.25] * 3, [0.5] * 4, make_generator(0), "less").interval == Interval(-0.25, -0.25)
    assert mann_whitney([0.25], [0.5, 0.75], make_generator(0), "less").interval is None
    with pytest.raises(InputError, match="without numbers"):
        mann_whitney([], [1], make_generator(0), "less")


# several groups


def three(sizes=(9, 14, 11)):
    return {name: normal(n, shift, seed=n) for name, n, shift in zip("abc", sizes, (0, 0.3, 1.5), strict=True)}


@pytest.mark.parametrize("sizes", [(9, 14, 11), (10, 11, 12)])
def test_tukey_as_statsmodels(sizes):
    groups = three(sizes)
    names = np.concatenate([[name] * len(values) for name, values in groups.items()])
    expected = pairwise_tukeyhsd(np.concatenate(list(groups.values())), names)
    found = list(tukey(groups).values())
    assert list(tukey(groups)) == [("a", "b"), ("a", "c"), ("b", "c")]
    np.testing.assert_allclose([c.difference for c in found], -expected.meandiffs)
    np.testing.assert_allclose([c.p for c in found], expected.pvalues, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose([[-c.interval.high, -c.interval.low] for c in found], expected.confint, rtol=1e-3)
    q = np.abs(expected.meandiffs) / expected.std_pairs
    np.testing.assert_allclose([c.statistic for c in found], q)


def test_tukey_of_two_groups_is_students_test():
    """The range of two is √2 |t|."""
    a, b = normal(9), normal(12, 0.9, seed=1)
    (found,) = tukey({"a": a, "b": b}).values()
    expected = ttest_ind(a, b)
    low, high = expected.confidence_interval()
    assert found.statistic == pytest.approx(math.sqrt(2) * abs(expected.statistic))
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high), rel=1e-6)


@pytest.mark.parametrize(("count", "size", "expected"), [(3, 5, 3.77), (4, 6, 3.96), (5, 5, 4.23)])
def test_intervals_of_ranges_reach_as_far_as_the_printed_tables_say(count, size, expected):
    """The upper 5 % of the studentised range, of 12, 20 and 20 degrees of freedom."""
    groups = [normal(size, seed=n) for n in range(count)]
    found = tukey({str(n): values for n, values in enumerate(groups)})["0", "1"]
    error = math.sqrt(np.mean([values.var(ddof=1) for values in groups]) / size)
    assert (found.interval.high - found.interval.low) / 2 / error == pytest.approx(expected, abs=0.006)


def test_the_effect_of_ranges_as_statsmodels():
    groups = three()
    for (one, other), found in tukey(groups).items():
        a, b = groups[one], groups[other]
        g, _ = effectsize_smd(a.mean(), a.std(ddof=1), len(a), b.mean(), b.std(ddof=1), len(b))
        assert found.effect == pytest.approx(g)


def test_an_interval_of_tukeys_holds_zero_where_p_is_above_what_it_leaves():
    for found in tukey(three()).values():
        assert (found.interval.low < 0 < found.interval.high) == (found.p > 0.05)


def test_groups_that_do_not_vary_are_no_test():
    found = tukey({"a": [0.1] * 3, "b": [0.1] * 4, "c": [0.3] * 7})
    assert {c.p for c in found.values()} == {c.statistic for c in found.values()} == {None}
    assert (found["a", "b"].effect, found["a", "c"].effect) == (0, None)
    assert found["a", "c"].interval.low == found["a", "c"].interval.high == pytest.approx(-0.2)
    with pytest.raises(InputError, match="got 3 of a, 1 of b"):
        tukey({"a": [1, 2, 3], "b": [1]})
    with pytest.raises(InputError, match="two groups or more"):
        tukey({"a": [1, 2, 3]})


# corrections


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_benjamini_hochberg_as_statsmodels(p):
    np.testing.assert_allclose(benjamini_hochberg(p), multipletests(p, method="fdr_bh")[1], atol=1e-12)


def test_benjamini_hochberg_by_hand_and_of_what_is_no_test():
    assert benjamini_hochberg([0.04, None, 0.01, 0.02]) == [pytest.approx(0.04), None, pytest.approx(0.03), 0.03]
    assert benjamini_hochberg([0.2]) == [0.2]
    assert benjamini_hochberg([None]) == [None]
    assert benjamini_hochberg([]) == []


# intervals


def test_an_interval_holds_the_mean_it_was_made_for():
    """In 300 samples of a skewed law, 95 % but for what 30 numbers let the bootstrap lack, and chance (three of its
    standard deviations are 3.8 %)."""
    rng, hits = np.random.default_rng(0), 0
    for n in range(300):
        found = mean_interval(rng.exponential(size=30), make_generator(n))
        hits += found.low < 1 < found.high
    assert 0.89 < hits / 300 < 0.99


def test_intervals_of_large_samples_are_the_central_limit_theorems():
    a, b = normal(900), normal(400, 0.2, seed=1)
    for groups, found in (
        ((a,), mean_interval(a, make_generator(0))),
        ((a, b), mann_whitney(a, b, make_generator(0), "less").interval),
        ((a[:400] - b,), paired(a[:400], b, make_generator(0)).interval),
    ):
        middle = groups[0].mean() - sum(g.mean() for g in groups[1:])
        reach = norm.ppf(0.975) * math.sqrt(sum(g.var() / len(g) for g in groups))
        assert (found.low, found.high) == pytest.approx((middle - reach, middle + reach), abs=0.08 * reach)


def test_intervals_move_and_grow_with_the_numbers():
    a = normal(20)
    one, other = mean_interval(a, make_generator(5)), mean_interval(3 + 2 * a, make_generator(5))
    assert (other.low, other.high) == pytest.approx((3 + 2 * one.low, 3 + 2 * one.high))


def test_intervals_of_little():
    assert mean_interval([0.5], make_generator(0)) is None
    assert mean_interval([0.5, 0.5, math.nan], make_generator(0)) == Interval(0.5, 0.5)
    rng = np.random.default_rng(0)
    for n in range(60):
        values = rng.integers(0, 2, rng.integers(2, 9)) * 0.1
        found = mean_interval(values, make_generator(n))
        assert values.min() - 1e-12 <= found.low <= found.high <= values.max() + 1e-12


# all of them


@pytest.mark.parametrize("test", [paired, mann_whitney])
def test_the_order_of_numbers_is_not_seen_and_one_seed_gives_one_answer(test):
    a, b = normal(14), normal(14, 0.2, seed=1)
    order = np.random.default_rng(2).permutation(14)
    found = test(a, b, make_generator(4), "less")
    assert test(a[order], b[order], make_generator(4), "less") == found
    assert test(a, b, make_generator(5), "less").interval != found.interval
    assert replace(test(a, b, make_generator(5), "less"), interval=found.interval) == found
    assert found.interval.low < found.difference < found.interval.high


@pytest.mark.parametrize("test", [paired, mann_whitney])
def test_units_change_differences_alone(test):
    a, b = normal(10), normal(10, 0.3, seed=1)
    one, other = test(a, b, make_generator(4), "less"), test(4 * a, 4 * b, make_generator(4), "less")
    assert (other.p, other.effect, other.statistic) == (one.p, one.effect, one.statistic)
    assert other.difference == pytest.approx(4 * one.difference)
    assert other.interval.low == pytest.approx(4 * one.interval.low)


def test_a_contrast_as_columns():
    found = mann_whitney([1.0, 2.0], [3.0], make_generator(0), "less")
    assert found.numbers == {
        "difference": -1.5,
        "low": None,
        "high": None,
        "effect": -1,
        "statistic": 0,
        "p": pytest.approx(1 / 3),
    }
