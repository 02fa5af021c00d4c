"""A search for the numbers of a recipe, by validation alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console

from pullback.errors import InputError
from pullback.records.atomic import atomic_write
from pullback.records.csv_records import write_csv
from pullback.records.lock import locked
from pullback.records.manifest import manifest, write_json
from pullback.study.recipe import Recipe, as_data, changed, to_yaml
from pullback.study.run import run
from pullback.training import load_tensors
from pullback.workflows.outputs import RECORD

TRIALS, BEST, JOURNAL = "trials.csv", "best.yaml", "trials.log"
DECADE = 10.0
"""Ratio of the ends of a range from which on it is searched by its logarithm."""


@dataclass(frozen=True)
class Range:
    """The values over which a number of a recipe is searched.

    Attributes:
        key: dotted, as `--set` takes it.
        low, high: the ends of a range.
        whole: of whole numbers.
        choices: in place of a range, values as text.
    """

    key: str
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    choices: tuple[str, ...] = ()

    @property
    def logarithmic(self) -> bool:
        """Whether each factor counts alike: the ends lie a decade apart or more."""
        return self.low > 0 and self.high / self.low >= DECADE

    def holds(self, value: str) -> bool:
        """Return whether a value lies in it."""
        if self.choices:
            return value in self.choices
        try:
            return self.low <= float(value) <= self.high
        except ValueError:
            return False

    def drawn(self, trial: Any) -> str:
        """Return a value that a trial of Optuna suggests, as `--set` takes it."""
        if self.choices:
            return str(trial.suggest_categorical(self.key, self.choices))
        if self.whole:
            return str(trial.suggest_int(self.key, int(self.low), int(self.high), log=self.logarithmic))
        return f"{trial.suggest_float(self.key, self.low, self.high, log=self.logarithmic):.6g}"

    def stored(self, value: str) -> str | int | float:
        """Return a value as Optuna keeps it."""
        return value if self.choices else int(value) if self.whole else float(value)


def range_of(text: str) -> Range:
    """Return the range of words such as `training.lr=1e-4..1e-2`, `network.steps=3..7` or `supervision.n=5,10,20`.

    Raises:
        InputError: it is no range.
    """
    key, _, values = text.partition("=")
    ends = values.split("..")
    if key and len(ends) == 2:
        try:
            low, high = (float(end) for end in ends)
        except ValueError:
            low, high = math.nan, math.nan
        if math.isfinite(low) and math.isfinite(high) and low < high:
            return Range(key, low, high, all(end.strip().lstrip("+-").isdigit() for end in ends))
    choices = tuple(each.strip() for each in values.split(","))
    if key and len(ends) == 1 and len(choices) > 1 and all(choices):
        return Range(key, choices=choices)
    raise InputError(f"--over {text}: expected KEY=LOW..HIGH, the lower end first, or KEY=A,B,…")


def tune(
    recipe: Recipe, ranges: Sequence[Range], out: Path, trials: int, seed: int = 0, console: Console | None = None
) -> dict[str, Any]:
    """Train by a recipe again and again with other numbers, and keep those of the best validation.

    The first trial has the recipe's own numbers, where they lie in the ranges; the next are drawn by tree-structured
    Parzen estimators (Bergstra et al. 2011), by Optuna. Each is a run in a folder of its own. `trials.csv` has a row
    for each, `best.yaml` is the recipe of the best. Stopped, it goes on, in the midst of a trial too. The test split is
    not looked at.

    Args:
        recipe: whose numbers are searched.
        ranges: of different keys.
        out: the folder.
        trials: how many in all.
        seed: of the draws; that of the trainings is the recipe's.
        console: to tell progress on.

    Returns:
        The content of `run.json`.

    Raises:
        InputError: Optuna is not installed, a key that the recipe does not have, a search over other ranges in the
            folder, or no trial that ended well.
        Interrupted: it was asked to stop.
    """
    for each in ranges:
        changed(recipe, {each.key: each.choices[0] if each.choices else _text(each, each.low)})
    with locked(out):
        search = _search(ranges, out)
        mine = {each.key: _now(recipe, each.key) for each in ranges}
        if all(each.holds(mine[each.key]) for each in ranges):
            search.enqueue_trial({each.key: each.stored(mine[each.key]) for each in ranges}, skip_if_exists=True)
        for number in range(trials):
            _tried(search, number, recipe, ranges, out, seed, console)
        return _written(search, recipe, ranges, out)


def _search(ranges: Sequence[Range], out: Path) -> Any:
    try:
        optuna = import_module("optuna")
    except ImportError as error:
        raise InputError("tune needs Optuna: pip install 'pullback[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    backend = optuna.storages.journal.JournalFileBackend(str(out / JOURNAL))
    search = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend), study_name="tune", direction="maximize", load_if_exists=True
    )
    about = [str(each) for each in ranges]
    if search.user_attrs.get("ranges", about) != about:
        raise InputError(f"{out}: a search over other ranges is there; name another folder by -o")
    search.set_user_attr("ranges", about)
    return search


def _tried(
    search: Any, number: int, recipe: Recipe, ranges: Sequence[Range], out: Path, seed: int, console: Console | None
) -> None:
    """Do the trial of a number, from where it was left, unless it is done."""
    optuna = import_module("optuna")
    known = {trial.number: trial for trial in search.get_trials(deepcopy=False)}
    if number in known and known[number].state.is_finished():
        return
    if number in known and "settings" in known[number].user_attrs:  # it was stopped
        values, at = known[number].user_attrs["settings"], number
    else:
        search.sampler = optuna.samplers.TPESampler(seed=seed + number)  # whatever was drawn before it was stopped
        trial = search.ask()
        values, at = {each.key: each.drawn(trial) for each in ranges}, trial.number
        trial.set_user_attr("settings", values)
    if console is not None:
        told = ", ".join(f"{key} {value}" for key, value in values.items())
        console.print(f"trial {number}: {told}", highlight=False)
    chosen, folder = changed(recipe, values), out / f"trial-{number:03d}"
    try:
        run(chosen, folder, (folder / "recipe.yaml").is_file(), console)
    except FloatingPointError as error:  # a rate that is too high is an answer, too
        if console is not None:
            console.print(f"trial {number} failed: {error}", highlight=False, style="red")
        search.tell(at, state=optuna.trial.TrialState.FAIL)
        return
    search.tell(at, _score(chosen, folder))


def _score(recipe: Recipe, folder: Path) -> float:
    """Return the score of the weights that validation chose."""
    _, about = load_tensors(folder / "best.safetensors")
    means = {name: float(value) for name, value in about.items() if isinstance(value, int | float)}
    return recipe.evaluates(recipe.data.validation).score(means)


def _now(recipe: Recipe, key: str) -> str:
    """Return the value of a dotted key of a recipe as text; "" where it is no single value."""
    tree: Any = as_data(recipe)
    for step in key.split("."):
        if isinstance(tree, Mapping):
            tree = tree.get(step, "")
        else:
            tree = tree[int(step)] if isinstance(tree, list) and step.isdigit() and int(step) < len(tree) else ""
    return "" if isinstance(tree, Mapping | list) else f"{tree}"


def _text(each: Range, value: float) -> str:
    return str(int(value)) if each.whole else f"{value:.6g}"


def _written(search: Any, recipe: Recipe, ranges: Sequence[Range], out: Path) -> dict[str, Any]:
    done = [trial for trial in search.get_trials(deepcopy=False) if trial.state.is_finished()]
    rows: list[dict[str, Any]] = [
        {
            "trial": trial.number,
            **trial.user_attrs["settings"],
            **({} if trial.value is None else {"score": trial.value}),
            "status": trial.state.name.lower(),
            "seconds": round(trial.duration.total_seconds(), 1),
        }
        for trial in done
    ]
    write_csv(rows, out / TRIALS)
    good = [row for row in rows if math.isfinite(row.get("score", math.nan))]
    if not good:
        raise InputError(f"{out}: no trial ended well; see {TRIALS}, and search smaller rates")
    best = max(good, key=lambda row: row["score"])
    settings = {each.key: best[each.key] for each in ranges}
    with atomic_write(out / BEST) as temporary:
        temporary.write_text(to_yaml(changed(recipe, settings)), encoding="utf-8")
    content = manifest() | {
        "trials": len(rows),
        "best": best,
        "settings": settings,
        "own": rows[0] if rows[0]["trial"] == 0 else None,
        "files": [TRIALS, BEST, RECORD],
    }
    write_json(content, out / RECORD)
    return content


def summary(content: Mapping[str, Any], out: Path) -> str:
    """Summarise the answer of `tune` for a person."""
    settings = ", ".join(f"{key} {value}" for key, value in content["settings"].items())
    best, own = content["best"], content["own"]
    lines = [f"{content['trials']} trials; the best by validation is number {best['trial']}, score {best['score']:.4g}"]
    lines += [f"its numbers: {settings}"]
    if own is not None and "score" in own and own["trial"] != best["trial"]:
        lines.append(f"the first trial has {own['score']:.4g}")
    return "\n".join([*lines, f"Next: pullback train {out / BEST}; all trials: {out / TRIALS}"])
