"""A study: every run once, gone on with when stopped, and told in tables that the runs' own files bear out."""

import json
import shutil
import sys
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from statistics import fmean, stdev
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from scipy.stats import mannwhitneyu, wilcoxon

from pullback import cli
from pullback.alignment import Alignment
from pullback.errors import InputError
from pullback.files import write
from pullback.methods.pair.convex_adam import ConvexAdam
from pullback.methods.pair.ddmr import Transferred
from pullback.methods.pair.feature_registration import Refinement
from pullback.metrics import Dice, Folding, SDLogJ
from pullback.recipes import find as find_recipe
from pullback.recipes.unsupervised import ENERGY
from pullback.records.csv_records import read_csv, write_csv
from pullback.solvers import Descend, FeatureDescent
from pullback.space import Grid, Image, Labels
from pullback.studies import find, names
from pullback.study.analyses import (
    APART,
    _direction,
    by_distance,
    by_rounds,
    by_validation,
    descended,
    landscape,
    refined,
)
from pullback.study.arms import FunctionArm, RegisterArm, Source, TrainedArm, Trial, Unit
from pullback.study.compare import printed, short
from pullback.study.contrasts import Contrasts
from pullback.study.evaluate import unmoved
from pullback.study.figures import _logged, boxes, by_number, contours, curves, distances, settings, traded
from pullback.study.page import write_study
from pullback.study.plan import chosen, planned, run_study
from pullback.study.recipe import changed
from pullback.study.result import Result, network_of, recipe_of
from pullback.study.run import run
from pullback.study.statistics import mann_whitney
from pullback.study.table import Column, Experiment, Figure, Study, Table
from pullback.study.tables import by_setting, formatted, records

SYNTHETIC = "pullback.data.synthesis.Synthetic"

