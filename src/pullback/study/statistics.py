"""Tests, effect sizes and confidence intervals of groups of numbers, all by scipy.

A group is a row of numbers, in which NaN stands where one is missing: it is left out. Intervals are of 95 % and
have two ends, whichever side a test asks about.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import torch
from scipy.stats import bootstrap, false_discovery_control, mannwhitneyu, rankdata, tukey_hsd, wilcoxon

from pullback.errors import InputError

LEVEL = 0.95  # of confidence
RESAMPLES = 9999  # scipy's own; the ends of an interval then err by 1 % of its half
AT_ONCE = 2**20  # numbers drawn, so that large groups fit in memory

Values = Sequence[float] | np.ndarray
Side = Literal["two-sided", "less", "greater"]
"""What is asked: whether a and b differ, whether a is less than b, or whether it is greater."""


@dataclass(frozen=True)
class Interval:
    """An interval from `low` to `high`."""

    low: float
    high: float


@dataclass(frozen=True)
class Contrast:
    """The answer of a test about group a against group b.

    Attributes:
        test: its name.
        side: what was asked of a.
        n: how many numbers of a and of b it has seen.
        difference: the mean of a less the mean of b.
        interval: of the difference; None where a group has fewer than two numbers.
        scale: the name of the effect size.
        effect: the effect size, above 0 where a is greater; None where nothing varies but the means.
        statistic: of the test; None where nothing varies within the groups of a range test.
        p: of this test alone, and of a range test for all its pairs of groups; None where nothing varies, so that there
            is nothing to test.
    """

    test: str
    side: Side
    n: tuple[int, int]
    difference: float
    interval: Interval | None
    scale: str
    effect: float | None
    statistic: float | None
    p: float | None

    @property
    def numbers(self) -> dict[str, float | None]:
        """The numbers as columns of a table; `low` and `high` are the ends of the interval."""
        low, high = (self.interval.low, self.interval.high) if self.interval else (None, None)
        known = {"difference": self.difference, "low": low, "high": high, "effect": self.effect}
        return known | {"statistic": self.statistic, "p": self.p}


def paired(a: Values, b: Values, generator: torch.Generator, side: Side = "two-sided") -> Contrast:
    """Test numbers that belong together, such as pairs seen by two registers, by Wilcoxon's signed-rank test.

    The statistic is the sum of the ranks of the positive differences a − b; zeros are left out. The effect size is the
    matched-pairs rank-biserial correlation (Kerby 2014), the share of ranks in favour of a less that in favour of b,
    −1 … 1. The interval is that of `mean_interval`, of the differences.

    Raises:
        InputError: the groups differ in length, or nothing is known on both sides.
    """
    first, second = _finite(a), _finite(b)
    if first.shape != second.shape:
        raise InputError(
            f"a test of pairs: {first.size} numbers against {second.size}; give both groups a number for each pair, "
            "NaN where it is missing"
        )
    if np.isnan(first - second).all():
        raise InputError("a test of pairs: no pair has a number in both groups; are they of the same images?")
    off = _known(first - second)
    left = off[off != 0]
    ranks = rankdata(np.abs(left))
    positive, total = float(ranks[left > 0].sum()), float(ranks.sum())
    return Contrast(
        test="Wilcoxon signed-rank",
        side=side,
        n=(len(off), len(off)),
        difference=_mean(off),
        interval=_interval((off,), generator),
        scale="rank-biserial correlation",
        effect=2 * positive / total - 1 if total else 0.0,
        statistic=positive,
        p=float(wilcoxon(off, alternative=side).pvalue) if total else None,
    )


def mann_whitney(a: Values, b: Values, generator: torch.Generator, side: Side) -> Contrast:
    """Test numbers that do not belong together by Mann and Whitney's U. `less`: that a is less than b.

    The statistic is U of a: in how many of all pairs of a number of a with one of b the former is greater, ties by
    half. The effect size is Cliff's delta (Cliff 1993), which is also the rank-biserial correlation: the share of these
    pairs in which a is greater, less that in which b is, −1 … 1. The interval is of the difference of the means, by
    the bootstrap of `mean_interval` in either group.

    Raises:
        InputError: nothing is known of a group.
    """
    first, second = _known(a), _known(b)
    u, p = mannwhitneyu(first, second, alternative=side)
    return Contrast(
        test="Mann-Whitney U",
        side=side,
        n=(len(first), len(second)),
        difference=_mean(first) - _mean(second),
        interval=_interval((first, second), generator),
        scale="Cliff's delta",
        effect=float(2 * u / (len(first) * len(second)) - 1),
        statistic=float(u),
        p=float(p) if np.ptp(np.concatenate([first, second])) > 0 else None,
    )


def tukey(groups: Mapping[str, Values]) -> dict[tuple[str, str], Contrast]:
    """Test every two of several groups, in their order, by Tukey's range.

    Where they differ in size it is the Tukey–Kramer test. Its p and intervals hold for all pairs of groups at once:
    they need no further correction. The statistic is the studentised range q: √2 times the difference, whatever its
    sign, over its standard error. The effect size is Hedges' g (Hedges 1981) of the two groups, with his approximate
    factor for small ones. By scipy, whose p is computed: in the tables of statsmodels 0.12, which DDMR used, it ends at
    0.001 and at 0.9.

    Raises:
        InputError: fewer than two groups, or a group with fewer than two numbers.
    """
    values = {name: _known(group) for name, group in groups.items()}
    if len(values) < 2 or min(map(len, values.values())) < 2:
        raise InputError(
            "Tukey's range test: two groups or more, each of two numbers or more, expected; got "
            + (", ".join(f"{len(group)} of {name}" for name, group in values.items()) or "none")
        )
    variance = _within(*values.values())
    found = tukey_hsd(*values.values()) if variance > 0 else None
    bounds = found and found.confidence_interval(LEVEL)
    contrasts = {}
    for (i, (one, a)), (j, (other, b)) in combinations(enumerate(values.items()), 2):
        difference, each = _mean(a) - _mean(b), _within(a, b)
        low, high = (bounds.low[i, j], bounds.high[i, j]) if bounds else (difference, difference)
        small = 1 - 3 / (4 * (len(a) + len(b)) - 9)
        contrasts[one, other] = Contrast(
            test="Tukey's range",
            side="two-sided",
            n=(len(a), len(b)),
            difference=difference,
            interval=Interval(float(low), float(high)),
            scale="Hedges' g",
            effect=small * difference / math.sqrt(each) if each > 0 else (None if difference else 0.0),
            statistic=abs(difference) / math.sqrt(variance * (1 / len(a) + 1 / len(b)) / 2) if found else None,
            p=float(found.pvalue[i, j]) if found else None,
        )
    return contrasts


def benjamini_hochberg(p: Sequence[float | None]) -> list[float | None]:
    """Correct the p of tests that answer one question (Benjamini and Hochberg 1995).

    Of those that are then below 0.05, no more than 5 % are expected to be false discoveries. None is no test and stays.
    """
    tested = [value for value in p if value is not None]
    corrected = iter(false_discovery_control(tested, method="bh").tolist() if tested else [])
    return [None if value is None else next(corrected) for value in p]


def mean_interval(values: Values, generator: torch.Generator) -> Interval | None:
    """Return the interval of the mean by the bootstrap, bias-corrected and accelerated (Efron 1987).

    None for a single number; the number itself where all are equal.

    Raises:
        InputError: there are no numbers.
    """
    return _interval((_known(values),), generator)


def _known(values: Values) -> np.ndarray:
    """Return the numbers that are not missing, sorted, so that no answer depends on their order.

    Raises:
        InputError: an infinite number, or nothing at all.
    """
    numbers = _finite(values)
    numbers = numbers[~np.isnan(numbers)]
    if not len(numbers):
        raise InputError("a group without numbers; leave it out, or measure it first")
    return np.sort(numbers)


def _finite(values: Values) -> np.ndarray:
    numbers = np.asarray(values, dtype=np.float64)
    if np.isinf(numbers).any():
        raise InputError("a group with an infinite number; put NaN where a number is not known")
    return numbers


def _mean(group: np.ndarray) -> float:
    """Return the mean; that of equal numbers is each of them, without rounding."""
    return float(group.mean() if np.ptp(group) > 0 else group[0])


def _within(*groups: np.ndarray) -> float:
    """Return the variance within the groups, pooled; 0, without rounding, where each is constant."""
    if all(np.ptp(group) == 0 for group in groups):
        return 0.0
    return float(sum(len(group) * group.var() for group in groups) / (sum(map(len, groups)) - len(groups)))


def _interval(groups: tuple[np.ndarray, ...], generator: torch.Generator) -> Interval | None:
    """Return the interval of the mean of one group, or of the mean of the first less that of the second."""
    if min(map(len, groups)) < 2:
        return None
    if all(np.ptp(group) == 0 for group in groups):
        value = _mean(groups[0]) - sum(map(_mean, groups[1:]))
        return Interval(value, value)
    drawn = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    found = bootstrap(
        groups,
        _difference,
        n_resamples=RESAMPLES,
        batch=max(1, AT_ONCE // max(map(len, groups))),
        vectorized=True,
        confidence_level=LEVEL,
        method="BCa",
        random_state=drawn,
    ).confidence_interval
    return Interval(float(found.low), float(found.high))


def _difference(first: np.ndarray, *second: np.ndarray, axis: int = -1) -> np.ndarray:
    return first.mean(axis) - sum(group.mean(axis) for group in second)
