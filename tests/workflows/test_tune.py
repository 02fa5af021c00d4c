"""`pullback tune`: numbers of a recipe by validation alone, through a stop and on."""

import csv
import shutil
from dataclasses import replace
from functools import partial

import pytest

from pullback.data import BrainPhantom
from pullback.errors import InputError, Interrupted
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.recipes import find
from pullback.study.recipe import read_recipe, to_yaml
from pullback.workflows import tune as module
from pullback.workflows.tune import Range, range_of, summary, tune

RATES = (range_of("training.lr=1e-4..1e-2"),)


@pytest.fixture(scope="module")
def recipe():
    known = find("voxelmorph", "voxelmorph", "phantom")
    return replace(
        known,
        data=BrainPhantom(spacing=14.0, train_subjects=3),
        network=partial(VoxelMorph, ndim=3, encoder=(4, 4), decoder=(4,) * 4),
        training=replace(known.training, updates=2, validate_every=2, lr=1e-3),
    )


def rows(folder) -> list[dict[str, str]]:
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("training.lr=1e-4..1e-2", Range("training.lr", 1e-4, 1e-2)),
        ("network.steps=3..7", Range("network.steps", 3, 7, True)),
        ("a.b=5,10", Range("a.b", choices=("5", "10"))),
    ],
)
def test_ranges_in_words(text, found):
    assert range_of(text) == found


@pytest.mark.parametrize("text", ["training.lr", "training.lr=1", "a=2..1", "a=x..y", "=1..2", "a=1..2..3", "a=nan..1"])
def test_what_is_no_range_is_refused(text):
    with pytest.raises(InputError, match=r"expected KEY=LOW\.\.HIGH"):
        range_of(text)


def test_a_decade_is_searched_by_its_logarithm():
    assert range_of("a=1e-4..1e-2").logarithmic
    assert not range_of("a=1..9").logarithmic
    assert not range_of("a=-1..9").logarithmic


def test_trials_go_on_where_they_were_stopped_and_draw_the_same(recipe, tmp_path, monkeypatch):
    content = tune(recipe, RATES, tmp_path / "calm", 3)
    calm = rows(tmp_path / "calm")
    assert float(calm[0]["training.lr"]) == 1e-3  # the recipe's own
    assert len({row["training.lr"] for row in calm}) == 3
    assert all(1e-4 <= float(row["training.lr"]) <= 1e-2 for row in calm)
    best = max(calm, key=lambda row: float(row["score"]))
    found = read_recipe(tmp_path / "calm" / "best.yaml")
    assert found.training.lr == float(best["training.lr"]) == float(content["settings"]["training.lr"])
    assert to_yaml(replace(found, training=recipe.training)) == to_yaml(recipe)
    assert "pullback train" in summary(content, tmp_path)
    real, begun = module.run, []

    def stopped(chosen, folder, *rest):
        begun.append(folder.name)
        if len(begun) == 2:
            raise Interrupted("stopped")
        return real(chosen, folder, *rest)

    monkeypatch.setattr(module, "run", stopped)
    with pytest.raises(Interrupted):
        tune(recipe, RATES, tmp_path / "stopped", 3)
    tune(recipe, RATES, tmp_path / "stopped", 3)
    assert begun == ["trial-000", "trial-001", "trial-001", "trial-002"]
    again = rows(tmp_path / "stopped")
    assert [(row["training.lr"], row["score"]) for row in again] == [(row["training.lr"], row["score"]) for row in calm]
    shutil.rmtree(tmp_path / "stopped")


def test_a_rate_that_ruins_the_weights_is_an_answer_and_other_ranges_another_search(recipe, tmp_path, monkeypatch):
    real = module.run

    def ruined(chosen, folder, *rest):
        if chosen.training.lr == 1e-3:
            raise FloatingPointError("the loss is no longer finite")
        return real(chosen, folder, *rest)

    monkeypatch.setattr(module, "run", ruined)
    with pytest.raises(InputError, match="no trial ended well"):
        tune(recipe, RATES, tmp_path, 1)
    content = tune(recipe, RATES, tmp_path, 2)
    assert [row["status"] for row in rows(tmp_path)] == ["fail", "complete"]
    assert content["best"]["trial"] == 1
    with pytest.raises(InputError, match="other ranges"):
        tune(recipe, (range_of("training.lr=1e-5..1e-2"),), tmp_path, 2)
    with pytest.raises(InputError, match=r"training\.rate"):
        tune(recipe, (range_of("training.rate=1..2"),), tmp_path / "none", 2)