TINY = {
    "data.spacing": "14",
    "data.train_subjects": "2",
    "data.validation_subjects": "2",
    "data.test_subjects": "3",
    "network.encoder": "[4, 4]",
    "network.decoder": "[4, 4, 4, 4]",
    "training.updates": "4",
    "training.lr": "1e-2",
    "training.validate_every": "2",
}
DICE, FOLDING, SDLOGJ = Column("Dice", against="difference"), Column("folding", "%", against="ratio"), Column("SDlogJ")
COLUMNS, METRICS = (DICE, FOLDING, SDLOGJ), (Dice(), Folding(), SDLogJ())
PARTS = ("table1/phantom/voxelmorph", "steps/phantom/voxelmorph", "self-training/phantom/voxelmorph")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Three parts with two seeds, by the command; and their results."""
    out = tmp_path_factory.mktemp("studies") / "ofg"
    settings = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
    words = ["pullback", "study", "ofg", *PARTS, "-o", str(out), "--seed", "0", "--seed", "1", *settings, "--json"]
    before, sys.argv = sys.argv, words
    try:
        with pytest.raises(SystemExit, match="0"):
            cli.main()
    finally:
        sys.argv = before
    return out


@pytest.fixture(scope="module")
def results(done):
    return again(done)


def again(out):
    study = find("ofg")
    return run_study(chosen(study, PARTS, {}), {}, out, (0, 1), TINY, Console(quiet=True))


@pytest.mark.slow
def test_what_it_leaves(done):
    assert {p.name for p in done.iterdir()} >= {
        "index.html",
        "table1.csv",
        "steps.csv",
        "figures",
        "runs",
        "study.json",
    }
    svg = (done / "figures" / "steps-phantom-voxelmorph-steps.svg").read_text()
    assert "<svg" in svg
    assert "#ffffff" not in svg.split("</defs>")[0]
    fields = (done / "figures" / "table1-phantom-voxelmorph-fields.svg").read_text()
    assert fields.count("<image") == 2 + 2 * 2 + 1  # fixed and moving; moved and change of volume by arm; its scale
    page = (done / "index.html").read_text()
    assert page.count("<h2>") == 3
    for source in [part.split('"')[0] for part in page.split('src="')[1:]]:
        assert (done / source).is_file()


@pytest.mark.slow
def test_a_run_in_two_parts_is_made_once(done):
    runs = json.loads((done / "study.json").read_text())["runs"]
    assert runs["table1/phantom/voxelmorph/guided"] == runs["steps/phantom/voxelmorph/guided"]
    folders = {folder for by_seed in runs.values() for folder in by_seed.values()}
    assert len([folder for folder in folders if "voxelmorph" in folder]) == 2 * (2 + 4 + 2)
    assert all(any((done / folder).glob("test*.csv")) for folder in folders if "voxelmorph" in folder)


@pytest.mark.slow
def test_called_again_it_trains_nothing_and_goes_on_where_something_is_missing(done, results):
    unit = results["steps"][0].runs["5 steps"][1]
    folder = unit.folder
    kept = {p: p.stat().st_mtime_ns for p in done.glob("runs/*/*/*/last.safetensors")}
    rows = unit.path.read_text()
    unit.path.unlink()
    again(done)
    assert [row["dice"] for row in unit.rows()] == [
        float(line.split(",")[rows.splitlines()[0].split(",").index("dice")]) for line in rows.splitlines()[1:]
    ]
    assert kept == {p: p.stat().st_mtime_ns for p in kept if folder not in p.parents} | {
        p: p.stat().st_mtime_ns for p in kept if folder in p.parents
    }


@pytest.mark.slow
def test_the_table_is_what_the_runs_say(results):
    (result,) = results["table1"]
    dice = {
        arm: np.array([[row["dice"] for row in unit.rows()] for unit in units]) for arm, units in result.runs.items()
    }
    assert dice["guided"].shape == (2, 6)
    table = Table("", "", {result.name: Experiment({}, result.baseline)}, COLUMNS)
    known = {(r["arm"], r["measure"]): r for r in records(result, table)}
    record = known["guided", "dice"]
    assert record["mean"] == pytest.approx(dice["guided"].mean(), abs=1e-12)
    assert record["sd of seeds"] == pytest.approx(dice["guided"].mean(1).std(ddof=1), abs=1e-12)
    off = dice["guided"].mean(0) - dice["unsupervised"].mean(0)
    assert record["difference"] == pytest.approx(off.mean(), abs=1e-12)
    assert record["p"] == (None if not off.any() else pytest.approx(wilcoxon(off).pvalue))
    line = {row[""]: row for row in formatted(pd.DataFrame(records(result, table)), table)}["guided"]
    over_pairs, over_seeds = dice["guided"].mean(0).std(ddof=1), dice["guided"].mean(1).std(ddof=1)
    assert line["Dice"] == f"{dice['guided'].mean():.3f} ± {over_pairs:.3f} [{short(over_seeds)}]"
    assert (line["updates"], line["seeds"]) == ("4", "2")


def test_the_log_of_a_run_in_two_halves_is_one(tmp_path):
    write_csv([{"update": 2, "dice": 0.1}, {"update": 4, "dice": 0.2}], tmp_path / "first" / "validation.csv")
    write_csv([{"update": 2, "dice": 0.3}, {"update": 4, "loss": 1.0}], tmp_path / "validation.csv")
    assert _logged(tmp_path, "validation.csv", "dice") == ([2, 4, 6], [0.1, 0.2, 0.3])
    assert _logged(tmp_path / "first", "validation.csv", "dice") == ([2, 4], [0.1, 0.2])


@pytest.mark.slow
def test_the_student_was_taught_by_the_unsupervised_run_of_its_seed(results):
    (result,) = results["self-training"]
    for seed in (0, 1):
        teacher = recipe_of(result.runs["self-training"][seed]).supervision.teacher.folder
        assert teacher == str(result.runs["unsupervised"][seed].folder)


@pytest.mark.slow
def test_refinement_begins_with_the_networks_answer(results):
    (result,) = results["table1"]
    rows = refined(result, ENERGY, METRICS, (0, 3))
    assert len(rows) == 2 * 2 * 2
    for row in rows:
        if row["steps"] == 0:
            tested = [float(r["dice"]) for r in result.rows[row["arm"]] if r["seed"] == str(row["seed"])]
            assert row["dice"] == pytest.approx(np.mean(tested), abs=1e-9)


@pytest.mark.slow
def test_the_optimiser_lowers_the_energy_from_either_start(results):
    (result,) = results["table1"]
    rows = descended(result, ENERGY, Descend(10, 0.1), METRICS, steps=6, every=3, pairs=2)
    for start in ("random network", "random parameters"):
        energies = [row["energy"] for row in rows if row["start"] == start]
        assert len(energies) == 3
        assert energies[0] > energies[1] > energies[2]


@pytest.mark.slow
def test_the_landscape_has_the_network_in_its_middle(results):
    (result,) = results["table1"]
    rows = result.measured("landscape", lambda one: landscape(one, ENERGY, size=3, pairs=1))
    network = network_of(result.runs["guided"][0]).eval()
    pair = next(iter(result.recipe.data.validation))
    with torch.no_grad():
        energy = float(ENERGY(Alignment(pair, network(pair.fixed, pair.moving).transform)))
    middle = next(r for r in rows if r["arm"] == "guided" and r["first"] == r["second"] == 0)
    assert middle["energy"] == pytest.approx(energy, rel=1e-6)
    assert rows == result.measured("landscape", lambda one: pytest.fail("it is kept, and not measured twice"))


@pytest.mark.parametrize(
    ("asked", "roots", "says"),
    [
        (("tabel1",), {}, "did you mean 'table1'"),
        (("steps/phantm",), {}, "did you mean 'steps/phantom'"),
        ((), {"brain": "x"}, "the study has data called"),
        (("table1/brains",), {}, "--data brains=DIR"),
        ((), {"phantom": "x"}, "made, not read"),
    ],
)
def test_what_is_not_there(asked, roots, says):
    with pytest.raises(InputError, match=says):
        chosen(find("ofg"), asked, roots)


def test_no_such_study():
    with pytest.raises(InputError, match="did you mean 'ofg'"):
        find("ofgg")


def test_every_table_has_its_arms():
    """None without its baseline, and no two arms of one experiment alike."""
    for name in names():
        for table in find(name).tables.values():
            for experiment in table.experiments.values():
                assert experiment.compared_with in experiment.arms
                assert len({str(arm) for arm in experiment.arms.values()}) == len(experiment.arms)


@pytest.mark.slow
def test_the_page_keeps_what_earlier_calls_made(done, results):
    write_study(find("ofg"), {"steps": results["steps"]}, done, Console(quiet=True))
    assert (done / "index.html").read_text().count("<h2>") == 3


@pytest.mark.slow
def test_a_table_keeps_what_earlier_calls_measured_of_other_images(done, tmp_path):
    """In the order of the part, not of the calls; what is measured again stands once."""
    out = shutil.copytree(done, tmp_path / "studies")
    (out / "study.json").unlink()
    (one,) = again(out)["table1"]
    other = replace(one, name="another/voxelmorph")
    experiments = {each.name: Experiment(dict.fromkeys(one.units), one.baseline) for each in (other, one)}
    study = Study("a test", {"table": Table("", "", experiments, COLUMNS)})
    for called in (one, other, one):
        tables = write_study(study, {"table": [called]}, out, Console(quiet=True))
    lines = [(line["experiment"], line[""]) for line in tables["table"]]
    assert "ConvexAdam" in one.units.keys() - one.rows.keys(), "the images are too small for it"
    assert lines == [(name.replace("/", ", "), arm) for name in (other.name, one.name) for arm in one.rows]
    runs = json.loads((out / "study.json").read_text())["runs"]
    assert set(runs) == {f"table/{each.name}/{arm}" for each in (one, other) for arm in one.units}


@pytest.mark.slow
def test_what_a_figure_was_measured_for_is_a_table_too(done, tmp_path):
    """Refinement by no steps is what the test pairs had; the seeds' deviation stands beside their mean."""
    out = shutil.copytree(done, tmp_path / "studies")
    (one,) = again(out)["table1"]
    draw = partial(by_number, columns=(DICE, FOLDING), number="steps", label="steps")
    measured = Figure(draw, partial(refined, energy=ENERGY, metrics=METRICS, steps=(0, 1)), ("arm", "steps"))
    experiment = Experiment(dict.fromkeys(one.units), one.baseline)
    study = Study("a test", {"table": Table("", "", {one.name: experiment}, COLUMNS, {"further": measured})})
    tables = write_study(study, {"table": [one]}, out, Console(quiet=True))
    lines = {line[""]: line for line in tables["table-further"]}
    assert list(lines) == [f"{arm}, steps {n}" for arm in one.runs for n in (0, 1)]
    for arm, units in one.runs.items():
        by_seed = [fmean(float(row["dice"]) for row in unit.rows()) for unit in units]
        assert lines[f"{arm}, steps 0"]["Dice"] == f"{short(fmean(by_seed))} [{short(stdev(by_seed))}]"
        assert lines[f"{arm}, steps 0"] != lines[f"{arm}, steps 1"]
    assert "further" in (out / "index.html").read_text()
    assert {row["experiment"] for row in read_csv(out / "table-further.csv")} == {one.name}


