"""Tables of made rows against numpy, scipy and the standard library."""

import math
from functools import partial
from io import StringIO
from statistics import fmean, median, stdev

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from rich.console import Console
from scipy.stats import wilcoxon

from pullback.study.arms import FunctionArm
from pullback.study.contrasts import Contrasts, compared
from pullback.study.plan import run_study
from pullback.study.statistics import paired
from pullback.study.table import Column, Experiment, Table
from pullback.study.tables import by_setting, formatted, over_seeds, records

CASES, SEEDS = tuple(f"p{n}" for n in range(8)), (0, 1, 2)
TRE = Column("TRE", "mm", better="less", against="difference", digits=2)
TIME = Column("time", "min", better="less", against="ratio", key="minutes")
SUCCESS = Column("success", better="more", of="rate")
WORST = Column("worst", "mm", of="max", digits=1, key="tre mm")
MIDDLE = Column("middle", "mm", of="median", digits=1, key="tre mm")


def landmarks(data, seed, about, missing=()):
    """Rows of a simulated register: two cases of each subject."""
    rng = np.random.default_rng([seed, about])
    for n, case in enumerate(CASES):
        error = float(rng.gamma(2.0) + about)
        row = {"case": case, "subject": f"s{n // 2}", "minutes": about + 1.0}
        yield row if case in missing else row | {"tre mm": error, "success": float(error < 2)}


def result_of(tmp_path, seeds=SEEDS, columns=(TRE, TIME, SUCCESS, WORST, MIDDLE), unit="", **missing):
    arms = {
        name: FunctionArm(partial(landmarks, about=n, missing=tuple(missing.get(name, ()))))
        for n, name in enumerate(("one", "other"))
    }
    experiments = {"made": Experiment(arms, "one")}
    (result,) = run_study({"table": experiments}, {}, tmp_path, seeds, {}, Console(file=StringIO()))["table"]
    return result, Table("", "", experiments, columns, unit=unit)


def by_case(result, arm):
    values = {}
    for row in result.rows[arm]:
        if "tre mm" in row:
            values.setdefault(row["case"], []).append(row["tre mm"])
    return {case: fmean(each) for case, each in values.items()}


def test_every_number_is_numpys_scipys_or_the_standard_librarys(tmp_path):
    result, table = result_of(tmp_path)
    known = {(r["arm"], r["measure"]): r for r in records(result, table)}
    one, other = (np.array([*by_case(result, arm).values()]) for arm in ("one", "other"))
    record = known["other", "tre mm"]
    assert record["mean"] == pytest.approx(fmean(other))
    assert record["sd"] == pytest.approx(stdev(other))
    assert record["median"] == pytest.approx(median(other))
    assert record["max"] == pytest.approx(max(other))
    assert (record["cases"], record["missing"], record["seeds"]) == (8, 0, 3)
    assert record["difference"] == pytest.approx((other - one).mean())
    assert record["p"] == pytest.approx(wilcoxon(other - one).pvalue)
    assert record["ratio"] == pytest.approx(other.mean() / one.mean())
    rows = result.rows["other"]
    seeds = [fmean(row["tre mm"] for row in rows if row["seed"] == str(seed)) for seed in SEEDS]
    assert record["sd of seeds"] == pytest.approx(stdev(seeds))
    assert "difference" not in known["one", "tre mm"]


def test_a_table_of_landmarks_minutes_and_successes_is_told_as_its_columns_say(tmp_path):
    result, table = result_of(tmp_path)
    one, other = formatted(pd.DataFrame(records(result, table)), table)
    values = [*by_case(result, "other").values()]
    assert other["TRE mm ↓"].startswith(f"{fmean(values):.2f} ± {stdev(values):.2f} [")
    assert other["worst mm"] == f"{max(values):.1f}"
    assert other["middle mm"] == f"{median(values):.1f}"
    good = 100 * fmean(row["success"] for row in result.rows["other"])
    assert other["success ↑"] == f"{good:.0f} %"
    assert other["Δ time"] == "+100 %"
    assert one["Δ time"] == one["Δ TRE"] == ""
    assert other["Δ TRE"].startswith(f"{fmean(values) - fmean(by_case(result, 'one').values()):+.2f} (p ")
    assert {"Δ success", "Δ worst"}.isdisjoint(other)


