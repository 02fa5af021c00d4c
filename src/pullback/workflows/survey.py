"""A survey before the work: what is wrong with the files of a data set, told at once, and going on without them."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track

from pullback.data import Stored, Test
from pullback.data.case import person_of
from pullback.data.faults import APART, Fault
from pullback.data.folder import PairFolder
from pullback.data.learn2reg import Learn2Reg
from pullback.data.survey import Survey, survey
from pullback.energies import LabelMSE, SoftDice, SoftHausdorff
from pullback.errors import InputError
from pullback.files import Finding, Severity
from pullback.study.arms import placed
from pullback.study.recipe import changed
from pullback.study.resume import LearnsLabels, parts
from pullback.study.table import Experiment
from pullback.workflows.doctor import layout

Data = TypeVar("Data")


def looked_at(
    data: Any, console: Console | None = None, learns_labels: bool = False, only: Collection[str] | None = None
) -> Survey:
    """Survey a data set, or `only` some of its cases, with progress on a terminal.

    Raises:
        InputError: as of `survey`.
    """

    def shown(read: Iterable[list[Fault]], count: int) -> Iterable[list[Fault]]:
        quiet = console is None or not console.is_terminal
        return track(read, "looking at the files", count, console=console, transient=True, disable=quiet)

    return survey(data, learns_labels, only, shown)


def surveyed(data: Data, console: Console, skip_bad: bool = False, learns_labels: bool = False) -> Data:
    """Return a data set whose files can all be used, after telling what was found.

    Args:
        skip_bad: leave out what cannot be used, by its `without`; splits are drawn as if it were there.

    Raises:
        InputError: files cannot be used, all of which are named; or a data set that lists no images.
    """
    if not isinstance(data, Stored):
        return data
    seen = looked_at(data, console, learns_labels)
    bad = set(seen.bad)
    if seen.findings and (skip_bad or not bad or console.is_terminal):  # else the error is all that is told
        console.print(layout(seen.findings))
    if not bad:
        return data
    if not skip_bad:
        raise InputError(in_words(seen))
    console.print(f"left out: {len(bad)} of {seen.cases} images ({', '.join(sorted(bad))})", highlight=False)
    return without(data, bad)


def usable_test(data: Any, console: Console) -> tuple[Test, dict[str, str]]:
    """Return the test split without what cannot be used, and what is wrong with that, by the names of cases; all told.

    Raises:
        InputError: nothing of it can be used.
    """
    test: Test = data.test
    if not isinstance(data, Stored):
        return test, {}
    names = {case.name for pair in test.pairs for case in pair}
    seen = looked_at(data, console, only=names)
    if seen.findings:
        console.print(layout(seen.findings))
    bad = {fault.case: fault.said for fault in seen.faults if fault.is_error and fault.kind is not APART}
    kept = test.without(bad)
    if bad:
        lost = len(test) - len(kept)
        said = f"{lost} of {len(test)} test examples are not reported, for these are missing: {', '.join(sorted(bad))}"
        console.print(said, style="bold red", highlight=False)
    if not len(kept):
        raise InputError(in_words(seen))
    if isinstance(data, PairFolder):
        who, everyone = len(kept.names), len({person_of(case) for case in data.cases})
        more = "" if who == everyone else "; --set data.test_split=1 tests all"
        console.print(f"tested: {who} of {everyone} subjects, {len(kept)} pairs{more}", highlight=False)
    return kept, bad


def surveyed_study(
    wanted: Mapping[str, Mapping[str, Experiment]], roots: Mapping[str, Path], console: Console, skip_bad: bool = False
) -> dict[str, dict[str, Experiment]]:
    """Return the experiments of a study on data whose files can all be used, each data set looked at once.

    Raises:
        InputError: as of `surveyed`.
    """
    known: dict[object, Any] = {}

    def whole(name: str, one: Experiment) -> Experiment:
        own = name.split("/", maxsplit=1)[0]
        if own not in roots:
            return one
        data = placed(one.data, own, roots)
        if data not in known:
            known[data] = surveyed(data, console, skip_bad)
        return replace(one, data=known[data])

    return {table: {name: whole(name, one) for name, one in each.items()} for table, each in wanted.items()}


def without(data: Data, names: Iterable[str]) -> Data:
    """Return a data set without cases of these names.

    Raises:
        InputError: it cannot leave out any.
    """
    if not isinstance(data, PairFolder | Learn2Reg):
        raise InputError(f"a {type(data).__name__} is used whole: mend its files, --skip-bad leaves none out")
    return replace(data, without=tuple(sorted({*data.without, *names})))


def in_words(seen: Survey) -> str:
    """Return all errors of a survey in one line: every file, and what to do about each kind."""
    wrong = [one for one in seen.findings if one.severity is Severity.ERROR]
    said = [f"{', '.join(line.strip() for line in one.what.splitlines())}. {one.remedy}" for one in wrong]
    return f"{len(seen.bad)} of {seen.cases} images cannot be used: " + " ".join(said).replace(":,", ":")


def learns_labels(recipe: Any) -> bool:
    """Return whether a part of a recipe is an energy of labels, or says that it learns from them."""
    every = [*parts(recipe)]
    said = any(part.learns_labels for part in every if isinstance(part, LearnsLabels))
    return said or any(isinstance(part, SoftDice | SoftHausdorff | LabelMSE) for part in every)


def is_cohort(path: Path, settings: Collection[str] = ()) -> bool:
    """Return whether a path is a folder to survey: one that is told how to be read, or has images or a list of them."""
    patterns = ("*_dataset.json", "*.nii.gz", "*.nii", "sub-*")
    return path.is_dir() and (bool(settings) or any(any(path.glob(pattern)) for pattern in patterns))


def examine_folder(folder: Path, settings: dict[str, str], console: Console | None = None) -> tuple[Finding, ...]:
    """Return what is wrong or remarkable in a folder of images, the worst first, and a note of what it holds.

    Args:
        settings: as `--set data.images=…`; without any the folder is read as one of Learn2Reg where it has such a list.

    Raises:
        InputError: no images match, or a setting is not one of the data's.
    """
    listed = [path for path in folder.glob("*_dataset.json") if not path.name.startswith(".")]
    kind: PairFolder | Learn2Reg = Learn2Reg(str(folder)) if listed and not settings else PairFolder(str(folder))
    data = changed(kind, {key.removeprefix("data."): value for key, value in settings.items()})
    try:
        seen = looked_at(data, console)
    except InputError as error:
        raise InputError(f"{error}; {folder} is a folder: say which of its files are images") from error
    note = f"{folder} holds {seen.cases} images of {seen.people} people: {seen.about}."
    return (*seen.findings, Finding(Severity.NOTE, note, "Check that these are whom you mean."))