def simulated(data, seed, lost=""):
    """Rows of a simulation, for the tests below."""
    return [{"case": case, "dice": 0.5} | ({} if lost else {"centroid mm": float(n)}) for n, case in enumerate("pqr")]


def test_a_family_that_lacks_numbers_is_left_out_and_the_rest_is_written(tmp_path):
    """With a word; no older answer to its question stays beside the new table."""
    families = [Contrasts(f"{one} and {two}", mann_whitney, [(one, two)]) for one, two in ("ab", "ac")]

    def tested(lost):
        arms = {arm: FunctionArm(partial(simulated, lost=arm if arm in lost else "")) for arm in "abc"}
        experiments = {"made/numbers": Experiment(arms)}
        table = Table("", "", experiments, (DICE,), tests=families, tested="centroid mm")
        told = Console(record=True, file=StringIO(), width=200)
        results = run_study({"table": experiments}, {}, tmp_path, (0,), {}, told)
        tables = write_study(Study("", {"table": table}), results, tmp_path, told)
        assert len(tables["table"]) == 3
        assert "made, numbers" in (tmp_path / "index.html").read_text()
        words = [line for line in told.export_text().splitlines() if "left out of the tests" in line]
        return [line["asked"] for line in tables.get("table-tests", ())], words

    assert tested("") == (["a ≠ b", "a ≠ c"], [])
    asked, (word,) = tested("b")
    assert asked == ["a ≠ c"]
    assert "made/numbers: left out of the tests: a and b, centroid mm: 'b' has no 'centroid mm'" in word
    assert tested("bc")[0] == []