@pytest.mark.parametrize(
    ("ratio", "told"),
    [(0.09, "-91 %"), (1.0, "+0 %"), (2.5, "+150 %"), (13.0, "× 13"), (1 / 607, "÷ 607"), (0.0, "-100 %")],
)
def test_ratios_are_told_in_percent_or_as_factors(ratio, told):
    table = Table("", "", {"made": Experiment({}, "one")}, (TIME,))
    known = {"experiment": "made", "measure": "minutes", "cases": 1, "missing": 0, "seeds": 1, "seeded": 0, "mean": 2.0}
    (line,) = formatted(pd.DataFrame([{**known, "arm": "other", "ratio": ratio}]), table)
    assert line["Δ time"] == told


def test_missing_numbers_stay_missing_and_are_counted(tmp_path):
    """They are no zeros, and take part in no difference."""
    result, table = result_of(tmp_path, other=("p1", "p5"))
    record = {(r["arm"], r["measure"]): r for r in records(result, table)}["other", "tre mm"]
    one, other = (by_case(result, arm) for arm in ("one", "other"))
    assert set(other) == set(CASES) - {"p1", "p5"}
    assert (record["cases"], record["missing"]) == (6, 2)
    assert record["mean"] == pytest.approx(fmean(other.values()))
    assert record["difference"] == pytest.approx(fmean(other[case] - one[case] for case in other))
    _, line = formatted(pd.DataFrame(records(result, table)), table)
    assert line["TRE mm ↓"].endswith(" (6 of 8)")
    assert line["time min ↓"] == "2.000 ± 0 [0]"
    result, table = result_of(tmp_path, other=CASES)
    _, line = formatted(pd.DataFrame(records(result, table)), table)
    assert line["TRE mm ↓"] == line["success ↑"] == "·"


def test_subjects_are_compared_where_cases_share_them(tmp_path):
    """Four subjects of two cases each are four numbers, whatever the number of cases."""
    result, table = result_of(tmp_path, unit="subject")
    record = {(r["arm"], r["measure"]): r for r in records(result, table)}["other", "tre mm"]
    one, other = (np.array([*by_case(result, arm).values()]).reshape(4, 2).mean(1) for arm in ("one", "other"))
    assert record["p"] == pytest.approx(wilcoxon(other - one).pvalue)
    assert record["difference"] == pytest.approx((other - one).mean())
    assert record["cases"] == 8
    averaged = {arm: over_seeds(rows) for arm, rows in result.rows.items()}
    (found,) = compared(averaged, "tre mm", [Contrasts("by subject", paired, [("other", "one")])], unit="subject")
    assert (found["n of a"], found["p"]) == (4, pytest.approx(record["p"]))


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.one_of(st.none(), st.floats(-1e3, 1e3))),
        min_size=1,
        unique_by=lambda row: row[:2],
    )
)
def test_the_mean_over_seeds_is_of_what_is_known(rows):
    """Case by case, whatever the order of the rows; a case without any number keeps none."""
    made = [{"case": case, "seed": str(seed)} | ({} if x is None else {"x": x}) for case, seed, x in rows]
    expected = {
        case: [x for other, _, x in rows if other == case and x is not None] for case in {case for case, *_ in rows}
    }
    for order in (made, made[::-1]):
        found = {row["case"]: row.get("x") for row in over_seeds(order)}
        assert found.keys() == expected.keys()
        for case, values in expected.items():
            assert found[case] == (pytest.approx(fmean(values), abs=1e-9) if values else None)


def test_what_a_figure_was_measured_for_has_means_and_deviations_of_seeds():
    rows = [{"experiment": "made", "arm": "a", "steps": n, "tre mm": n + seed} for n in (0, 5) for seed in (0.0, 1.0)]
    lines = by_setting(pd.DataFrame(rows), ("arm", "steps"), (TRE, Column("absent")))
    assert [line[""] for line in lines] == ["a, steps 0", "a, steps 5"]
    assert [line["TRE mm ↓"] for line in lines] == [f"{n + 0.5:.2f} [{stdev((0, 1)):.2f}]" for n in (0, 5)]
    assert {line["absent"] for line in lines} == {"·"}


def test_a_number_that_is_nan_is_as_good_as_none():
    rows = [{"case": "a", "seed": "0", "x": math.nan}, {"case": "a", "seed": "1", "x": 2.0}]
    assert [row["x"] for row in over_seeds(rows)] == [2.0]
