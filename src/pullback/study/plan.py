"""Plans of studies: the work that they need, where its results lie, and having it done."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console

from pullback.errors import InputError, did_you_mean
from pullback.records.csv_records import write_csv
from pullback.records.ledger import Job, Ledger
from pullback.study.arms import Trial, Unit, is_stored, placed
from pullback.study.evaluate import left_out
from pullback.study.recipe import changed
from pullback.study.result import Result
from pullback.study.table import Experiment, Study

QUIET = Console(quiet=True)
SHARED = ("data", "metrics", "evaluation")  # what an experiment has in common with recipes


def chosen(study: Study, names: Sequence[str], roots: Mapping[str, Path]) -> dict[str, dict[str, Experiment]]:
    """Choose the experiments of these names whose data is at hand.

    A name is `table`, `table/data` or `table/data/network`; without any, all are chosen.

    Raises:
        InputError: a name, or the name of a set of data, is not known, or nothing is left.
    """
    every = {
        f"{table}/{name}": one for table, content in study.tables.items() for name, one in content.experiments.items()
    }
    for name in names:
        if not any(_under(one, name) for one in every):
            known = sorted({"/".join(one.split("/")[:n]) for one in every for n in (1, 2, 3)})
            raise InputError(
                f"{name}: not in this study{did_you_mean(name, known)}; there is {', '.join(study.tables)}"
            )
    sets = sorted({data for name, experiment in every.items() for data in _sets(experiment, name)})
    for name, root in roots.items():
        if name not in sets:
            raise InputError(f"--data {name}={root}: the study has data called {', '.join(sets)}")
    found: dict[str, dict[str, Experiment]] = {}
    for full, experiment in every.items():
        table, name = full.split("/", maxsplit=1)
        asked = [one for one in names if _under(full, one)]
        by_name = any("/" in one for one in asked)
        missing = _missing(experiment, full, roots)
        if missing and by_name:
            raise InputError(f"{full}: say where its images are: --data {missing[0]}=DIR")
        given = any(data in roots for data in _sets(experiment, full))
        if not missing and (by_name or ((asked or not names) and (given or not roots))):
            found.setdefault(table, {})[name] = experiment
    if not found:
        raise InputError(f"none of its data is at hand; say where it is: --data NAME=DIR, of {', '.join(sets)}")
    return found


def run_study(
    wanted: Mapping[str, Mapping[str, Experiment]],
    roots: Mapping[str, Path],
    out: Path,
    seeds: Sequence[int],
    settings: Mapping[str, str],
    console: Console,
    workers: int = 1,
) -> dict[str, list[Result]]:
    """Do whatever is not done yet; what an earlier call left unfinished is gone on with.

    Folders are named by all that their rows depend on, so tables that have an arm in common share its rows. Seed by
    seed, so that what is there early is a whole comparison.

    Args:
        workers: how many units are at work at once, each in a process of its own where there are several.

    Raises:
        FloatingPointError: the loss of some runs was no longer finite; all that do not need them are done.
        InputError: as of `arms.placed`, or a setting that is not one of the recipes.
    """
    results = {
        table: [planned(name, one, roots, out, seeds, settings) for name, one in experiments.items()]
        for table, experiments in wanted.items()
    }
    lost: dict[Path, str] = {}
    units, ledger = dict(_labelled(results, seeds)), Ledger(out)

    def work(make: Callable[..., None], number: int, label: str, unit: Unit) -> None:
        if unit.needs is not None and unit.needs.path in lost:
            lost[unit.path] = f"{label}: needs a run that is among these"
        elif not unit.path.is_file():
            console.rule(f"{number} of {len(units)}: {label}", align="left")
            try:
                ledger.once(_job(label, unit.path, out), lambda _: make(unit, label))
            except FloatingPointError as error:
                lost[unit.path] = f"{label}: {error}"

    numbered = [(number, label, unit) for number, (label, unit) in enumerate(units.values(), 1)]
    if workers == 1:
        for one in numbered:
            work(partial(_make, console=console), *one)
    else:
        _at_once(work, numbered, workers)
    if lost:
        said = f"{len(lost)} of {len(units)} runs are lost, the others done:"
        raise FloatingPointError("\n".join([said, *lost.values()]))
    return results


def planned(
    name: str,
    experiment: Experiment,
    roots: Mapping[str, Path],
    out: Path,
    seeds: Sequence[int],
    settings: Mapping[str, str] = {},
) -> Result:
    """Return the result of an experiment, as it will be when all its work is done.

    Raises:
        InputError: as of `run_study`.
    """
    shared = {key: value for key, value in settings.items() if key.split(".")[0] in SHARED}
    data = name.split("/", maxsplit=1)[0]
    experiment = replace(experiment, data=placed(experiment.data, data, roots))
    trials = []
    for fold, change in enumerate(experiment.folds):
        one = changed(experiment, {**shared, **change})
        trials += [Trial(out, data, one.data, one.evaluates, seed, fold, settings, roots) for seed in seeds]
    units = {arm: list(_once(how.unit(trial) for trial in trials)) for arm, how in experiment.arms.items()}
    return Result(name, experiment.compared_with, units)


def _once(units: Iterable[Unit]) -> Iterable[Unit]:
    """Return the first unit of each file."""
    found: dict[Path, Unit] = {}
    for unit in units:
        found.setdefault(unit.path, unit)
    return found.values()


def _labelled(results: Mapping[str, Sequence[Result]], seeds: Sequence[int]) -> Iterable[tuple[Path, tuple[str, Unit]]]:
    """Return every unit in the order of the work, by its file, with its label; the first of equals counts."""
    found: dict[Path, tuple[str, Unit]] = {}
    listed = [
        (t, result, arm, u)
        for t, each in results.items()
        for result in each
        for arm, us in result.units.items()
        for u in us
    ]
    for seed in seeds:
        for table, result, arm, unit in listed:
            if unit.trial.seed == seed:
                label = f"{table}, {result.name}, {arm}" + (f", seed {seed}" if unit.seeded else "")
                label += f", fold {unit.trial.fold}" if len({u.trial.fold for u in result.units[arm]}) > 1 else ""
                for each in unit.in_order():
                    of = "" if each is unit else f": {each.folder.parent.name}, which it goes on from"
                    found.setdefault(each.path, (label + of, each))
    return found.items()


def _job(label: str, path: Path, out: Path) -> Job:
    """Return the ledger's job of a unit; other settings make another one of the same label."""
    return Job(f"{label} ({path.parent.relative_to(out).as_posix()})", outputs=(path.relative_to(out).as_posix(),))