def run_of(recipe, folder, seed=0):
    """A run that is not trained, whose folder is filled by the test."""
    return Unit(TrainedArm(recipe), Trial(folder, "made", seed=seed), folder / "test.csv")


def test_rounds_are_told_from_where_they_began(tmp_path):
    recipe = find_recipe("cyclical", "feature-registration", "phantom")
    units = [run_of(recipe, tmp_path / str(seed), seed) for seed in (0, 1)]
    for seed, unit in enumerate(units):
        rows = [{"round": n, "dice": 0.5 + 0.1 * n + 0.2 * seed, "sdlogj": 0.1} for n in range(3)]
        write_csv(rows, unit.folder / "rounds.csv")
    result = Result("phantom/correlated", "cyclical", {"cyclical": units})
    rows = by_rounds(result)
    told = pd.DataFrame([{"experiment": result.name, **row} for row in rows])
    lines = by_setting(told, ("arm", "round"), (DICE, Column("seconds")))
    assert [line[""] for line in lines] == ["cyclical, round 0", "cyclical, round 1", "cyclical, round 2"]
    assert {line["seconds"] for line in lines} == {"·"}
    assert [line["Dice"] for line in lines] == ["0.600 [0.141]", "0.700 [0.141]", "0.800 [0.141]"]
    left, right = by_number(result, rows, (DICE, SDLOGJ), "round", "round").axes
    assert left.lines[-1].get_ydata() == pytest.approx([0.6, 0.7, 0.8])
    assert right.lines[-1].get_xdata() == pytest.approx([0, 1, 2])


def test_settings_at_test_time_change_what_the_recipe_says_and_nothing_else(tmp_path):
    """The last is the recipe's own, and so what the test pairs had."""
    study = find("cyclical")
    wanted = chosen(study, ["at-test/phantom/feature-registration"], {})
    few = {name: TINY[name] for name in TINY if name.startswith("data.")}
    few |= {"training.updates": "2", "procedure.rounds": "1", "procedure.pairs": "2", "network.widths": "[4, 4, 4]"}
    how = Refinement(descent=FeatureDescent(9.0, Descend(steps=5, step_size=1.0)))
    for name, one in wanted["at-test"].items():
        recipe = one.arms["cyclical"].recipe
        own = replace(recipe, network=partial(recipe.network, refinement=how))
        wanted["at-test"][name] = replace(one, arms={"cyclical": TrainedArm(own)})
    (result,) = run_study(wanted, {}, tmp_path, (0,), few, Console(quiet=True))["at-test"]
    figure = study.tables["at-test"].figures["at-test"]
    rows = {row["setting"]: float(row["dice"]) for row in figure.measure(result)}
    own = fmean(float(row["dice"]) for row in result.rows["cyclical"])
    assert rows["2 warps, descent"] == pytest.approx(own, abs=1e-9)
    assert rows["2 warps"] != rows["2 warps, descent"] != rows["1 warp, descent"]


