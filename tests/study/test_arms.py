"""Studies without any training: whatever yields rows is an arm, each piece of work is done once, and a page is safe."""

import importlib
import json
import os
from collections import Counter
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import MappingProxyType

import pytest
from rich.console import Console

from pullback.alignment import Alignment
from pullback.data import BrainPhantom
from pullback.errors import InputError
from pullback.metrics import Dice
from pullback.records.ledger import read_ledger
from pullback.space import Affine
from pullback.study.arms import Arm, FunctionArm, RegisterArm
from pullback.study.evaluate import unmoved
from pullback.study.page import write_study
from pullback.study.plan import chosen, run_study
from pullback.study.table import Column, Experiment, Study, Table

CALLS: list[tuple[str, int]] = []
COLUMNS = (Column("x"),)


def simulated(data, seed):
    """Two rows; of the third seed the process is killed, as long as a file says so."""
    CALLS.append(("simulated", seed))
    for case in "ab":
        if (data and (data / "killed").is_file()) and seed == 2:
            raise KeyboardInterrupt
        yield {"case": case, "x": float(seed + ord(case))}


def constant(data, seed):
    CALLS.append(("constant", seed))
    yield from ({"case": case, "x": 1.0} for case in "ab")


def study_of(experiments, **words):
    table = Table(words.get("title", ""), words.get("claim", ""), experiments, COLUMNS)
    return Study(words.get("about", ""), {"table": table})


def done(study, out, seeds=(0, 1, 2)):
    quiet = Console(file=StringIO())
    results = run_study(chosen(study, (), {}), {}, out, seeds, {}, quiet)
    return results["table"], write_study(study, results, out, quiet)


@pytest.fixture(autouse=True)
def _forget():
    CALLS.clear()


@dataclass(frozen=True)
class Folder:
    """Data that is a folder, by a word that is not that of images."""

    where: str

    def __truediv__(self, name):
        return Path(self.where) / name


def arms():
    return {"simulated": FunctionArm(simulated), "constant": FunctionArm(constant, seeded=False)}


def test_a_study_needs_neither_training_nor_images(tmp_path):
    (result,), tables = done(study_of({"made": Experiment(arms())}), tmp_path)
    assert [row["x"] for row in result.rows["simulated"]] == [97, 98, 98, 99, 99, 100]
    assert {row["seed"] for row in result.rows["constant"]} == {""}
    assert [line["seeds"] for line in tables["table"]] == ["3", ""]
    assert CALLS == [("simulated", 0), ("constant", 0), ("simulated", 1), ("simulated", 2)]
    runs = json.loads((tmp_path / "study.json").read_text())["runs"]
    assert {*runs} == {"table/made/simulated", "table/made/constant"}
    assert all((tmp_path / folder / "test.csv").is_file() for each in runs.values() for folder in each.values())


