"""Which runs a study needs, where they lie, and having them run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from pullback.alignment import Register
from pullback.data import Case, Dataset, FileCase, PickledCase, Stored
from pullback.errors import InputError, Interrupted, did_you_mean
from pullback.records.csv_records import write_csv
from pullback.study.evaluate import evaluate, left_out
from pullback.study.recipe import Recipe, as_data, changed, digest_of
from pullback.study.run import run
from pullback.study.study import TESTED, Experiment, Outcome, Planned, Study
from pullback.training import Training, device_of


def chosen(study: Study, names: Sequence[str], roots: Mapping[str, Path]) -> dict[str, dict[str, Experiment]]:
    """The experiments of these names (`part`, `part/data` or `part/data/network`; all where there are none) whose data
    is at hand, with their folder put in.

    Raises:
        InputError: a name, or the name of a set of images, is not known, or nothing is left.
    """
    every = [f"{part}/{name}" for part, content in study.parts.items() for name in content.experiments]
    for name in names:
        if not any(_under(one, name) for one in every):
            known = sorted({"/".join(one.split("/")[:n]) for one in every for n in (1, 2, 3)})
            raise InputError(f"{name}: not in this study{did_you_mean(name, known)}; there is {', '.join(study.parts)}")
    listed = [(part, name, one) for part, content in study.parts.items() for name, one in content.experiments.items()]
    sets = sorted({data for _, name, experiment in listed for data in _sets(experiment, name)})
    for name, root in roots.items():
        if name not in sets:
            raise InputError(f"--data {name}={root}: the study has images called {', '.join(sets)}")
    found: dict[str, dict[str, Experiment]] = {}
    for part, name, experiment in listed:
        asked = [one for one in names if _under(f"{part}/{name}", one)]
        placed = _placed(experiment, name, roots)
        by_name = any("/" in one for one in asked)
        if placed is None and by_name:
            missing = [data for data in _sets(experiment, name) if data not in roots]
            raise InputError(f"{part}/{name}: say where its images are: --data {missing[0]}=DIR")
        given = any(data in roots for data in _sets(experiment, name))
        if placed is not None and (by_name or ((asked or not names) and (given or not roots))):
            found.setdefault(part, {})[name] = placed
    if not found:
        raise InputError(f"none of its images is at hand; say where they are: --data NAME=DIR, of {', '.join(sets)}")
    return found


def run_study(
    study: Study,
    wanted: Mapping[str, Mapping[str, Experiment]],
    out: Path,
    seeds: Sequence[int],
    settings: Mapping[str, str],
    console: Console,
) -> dict[str, list[Outcome]]:
    """Train and measure whatever is not there yet; what an earlier call left unfinished is gone on with.

    A run's folder is named by its recipe, so parts that have a recipe in common share its run. Seed by seed, so that
    what is there early is a whole comparison.

    Raises:
        FloatingPointError: the loss of some runs was no longer finite; all that do not need them are done.
    """
    outcomes = {
        part: [_planned(out, name, one, seeds, settings) for name, one in experiments.items()]
        for part, experiments in wanted.items()
    }
    plans: dict[Path, tuple[str, Planned]] = {}
    for seed in seeds:
        for part, listed in outcomes.items():
            for outcome in listed:
                for arm, runs in outcome.runs.items():
                    for each in _in_order(runs[seed]):
                        label = f"{part}, {outcome.name}, {arm}, seed {seed}"
                        label += "" if each is runs[seed] else f": {each.folder.parent.name}, which it goes on from"
                        plans.setdefault(each.folder, (label, each))
    lost: dict[Path, str] = {}
    for number, (label, planned) in enumerate(plans.values(), 1):
        if planned.source is not None and planned.source.folder in lost:
            lost[planned.folder] = f"{label}: needs a run that is among these"
        elif not (planned.folder / TESTED).is_file():
            console.rule(f"{number} of {len(plans)}: {label}", align="left")
            try:
                _run(planned, console)
            except FloatingPointError as error:
                lost[planned.folder] = f"{label}: {error}"
    for outcome in (each for listed in outcomes.values() for each in listed):
        _measure_beside(outcome, console)
    if lost:
        said = f"{len(lost)} of {len(plans)} runs are lost, the others done:"
        raise FloatingPointError("\n".join([said, *lost.values()]))
    return outcomes


def _planned(
    out: Path, name: str, experiment: Experiment, seeds: Sequence[int], settings: Mapping[str, str]
) -> Outcome:
    """What will be known of an experiment when all its runs are done."""
    runs = {arm: {s: _plan(out, name, experiment, arm, s, settings) for s in seeds} for arm in experiment.arms}
    recipe = runs[experiment.compared_with][seeds[0]].recipe
    return Outcome(name, experiment, runs, _beside(out, name, experiment, recipe))


def _in_order(planned: Planned) -> list[Planned]:
    """What it needs, then itself."""
    return [*([] if planned.source is None else _in_order(planned.source)), planned]


def _under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}/")


def _placed(experiment: Experiment, name: str, roots: Mapping[str, Path]) -> Experiment | None:
    """The experiment with the folders of its images and of those that it goes on from; None where one is not given."""
    data = name.split("/", maxsplit=1)[0]
    made = not isinstance(experiment.data, Stored)
    if data in roots and made:
        raise InputError(f"--data {data}={roots[data]}: these images are made, not read; they take no folder")
    if data not in roots and not made:
        return None
    arms = dict(experiment.arms)
    if not made:
        root = str(roots[data])
        arms = {arm: replace(recipe, data=replace(recipe.data, root=root)) for arm, recipe in arms.items()}  # type: ignore[type-var]
    sources = {}
    for arm, source in experiment.sources.items():
        other = source.experiment and _placed(source.experiment, source.name, roots)
        if source.experiment is not None and other is None:
            return None
        sources[arm] = replace(source, experiment=other)
    return replace(experiment, arms=arms, sources=sources)


def _sets(experiment: Experiment, name: str) -> list[str]:
    """The names of its images and of those that it goes on from."""
    others = [each for s in experiment.sources.values() if s.experiment for each in _sets(s.experiment, s.name)]
    return list(dict.fromkeys([name.split("/", maxsplit=1)[0], *others]))


def _plan(out: Path, name: str, experiment: Experiment, arm: str, seed: int, settings: Mapping[str, str]) -> Planned:
    """The recipe of an arm with its seed, and the folder of its run: by data, network, and what else makes it."""
    if "training.seed" in settings:
        raise InputError("--set training.seed: a study's seeds are given by --seed")
    recipe = changed(experiment.arms[arm], settings)
    recipe = replace(recipe, training=replace(recipe.training, seed=seed))
    source = experiment.sources.get(arm)
    needed = None
    if source is not None:
        of = (name, experiment) if source.experiment is None else (source.name, source.experiment)
        needed = _plan(out, *of, source.arm, seed, settings)
    data, network = name.split("/")
    digest = digest_of(_portable(recipe), _seen(recipe.data), needed and needed.folder.parent.name)
    if source is not None and needed is not None:
        recipe = changed(recipe, {source.key: str(needed.folder)})
    return Planned(recipe, out / "runs" / data / f"{network}-{digest}" / f"seed-{seed}", needed)


def _beside(out: Path, name: str, experiment: Experiment, recipe: Recipe) -> dict[str, Path]:
    """Where what each register without training does on the test pairs of the recipe is kept."""
    data, images = _portable(recipe)["data"], _seen(recipe.data)
    return {
        register: out
        / "runs"
        / name.split("/", maxsplit=1)[0]
        / f"{register.lower()}-{digest_of(as_data(how), data, images, as_data(recipe.metrics))}.csv"
        for register, how in experiment.registers.items()
    }


def _seen(data: Dataset) -> object:
    """Who is in which split and how large the files are: other images or labels are another run, moved ones are not."""
    cases = {
        "train": data.train.cases,
        "validation": [case for pair in data.validation.pairs for case in pair],
        "test": [case for pair in data.test.pairs for case in pair],
    }
    return {split: sorted({(case.name, *_sizes(case)) for case in listed}) for split, listed in cases.items()}


def _sizes(case: Case) -> tuple[int, ...]:
    """Of its files in bytes; 0 for one that it does not have."""
    files = case.files if isinstance(case, FileCase | PickledCase) else ()
    return tuple(0 if path is None else path.stat().st_size for path in files)


def _portable(recipe: Recipe) -> dict[str, object]:
    """The recipe, but for its words, its seed and where the images are."""
    data = replace(recipe.data, root="") if isinstance(recipe.data, Stored) else recipe.data
    training = replace(recipe.training, seed=Training().seed)
    return as_data(replace(recipe, about="", data=data, training=training))


def _run(planned: Planned, console: Console) -> None:
    recipe, folder = planned.recipe, planned.folder
    try:
        network = run(recipe, folder, resume=True, console=console).to(device_of())
    except Interrupted as error:
        raise Interrupted(f"{str(error).split(';')[0]}; the same command goes on from there") from None
    _measure(network, recipe, folder / TESTED, console)


def _measure_beside(outcome: Outcome, console: Console) -> None:
    """Its registers without training, but for those that cannot take its images."""
    for name, path in outcome.beside.items():
        with left_out(f"{outcome.name}: no row of {name}", console):
            _measure(outcome.experiment.registers[name], outcome.recipe, path, console)


def _measure(register: Register, recipe: Recipe, path: Path, console: Console) -> None:
    """What the register does on the test pairs, unless it is known."""
    if not path.is_file():
        write_csv(evaluate({"": register}, recipe.data.test, recipe.evaluates, device_of(), console)[""], path)