@pytest.mark.parametrize(("width", "tables"), [(60, 3), (80, 2), (120, 2), (130, 1), (160, 1)])
def test_no_number_of_a_table_is_broken_over_lines(width, tables):
    row = dict.fromkeys(("Dice", "folding %", "SDlogJ"), "0.653 ± 0.110") | {"Δ dice": "+0.030 (p 0.0001)"}
    lines = [
        {"data, network": f"{data}, voxelmorph", "": arm, "updates": "2000", "seeds": "1", **row, "Δ folding": "-91 %"}
        for data in ("hippocampus", "brains")
        for arm in ("unsupervised", "guided")
    ]
    console = Console(file=StringIO(), width=width)
    console.print(printed("A part", lines, console))
    text = console.file.getvalue()
    assert text.count("0.653 ± 0.110") == 3 * 4
    assert text.count("+0.030 (p 0.0001)") == 4
    assert text.count("voxelmorph") == 2 * tables
    assert "…" not in text


def folder_of_brains(folder, offset):
    for n in range(8):
        generator = torch.Generator().manual_seed(n)
        data = torch.rand(1, 1, 12, 14, 10 + offset, generator=generator)
        write(Image(data, Grid.centred((12, 14, 10 + offset))), folder / f"s{n}.nii.gz")
    return folder


def experiment_of(recipe):
    return Experiment({"before": RegisterArm(unmoved), "guided": TrainedArm(recipe)}, data=recipe.data)


def planned_at(out, name, recipe, roots=MappingProxyType({}), settings=MappingProxyType({})):
    return planned(name, experiment_of(recipe), roots, out, (0,), settings)


def paths(plans):
    """The files of the arms of some plans, arm by arm."""
    return [[plan.units[arm][0].path for plan in plans] for arm in ("before", "guided")]