def _at_once(work: Callable[..., None], numbered: Sequence[tuple[int, str, Unit]], workers: int) -> None:
    """Work on several units at once, each in a process of its own, after those that they need."""
    depths = [len(unit.in_order()) for _, _, unit in numbered]
    with ProcessPoolExecutor(workers, get_context("spawn")) as processes, ThreadPoolExecutor(workers) as threads:

        def make(unit: Unit, label: str) -> None:
            processes.submit(_make, unit, label).result()

        for depth in sorted(set(depths)):
            ready = [one for one, known in zip(numbered, depths, strict=True) if known == depth]
            for done in [threads.submit(work, make, *one) for one in ready]:
                done.result()


def _make(unit: Unit, label: str, console: Console = QUIET) -> None:
    """Write the rows of a unit; an arm that may lack them is told."""
    if not unit.may_lack:
        write_csv([*unit.arm.rows(unit, console)], unit.path)
        return
    with left_out(f"{label}: no rows", console):
        write_csv([*unit.arm.rows(unit, console)], unit.path)


def _under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}/")


def _sets(experiment: Experiment, full: str) -> list[str]:
    """Return the names of an experiment's data and of what its arms bring."""
    return list(dict.fromkeys([full.split("/")[1], *experiment.needs]))


def _missing(experiment: Experiment, full: str, roots: Mapping[str, Path]) -> list[str]:
    """Return the names of data whose folder is not given and must be."""
    own = [full.split("/")[1]] if is_stored(experiment.data) else []
    if not own:
        placed(experiment.data, full.split("/")[1], roots)
    return [name for name in (*own, *experiment.needs) if name not in roots]
