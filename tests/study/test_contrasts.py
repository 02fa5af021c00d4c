"""Contrasts: the right groups, in the right order, corrected together, ready for a file and a terminal."""

import io
import math
from itertools import combinations

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import mannwhitneyu, wilcoxon
from statsmodels.stats.multitest import multipletests

from pullback.errors import InputError
from pullback.records.csv_records import read_csv, write_csv
from pullback.study.compare import printed
from pullback.study.contrasts import Contrasts, TukeyRange, compared, formatted
from pullback.study.statistics import mann_whitney, paired

DESIGNS = ("BL-N", "SG-NSD", "UW-NSD")
FAMILIES = (
    TukeyRange("contrasts between designs", DESIGNS),
    Contrasts("benefit of transfer", mann_whitney, [(f"{one}, two steps", one) for one in DESIGNS], side="less"),
    Contrasts("benefit of segmentations", mann_whitney, [("SG-NSD", "BL-N")], side="less"),
    Contrasts("the same images", paired, [("UW-NSD", "SG-NSD"), ("SG-NSD", "BL-N")]),
)


@pytest.fixture(scope="module")
def results():
    rng = np.random.default_rng(0)
    names = [*DESIGNS, *(f"{one}, two steps" for one in DESIGNS)]
    return {
        name: [{"pair": f"p{i}", "tre mm": float(v), "dice": 0.5} for i, v in enumerate(rng.normal(20 - 2 * n, 3, 11))]
        for n, name in enumerate(names)
    }


def numbers(rows):
    return np.array([row["tre mm"] for row in rows])


def test_a_family_is_corrected_together_and_by_itself(results):
    records = compared(results, "tre mm", FAMILIES)
    assert [r["family"] for r in records] == [FAMILIES[n].name for n in (0, 0, 0, 1, 1, 1, 2, 3, 3)]
    transfer = [r for r in records if r["family"] == "benefit of transfer"]
    p = [mannwhitneyu(numbers(results[r["a"]]), numbers(results[r["b"]]), alternative="less").pvalue for r in transfer]
    assert [r["p"] for r in transfer] == pytest.approx(p)
    assert [r["p corrected"] for r in transfer] == pytest.approx(multipletests(p, method="fdr_bh")[1])
    alone = next(r for r in records if r["family"] == "benefit of segmentations")
    assert alone["p corrected"] == alone["p"]
    ranges = records[:3]
    assert [(r["a"], r["b"]) for r in ranges] == list(combinations(DESIGNS, 2))
    assert [r["p corrected"] for r in ranges] == [r["p"] for r in ranges]


def test_a_record_says_all_that_was_asked_and_found(results):
    record = compared(results, "tre mm", FAMILIES)[3]
    assert record["a"] == "BL-N, two steps"
    assert (record["side"], record["test"], record["effect size"]) == ("less", "Mann-Whitney U", "Cliff's delta")
    assert (record["measure"], record["n of a"], record["n of b"]) == ("tre mm", 11, 11)
    off = numbers(results["BL-N, two steps"]).mean() - numbers(results["BL-N"]).mean()
    assert record["difference"] == pytest.approx(off)
    assert record["low"] < off < record["high"]


def test_pairs_are_found_by_their_names_and_missing_ones_left_out(results):
    shuffled = {name: rows[::-1] for name, rows in results.items()}
    one, other = dict(results), dict(shuffled)
    one["BL-N"], other["BL-N"] = results["BL-N"][:7], results["BL-N"][:7]
    assert compared(one, "tre mm", FAMILIES) == compared(other, "tre mm", FAMILIES)
    last = compared(one, "tre mm", FAMILIES)[-1]
    assert (last["n of a"], last["n of b"]) == (7, 7)
    off = numbers(results["SG-NSD"])[:7] - numbers(results["BL-N"])[:7]
    assert last["p"] == pytest.approx(wilcoxon(off).pvalue)
    unpaired = compared(one, "tre mm", FAMILIES[2:3])[0]
    assert (unpaired["n of a"], unpaired["n of b"]) == (11, 7)


def test_an_answer_does_not_depend_on_what_else_is_asked(results):
    together = compared(results, "tre mm", FAMILIES)
    assert compared(results, "tre mm", FAMILIES[2:3]) == [together[6]]
    assert compared(results, "tre mm", FAMILIES[2:3], seed=1)[0]["low"] != together[6]["low"]


def test_records_survive_a_file(results, tmp_path):
    records = compared(results, "tre mm", FAMILIES)
    write_csv(records, tmp_path / "tests.csv")
    assert read_csv(tmp_path / "tests.csv") == records


def test_in_words(results):
    records = compared(results, "tre mm", FAMILIES)
    lines = formatted(records)
    assert lines[3]["asked"] == "BL-N, two steps < BL-N"
    assert lines[0]["asked"] == "BL-N ≠ SG-NSD"
    assert lines[3]["n"] == "11"
    console = Console(file=io.StringIO(), width=250)
    console.print(printed("Contrasts", lines, console))
    text = console.file.getvalue()
    for record in records:
        assert f"{record['difference']:+.3g} [{record['low']:+.3g}, {record['high']:+.3g}]" in text
        assert f"{record['p corrected']:.2g}" in text


def test_what_is_equal_is_no_test_and_shown_as_none(results):
    records = compared(results, "dice", FAMILIES)
    assert {record["p"] for record in records} == {record["p corrected"] for record in records} == {None}
    assert {line["p"] for line in formatted(records)} == {"·"}


def test_what_cannot_be_compared_is_named(results):
    two = Contrasts("a question", paired, [("SG-NSD", "elsewhere")])
    with pytest.raises(InputError, match=r"a question, tre mm: no results of 'elsewhere'; there is 'BL-N'"):
        compared(results, "tre mm", [two])
    others = {**results, "elsewhere": [{"pair": "q", "tre mm": 1.0}]}
    with pytest.raises(
        InputError, match=r"a question, tre mm: SG-NSD against elsewhere: .*no pair has a number in both"
    ):
        compared(others, "tre mm", [two])
    with pytest.raises(InputError, match="'SG-NSD' has no 'hd mm'; its rows have pair, tre mm, dice"):
        compared(others, "hd mm", [two])
    twice = {**results, "elsewhere": results["SG-NSD"] * 2}
    with pytest.raises(InputError, match="22 rows for 11 cases; take the mean over seeds first"):
        compared(twice, "tre mm", [two])


def test_missing_numbers_are_as_good_as_missing_rows(results):
    rows = results["BL-N"]
    nan = {**results, "BL-N": [*rows[:7], *({**row, "tre mm": math.nan} for row in rows[7:])]}
    assert compared(nan, "tre mm", FAMILIES) == compared({**results, "BL-N": rows[:7]}, "tre mm", FAMILIES)