def test_other_images_are_other_runs_and_moved_ones_the_same(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    roots = [folder_of_brains(tmp_path / "a", 0), folder_of_brains(tmp_path / "b", 1)]
    shutil.copytree(roots[0], tmp_path / "moved")
    recipe = find_recipe("ofg", "voxelmorph", "folder")
    folders = (*roots, tmp_path / "moved")
    plans = [planned_at(tmp_path, "folder/voxelmorph", recipe, {"folder": root}) for root in folders]
    for first, second, moved in paths(plans):
        assert first == moved != second


def test_other_labels_or_another_shape_are_other_runs(tmp_path):
    """Nor is what was so before training taken for theirs."""
    (tmp_path / "a").mkdir()
    root = folder_of_brains(tmp_path / "a", 0)
    for n in range(8):
        write(
            Labels(torch.ones(1, 1, 12, 14, 10, dtype=torch.uint8), Grid.centred((12, 14, 10))), root / f"l{n}.nii.gz"
        )
    known = find_recipe("ofg", "voxelmorph", "folder")
    data = replace(known.data, images="s*.nii.gz", labels="l*.nii.gz")
    plans = []
    for change in ("nothing", "labels", "shape"):
        if change == "labels":
            generator = torch.randint(2, (1, 1, 12, 14, 10), generator=torch.Generator().manual_seed(0))
            for n in range(8):
                write(Labels(generator, Grid.centred((12, 14, 10))), root / f"l{n}.nii.gz")
        seen = replace(data, shape=(16, 16, 16)) if change == "shape" else data
        plans.append(planned_at(tmp_path, "folder/voxelmorph", replace(known, data=seen), {"folder": root}))
    assert all(len(set(files)) == 3 for files in paths(plans))


def test_pairs_that_are_made_have_runs_and_a_before_of_their_own(tmp_path):
    recipe = find_recipe("voxelmorph", "voxelmorph", "phantom")
    made = ({}, {"data.synthetic": f"{{part: {SYNTHETIC}}}"}, {"data.synthetic": f"{{part: {SYNTHETIC}, seed: 1}}"})
    plans = [planned_at(tmp_path, "phantom/voxelmorph", recipe, {}, settings) for settings in made]
    assert all(len(set(files)) == 3 for files in paths(plans))


def test_what_is_asked_for_by_name_is_there_beside_images_from_a_folder(tmp_path):
    found = chosen(find("ofg"), ("table1/phantom/voxelmorph", "table1/brains/voxelmorph"), {"brains": tmp_path})
    assert set(found["table1"]) == {"phantom/voxelmorph", "brains/voxelmorph"}
    with pytest.raises(InputError, match="--data hippocampus=DIR"):
        chosen(find("ofg"), ("table1/hippocampus", "table1/brains"), {"brains": tmp_path})


def test_the_seed_is_the_studys(tmp_path):
    with pytest.raises(InputError, match="given by --seed"):
        planned_at(
            tmp_path, "phantom/voxelmorph", find_recipe("ofg", "voxelmorph", "phantom"), settings={"training.seed": "9"}
        )


@pytest.mark.slow
def test_an_arm_goes_on_from_the_run_of_another_experiment_and_is_tested(tmp_path):
    """The large set's run comes first, once for both arms that need it; and the page has the tests that were asked."""
    large = find_recipe("voxelmorph", "voxelmorph", "phantom")
    small = replace(large, data=replace(large.data, seed=9))
    moved = {"whole": Transferred(), "in two steps": Transferred(frozen=("unet.down",))}
    source = Source(TrainedArm(large), "procedure.source", "large")
    trained = {"scratch": TrainedArm(small)}
    trained |= {arm: TrainedArm(replace(small, procedure=how), source) for arm, how in moved.items()}
    asked = Contrasts("benefit of transfer", mann_whitney, [(arm, "scratch") for arm in moved], "greater")
    registers = {"before": unmoved, "small": ConvexAdam(spacing=3), "too large": ConvexAdam(spacing=30)}
    arms = {name: RegisterArm(register) for name, register in registers.items()} | trained
    table = Table(
        "transfer",
        "none",
        {"phantom/voxelmorph": Experiment(arms, "scratch", small.data, small.metrics)},
        COLUMNS,
        tests=[asked, Contrasts("of what is left out", mann_whitney, [("whole", "too large")])],
        tested="dice",
    )
    study = Study("a test", {"transfer": table})
    wanted = chosen(study, ["transfer"], {})
    told = Console(record=True, file=StringIO(), width=120)
    found = run_study(wanted, {}, tmp_path, (0,), TINY, told)
    lines = [line for line in told.export_text().splitlines() if " of 7: " in line]
    assert ["goes on from" in line for line in lines] == [False, False, False, False, True, False, False]
    (result,) = found["transfer"]
    folders = {recipe_of(result.runs[arm][0]).procedure.source for arm in moved}
    assert len(folders) == 1
    before = Path(folders.pop())
    assert before.parent.parent == tmp_path / "runs" / "large"
    assert any(before.glob("test*.csv"))
    assert [*result.rows] == ["before", "small", *trained], "what cannot be is left out"
    assert len(result.rows["small"]) == len(result.rows["before"]) == 6
    pair = next(iter(result.data.test))
    expected = Dice()(Alignment(pair, ConvexAdam(spacing=3)(pair.fixed, pair.moving).transform))["dice"]
    assert result.rows["small"][0]["dice"] == pytest.approx(expected, abs=1e-9)
    write_study(study, found, tmp_path, Console(quiet=True))
    rows = read_csv(tmp_path / "transfer-tests.csv")
    assert [(row["a"], row["b"], row["family"]) for row in rows] == [
        (arm, "scratch", "benefit of transfer") for arm in moved
    ]
    dice = {arm: [row["dice"] for row in result.runs[arm][0].rows()] for arm in trained}
    expected = mannwhitneyu(dice["whole"], dice["scratch"], alternative="greater").pvalue
    assert rows[0]["p"] == pytest.approx(expected)


def test_a_run_is_gone_on_with_though_the_run_it_needs_has_moved(tmp_path):
    recipe = changed(find_recipe("voxelmorph", "voxelmorph", "phantom"), TINY)
    run(recipe, tmp_path / "first")
    other = replace(recipe, procedure=Transferred(str(tmp_path / "first")))
    run(other, tmp_path / "second")
    (tmp_path / "first").rename(tmp_path / "moved")
    moved = replace(recipe, procedure=Transferred(str(tmp_path / "moved")))
    run(moved, tmp_path / "second", resume=True)
    with pytest.raises(InputError, match="another recipe"):
        run(replace(moved, procedure=replace(moved.procedure, frozen=("unet.down",))), tmp_path / "second", resume=True)


def test_a_run_that_diverges_does_not_keep_the_others_from_theirs(tmp_path):
    """Nor does it let one go on from it; the last word says which are lost."""
    good = find_recipe("voxelmorph", "voxelmorph", "phantom")
    bad = replace(good, training=replace(good.training, lr=1e30))
    other = TrainedArm(bad)
    needs = TrainedArm(replace(good, procedure=Transferred()), Source(other, "procedure.source"))
    arms = {"bad": other, "needs it": needs, "good": TrainedArm(good)}
    experiment = Experiment(arms, data=good.data, metrics=good.metrics)
    settings = {key: value for key, value in TINY.items() if key != "training.lr"}
    with pytest.raises(FloatingPointError) as error:
        run_study({"table": {"phantom/voxelmorph": experiment}}, {}, tmp_path, (0,), settings, Console(quiet=True))
    first, *lost = str(error.value).splitlines()
    assert first == "2 of 3 runs are lost, the others done:"
    assert "bad, seed 0: the loss is no longer finite" in lost[0]
    assert "needs it, seed 0: needs a run that is among these" in lost[1]
    assert len([*tmp_path.rglob("test*.csv")]) == 1


def test_where_the_images_of_a_source_are_is_asked_for():
    study = find("ddmr")
    with pytest.raises(InputError, match=r"--data brains=DIR"):
        chosen(study, ["transfer/hippocampus"], {"hippocampus": Path("anywhere")})


@pytest.mark.slow
def test_directions_have_the_length_of_each_filter_and_leave_biases(results):
    """Li et al. 2018: filter by filter, or scales that normalisations undo would show as a rough landscape."""
    network = network_of(results["table1"][0].runs["guided"][0])
    weights = {name: p.detach() for name, p in network.named_parameters()}
    one, other = (_direction(weights, number) for number in (0, 1))
    filters = [name for name, weight in weights.items() if weight.ndim > 1]
    assert filters
    for name in filters:
        torch.testing.assert_close(one[name].flatten(1).norm(dim=1), weights[name].flatten(1).norm(dim=1))
        assert not torch.equal(one[name], other[name])
    assert all(not one[name].any() for name in weights.keys() - set(filters))


@pytest.mark.slow
def test_what_lies_below_the_weights_is_drawn_below(results):
    (result,) = results["table1"]
    places = (-1.0, 0.0, 1.0)
    rows = [{"arm": "guided", "first": a, "second": b, "energy": 0.5 + 0.25 * a} for a in places for b in places]
    axes, _ = contours(result, rows).axes
    levels = axes.collections[0].levels
    assert (levels[0], levels[-1]) == pytest.approx((-0.25, 0.25))
    assert "0.500 at its weights" in axes.get_title()


@pytest.mark.slow
def test_progress_and_settings_are_drawn_as_they_were_measured(results):
    (result,) = results["table1"]
    rows = [{"start": s, "steps": n, "dice": n / 10, "energy": 1 - n / 10} for s in ("one", "two") for n in (0, 5)]
    left, right = by_number(result, rows, (DICE, Column("energy")), "steps", "steps", of="start").axes
    assert [line.get_label() for line in left.lines] == ["one", "two"]
    assert [list(axes.lines[0].get_ydata()) for axes in (left, right)] == [[0, 0.5], [1, 0.5]]
    numbers = {"dice": 0.7, "folding %": 0.1, "sdlogj": 0.2, "seconds": 1.0}
    rows = [{"setting": name, "seed": 0, **numbers} for name in ("1 warp", "2 warps")]
    drawn = settings(result, rows, (DICE, SDLOGJ))
    assert [text.get_text() for text in drawn.axes[0].get_yticklabels()] == ["1 warp", "2 warps"]


@pytest.mark.slow
def test_many_labels_stand_in_rows(results):
    """No label twice and none left out, and no row so long that it cannot be read."""
    (result,) = results["table1"]
    generator = np.random.default_rng(0)
    rows = {arm: [dict(row) for row in rows] for arm, rows in result.rows.items()}
    for each in rows.values():
        for row in each:
            row |= {f"dice/{n}": generator.random() for n in range(100, 131)}
    drawn = boxes(SimpleNamespace(rows=rows, runs=result.runs, baseline=result.baseline), [], DICE)
    labels = [[text.get_text() for text in axis.get_xticklabels()] for axis in drawn.axes]
    assert len(labels) > 1
    assert max(map(len, labels)) * len(rows) <= 44
    assert max(map(len, labels)) - min(map(len, labels)) <= 1
    assert not boxes(SimpleNamespace(rows={}, runs={}, baseline=""), [], DICE).axes[0].patches
    shown = [label for line in labels for label in line]
    assert {str(n) for n in range(100, 131)} <= set(shown)
    assert len(shown) == len(set(shown))


@pytest.mark.slow
def test_an_arm_has_one_colour_on_a_page(results):
    (result,) = results["table1"]

    def colours(figure):
        handles, names = figure.axes[0].get_legend_handles_labels()
        return dict(zip(names, (handle.get_color() for handle in handles), strict=True))

    lines, drawn = colours(curves(result, [], (DICE, FOLDING))), colours(boxes(result, [], DICE))
    assert set(lines) == set(result.runs)
    assert {arm: drawn[arm] for arm in lines} == lines
    assert len(set(drawn.values())) == len(drawn)


@pytest.mark.slow
def test_what_an_arm_gains_is_told_by_how_far_apart_pairs_were(results):
    """Six pairs are three thirds of two: their means have the mean of all, and rise where nothing moved."""
    (result,) = results["table1"]
    rows = by_distance(result, "dice", "before")
    before = [row for row in rows if row["arm"] == "before"]
    assert [row["pairs"] for row in before] == list(APART)
    assert [row["dice"] for row in before] == sorted(row["dice"] for row in before)
    for arm in ("before", *result.runs):
        mine = fmean(float(row["dice"]) for row in rows if row["arm"] == arm)
        assert mine == pytest.approx(fmean(float(row["dice"]) for row in result.rows[arm]))


def several(tmp_path, validation, test):
    """A result of arms with runs: two validations each, the better one first, and two pairs of each of three people."""
    runs, rows = {}, {}
    for arm, seeds in validation.items():
        runs[arm] = []
        for seed, best in enumerate(seeds):
            folder = tmp_path / arm / str(seed)
            folder.mkdir(parents=True)
            write_csv([{"update": 1, "dice": best}, {"update": 2, "dice": best - 0.3}], folder / "validation.csv")
            runs[arm].append(SimpleNamespace(folder=folder))
        rows[arm] = [
            {"pair": f"{n}", "subject": f"{n // 2}", "dice": each, "sdlogj": 10 * each, "seed": f"{seed}"}
            for seed in range(len(seeds))
            for n, each in enumerate(test[arm])
        ]
    return SimpleNamespace(runs=runs, rows=rows)


def test_arms_are_chosen_by_validation_and_told_by_test(tmp_path):
    """What does best on test pairs is not chosen for it; n and p are of the three people, not of their six pairs."""
    validation = {"plain": [0.5, 0.6], "plain, λ 2": [0.58, 0.58], "plainer": [0.9], "other, λ 3": [0.1, 0.2]}
    test = {
        "plain": [0.9] * 6,
        "plain, λ 2": [0.1, 0.3, 0.2, 0.2, 0.4, 0.0],
        "plainer": [0.0] * 6,
        "other, λ 3": [0.3, 0.3, 0.4, 0.2, 0.5, 0.5],
    }
    result = several(tmp_path, validation, test)
    first, other = by_validation(result, ("plain", "nobody", "other"), "dice", "subject")
    assert (first["way"], first["arm"], other["arm"]) == ("plain", "plain, λ 2", "other, λ 3")
    assert (first["validation"], first["dice"]) == (pytest.approx(0.58), pytest.approx(0.2))
    assert set(first) == {"way", "arm", "validation", "dice", "sdlogj"}
    assert other["difference"] == pytest.approx(fmean([0.1, 0.1, 0.3]))
    assert other["p"] == pytest.approx(wilcoxon([0.1, 0.1000001, 0.3]).pvalue)


def test_arms_of_one_way_are_a_line(tmp_path):
    validation = {"plain, λ 2": [0.5, 0.5], "plain": [0.5], "other": [0.5]}
    test = {"plain, λ 2": [0.2] * 6, "plain": [0.3] * 6, "other": [0.25] * 6}
    (axis,) = traded(several(tmp_path, validation, test), [], SDLOGJ, DICE, ("plain", "other")).axes
    lines = dict(zip(axis.get_legend_handles_labels()[1], axis.get_legend_handles_labels()[0], strict=True))
    assert list(lines) == ["plain", "other"]
    assert lines["plain"].get_xdata() == pytest.approx([2, 3])
    assert lines["plain"].get_ydata() == pytest.approx([0.2, 0.3])


def test_gains_are_ranked_against_where_pairs_began():
    """Who gains the more the farther a pair began has ρ = −1; the mean over seeds counts."""

    def rows(seed, dice):
        return [{"pair": str(n), "dice": value, "seed": seed} for n, value in enumerate(dice)]

    before = np.linspace(0.3, 0.7, 5)
    known = {
        "before": rows("", before),
        "unsupervised": rows("0", before + 0.1),
        "guided": rows("0", before + 0.1 + 0.1 * (1 - before)) + rows("1", before + 0.1 + 0.3 * (1 - before)),
    }
    result = SimpleNamespace(rows=known, runs=["unsupervised", "guided"], baseline="unsupervised")
    (axis,) = distances(result, [], DICE, "before").axes
    _, dots = axis.lines
    assert dots.get_xdata() == pytest.approx(before)
    assert dots.get_ydata() == pytest.approx(0.2 * (1 - before))
    assert axis.get_legend_handles_labels()[1] == ["guided, ρ -1.00"]
