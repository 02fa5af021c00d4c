"""Linear models by statsmodels, and the table of what explains the scores."""

import numpy as np
import pytest
import statsmodels.api as sm

from pullback.errors import InputError
from pullback.study.regression import ALL, code, explanations, regression


@pytest.mark.parametrize("count", [1, 3])
def test_a_fit_is_that_of_statsmodels(count):
    rng = np.random.default_rng(count)
    x = rng.normal(size=(40, count)) * [1.0, 1e4, 1e-3][:count]
    y = x @ rng.normal(size=count) / 1e3 + rng.normal(size=40)
    ours, theirs = regression(y, *x.T), sm.OLS(y, sm.add_constant(x)).fit()
    assert ours.r2 == pytest.approx(theirs.rsquared, abs=1e-10)
    assert ours.p == pytest.approx(theirs.f_pvalue, rel=1e-10)
    np.testing.assert_allclose(ours.slopes, theirs.params[1:], rtol=1e-8)
    if count == 1:
        assert ours.p == pytest.approx(theirs.pvalues[1], rel=1e-10)
    y[3], x[5, 0] = np.nan, np.nan
    assert regression(y, *x.T).n == 38


def test_what_cannot_be_told_is_not():
    x = np.arange(5.0)
    assert regression(x, np.ones(5)) is None
    assert regression(np.ones(5), x) is None
    assert regression(x[:2], x[:2]) is None
    assert regression(x**2, x, 2 * x) is None
    assert regression(x, 3 - 2 * x).r2 == pytest.approx(1)
    for wrong in ((x,), (x, x[:3]), (x, x * np.inf)):
        with np.errstate(all="ignore"), pytest.raises(InputError, match="regression"):
            regression(*wrong)


def test_the_table():
    """Of two dimensions the first is age, and the second the site; the share of the whole is that of the dimension."""
    rng = np.random.default_rng(0)
    age, site = rng.uniform(20, 80, 60), rng.integers(0, 3, 60)
    scores = np.stack([2 * age, 1.0 * (site == 1)], 1)
    people = {
        "age": [*age],
        "site": [f"site {n}" for n in site],
        "name": [f"a{n}" for n in range(60)],
        "same": [1.0] * 60,
    }
    rows = explanations({"structure": scores}, {"structure": (0.6, 0.2)}, people)
    assert {row["variable"] for row in rows} == {"age", "site", ALL}
    told = {(row["variable"], row["dimension"]): row for row in rows}
    assert told["age", 1]["r2"] == pytest.approx(1)
    assert told["age", 1]["slope"] == pytest.approx(2)
    assert "slope" not in told["site", 2]
    assert told["site", 2]["r2"] == pytest.approx(1)
    for name in ("age", "site", ALL):
        whole = 0.6 * told[name, 1]["r2"] + 0.2 * told[name, 2]["r2"]
        assert told[name, 1]["whole"] == pytest.approx(whole)
    assert told[ALL, 1]["whole"] == pytest.approx(0.8)
    assert all(row["corrected"] >= row["p"] for row in rows)
    people["age"][0] = None
    rows = explanations({"structure": scores}, {"structure": (0.6, 0.2)}, people)
    assert {row["variable"]: row["n"] for row in rows} == {"age": 59, "site": 60, ALL: 59}


def test_stars():
    assert [code(p) for p in (0.0009, 0.001, 0.01, 0.049, 0.05)] == ["***", "**", "*", "*", ""]