def test_killed_and_called_again_it_is_as_if_it_had_not_been(tmp_path):
    """To the byte; and what was done is not done again."""
    data = Folder(str(tmp_path))
    study = study_of({"made": Experiment(arms(), data=data)})
    (tmp_path / "killed").touch()
    with pytest.raises(KeyboardInterrupt):
        done(study, tmp_path / "stopped")
    (tmp_path / "killed").unlink()
    before = [*CALLS]
    done(study, tmp_path / "stopped")
    assert CALLS[len(before) :] == [("simulated", 2)]
    done(study, tmp_path / "whole")
    files = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.csv")]
    assert len(files) == 5
    for file in files:
        assert (tmp_path / "stopped" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_an_arm_of_two_tables_is_done_once_whatever_it_is_called(tmp_path):
    one = Experiment({"here": FunctionArm(simulated)})
    other = Experiment({"there": FunctionArm(simulated), "else": FunctionArm(constant)})
    results, _ = done(study_of({"made/one": one, "made/other": other}), tmp_path, (0,))
    assert CALLS == [("simulated", 0), ("constant", 0)]
    assert results[0].rows["here"] == results[1].rows["there"]


def test_folds_are_told_together(tmp_path):
    """Their cases are pooled: two folds of two cases are four."""

    folds = ({"data.where": "one"}, {"data.where": "other"})
    experiment = Experiment({"only": FunctionArm(by_folder)}, data=Folder(""), folds=folds)
    (result,), tables = done(study_of({"made": experiment}), tmp_path, (0, 1))
    assert {row["case"] for row in result.rows["only"]} == {"one a", "one b", "other a", "other b"}
    assert (tables["table"][0]["cases"], tables["table"][0]["seeds"]) == ("4", "2")
    runs = json.loads((tmp_path / "study.json").read_text())["runs"]["table/made/only"]
    assert len({*runs.values()}) == 4


def by_folder(data, seed):
    yield from ({"case": f"{data.where} {case}", "x": 1.0} for case in "ab")


def test_whatever_an_author_writes_is_escaped(tmp_path):
    evil = "<b onclick=\"alert('&')\">"
    experiments = {"made": Experiment({evil: FunctionArm(simulated)})}
    done(study_of(experiments, title=evil, claim=evil, about=evil), tmp_path, (0,))
    page = (tmp_path / "index.html").read_text()
    assert "<b " not in page
    assert page.count("&lt;b onclick=&#34;alert(&#39;&amp;&#39;)&#34;&gt;") == 5


def test_a_register_is_measured_by_the_experiments_own_metrics(tmp_path):
    data = BrainPhantom(spacing=14.0, train_subjects=2, validation_subjects=2, test_subjects=2)
    arms: dict[str, Arm] = {"initial": RegisterArm(unmoved)}
    (result,), _ = done(study_of({"phantom": Experiment(arms, "", data, (Dice(),))}), tmp_path, (0, 1))
    pairs = [*data.test]
    still = [Dice()(Alignment(pair, Affine.identity(3)))["dice"] for pair in pairs]
    assert [row["dice"] for row in result.rows["initial"]] == pytest.approx(still)
    assert [row["subject"] for row in result.rows["initial"]] == [pair.name.split(" ")[0] for pair in pairs]


def failing(fixed, moving):
    raise InputError("it takes none")


def test_an_arm_that_cannot_take_the_data_is_told_and_has_no_line(tmp_path):
    data = BrainPhantom(spacing=14.0, train_subjects=2, validation_subjects=2, test_subjects=2)
    experiment = Experiment({"initial": RegisterArm(unmoved), "failing": RegisterArm(failing)}, "", data, (Dice(),))
    console = Console(record=True, file=StringIO(), width=200)
    (result,) = run_study({"table": {"phantom": experiment}}, {}, tmp_path, (0,), {}, console)["table"]
    assert "table, phantom, failing: no rows: it takes none" in console.export_text()
    assert [*result.rows] == ["initial"]


def test_settings_of_the_data_are_those_of_all_arms(tmp_path):
    data = BrainPhantom(spacing=14.0, train_subjects=2, validation_subjects=2, test_subjects=2)
    experiment = {"phantom": Experiment({"initial": RegisterArm(unmoved)}, "", data, (Dice(),))}
    for settings, pairs in ((MappingProxyType({}), 2), ({"data.test_subjects": "3"}, 6)):
        (result,) = run_study({"table": experiment}, {}, tmp_path, (0,), settings, Console(quiet=True))["table"]
        assert len(result.rows["initial"]) == pairs


MADE = """
from pathlib import Path
import os, time

def rows(data, seed):
    Path(__file__).with_name(f"seed-{seed}.pid").write_text(str(os.getpid()))
    if seed == 2:
        raise FloatingPointError("the loss is not finite")
    return [{"case": "a", "dice": float(seed)}]
"""


def test_several_at_once_are_each_made_once_in_processes_of_their_own(tmp_path, monkeypatch):
    (tmp_path / "made_rows.py").write_text(MADE)
    monkeypatch.syspath_prepend(tmp_path)
    arm = FunctionArm(importlib.import_module("made_rows").rows)
    wanted, out = {"table": {"made": Experiment({"one": arm})}}, tmp_path / "out"
    with pytest.raises(FloatingPointError, match="1 of 4 runs are lost, the others done"):
        run_study(wanted, {}, out, (0, 1, 2, 3), {}, Console(quiet=True), workers=2)
    processes = {path.name: int(path.read_text()) for path in tmp_path.glob("seed-*.pid")}
    assert len(processes) == 4
    assert os.getpid() not in processes.values()
    assert Counter(entry.status for entry in read_ledger(out).values()) == {"done": 3, "failed": 1}
    (result,) = run_study(wanted, {}, out, (0, 1, 3), {}, Console(quiet=True), workers=2)["table"]
    assert [row["dice"] for row in result.rows["one"]] == [0.0, 1.0, 3.0]
    assert {path.name: int(path.read_text()) for path in tmp_path.glob("seed-*.pid")} == processes, "nothing again"
