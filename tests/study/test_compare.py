"""Tables and tests against scipy and numpy."""

import csv
import io

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import wilcoxon

from pullback.study.compare import columns, short, summary, table, write_tables


@pytest.fixture
def results():
    rng = np.random.default_rng(0)
    a, b = rng.random(12), rng.random(12) + 0.3
    rows = {
        name: [{"pair": f"p{i}", "dice": float(v), "dice/1": 0.5, "seconds": 0.1} for i, v in enumerate(values)]
        for name, values in (("before", a), ("after", b))
    }
    return rows, a, b


def test_summary_is_numpys_and_scipys(results):
    rows, a, b = results
    record = next(r for r in summary(rows, "before") if r["register"] == "after" and r["measure"] == "dice")
    assert record["mean"] == pytest.approx(b.mean())
    assert record["sd"] == pytest.approx(b.std(ddof=1))
    assert record["difference"] == pytest.approx((b - a).mean())
    assert record["p"] == pytest.approx(wilcoxon(b - a).pvalue)
    assert record["low"] < record["difference"] < record["high"]
    assert -1 <= record["effect"] <= 1
    assert columns(rows) == ["dice", "seconds"]
    before = next(r for r in summary(rows, "before") if r["register"] == "before" and r["measure"] == "dice")
    assert not {"difference", "p"} & set(before)


def test_a_cell_says_how_many_cases_have_the_number_where_not_all_do(results):
    rows, _, _ = results
    rows["after"] = [row if n < 2 else {"pair": row["pair"], "seconds": 0.1} for n, row in enumerate(rows["after"])]
    console = Console(file=io.StringIO(), width=120)
    console.print(table(rows, console))
    assert console.file.getvalue().count("of 12)") == 1
    assert "(2 of 12)" in console.file.getvalue()


def test_a_number_that_is_not_known_of_a_pair_is_in_no_difference(results):
    rows, a, b = results
    less = {"before": [*rows["before"][:5], {**rows["before"][5], "dice": float("nan")}], "after": rows["after"]}
    record = next(r for r in summary(less, "before") if r["register"] == "after" and r["measure"] == "dice")
    assert record["difference"] == pytest.approx((b - a)[:5].mean())
    assert record["p"] == pytest.approx(wilcoxon((b - a)[:5]).pvalue)


def test_differences_are_taken_pair_by_pair_whatever_their_order(results):
    rows, *_ = results
    shuffled = {"before": rows["before"], "after": rows["after"][::-1]}
    assert summary(shuffled, "before") == summary(rows, "before")


def test_equal_registers_have_no_p(results):
    rows, *_ = results
    record = next(r for r in summary({"a": rows["after"], "b": rows["after"]}, "a") if r["register"] == "b")
    assert record["difference"] == 0
    assert record["p"] is None


def test_the_files_hold_every_number(results, tmp_path):
    rows, a, b = results
    write_tables(rows, "before", tmp_path)
    with (tmp_path / "pairs.csv").open() as file:
        read = [float(row["dice"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(read, [*a, *b])
    with (tmp_path / "summary.csv").open() as file:
        assert {row["register"] for row in csv.DictReader(file)} == {"before", "after"}


def test_the_table_shows_means_and_differences(results):
    rows, a, b = results
    console = Console(file=io.StringIO(), width=100)
    console.print(table(rows, console, "before", "title"))
    text = console.file.getvalue()
    assert f"{b.mean():.3f} ± {b.std(ddof=1):.3f}" in text
    assert f"{(b - a).mean():+.2g} " in text


def test_no_number_is_broken_where_the_terminal_is_narrow(results):
    """Registers that do not fit beside each other stand in tables below each other, each once."""
    rows, _, b = results
    many = rows | {f"register {n}": rows["after"] for n in range(4)}
    console = Console(file=io.StringIO(), width=50)
    console.print(table(many, console, "before", "title"))
    text = console.file.getvalue()
    assert text.count(f"{b.mean():.3f} ± {b.std(ddof=1):.3f}") == 5
    assert all(text.count(name) == 1 for name in many if name.startswith("register"))
    assert max(map(len, text.splitlines())) <= 50


def test_rounding_is_not_shown():
    assert (short(4.2e-8, 0.831), short(-1e-15), short(4.2e-8), short(0.004, 0.831)) == ("0", "0", "4.2e-08", "0.004")
