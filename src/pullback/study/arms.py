"""Arms of an experiment, which yield rows, one per case."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from pullback.data import Case, FileCase, PickledCase, layers
from pullback.errors import InputError, Interrupted
from pullback.records.csv_records import read_csv
from pullback.study.evaluate import evaluate
from pullback.study.recipe import Recipe, as_data, changed, digest_of
from pullback.study.run import Run, run
from pullback.training import Evaluation, PairEvaluation, Row, Training, device_of

LATER = ("pairing", "person", "moving", "moving_labels", "without", "landmarks", "scale", "boxes", "learned", "one_way")
"""Members of data that rows depend on only where they are set, so that studies made before there were any go on."""


@dataclass(frozen=True)
class Trial:
    """The conditions of an arm: one seed, and one fold of an experiment's data.

    Attributes:
        out: the study's folder.
        name: of the data.
        data: as in `Experiment`, with its folder.
        evaluates: makes the evaluation of an arm on the test split.
        seed: of all that is random.
        fold: its number.
        settings: of recipes, by dotted keys.
        roots: folders of data, by name.
    """

    out: Path
    name: str
    data: Any = None
    evaluates: Callable[[Any], Evaluation] = PairEvaluation
    seed: int = 0
    fold: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)
    roots: Mapping[str, Path] = field(default_factory=dict)

    def unit(
        self,
        arm: "Arm",
        about: object,
        seeded: bool = True,
        may_lack: bool = False,
        needs: "Unit | None" = None,
        kept: str = "test.csv",
    ) -> "Unit":
        """Return the work of an arm on this trial, in a folder that is named by all that its rows depend on.

        Args:
            about: what the rows depend on beside the seed: data made by `as_data`, the arm's own part first.
            seeded, may_lack, needs: as of `Unit`.
            kept: the name of the file of the rows.
        """
        folder = self.out / "runs" / self.name / f"{_called(about)}-{digest_of(about)}"
        folder = folder / f"seed-{self.seed}" if seeded else folder
        return Unit(arm, self, folder / kept, seeded, may_lack, needs)


@dataclass(frozen=True)
class Unit:
    """The rows of an arm on a trial, made once and kept.

    Attributes:
        arm: with all that the trial says put in.
        path: of the file of the rows.
        seeded: whether the rows differ from seed to seed.
        may_lack: whether a study goes on without the rows where the arm cannot take the data.
        needs: the work that comes before.
    """

    arm: "Arm"
    trial: Trial
    path: Path
    seeded: bool = True
    may_lack: bool = False
    needs: "Unit | None" = None

    @property
    def folder(self) -> Path:
        """The folder in which the arm works."""
        return self.path.parent

    def rows(self) -> list[Row]:
        """Read the rows that are kept; none where there is no file."""
        return read_csv(self.path) if self.path.is_file() else []

    def in_order(self) -> "list[Unit]":
        """Return the units that come before, and then itself."""
        return [*(self.needs.in_order() if self.needs else ()), self]


class Arm(Protocol):
    """A source of rows: a network that is trained, a register, another tool, a simulation."""

    def unit(self, trial: Trial, /) -> Unit:
        """Return the work on a trial: in the simplest case `trial.unit(self, as_data(self))`."""
        ...

    def rows(self, unit: Unit, console: Console, /) -> Iterable[Row]:
        """Make one row per case of the unit's trial: first its name, then numbers. The unit's folder may be used."""
        ...


@dataclass(frozen=True)
class Source:
    """The run of the same seed that an arm learns or continues from; it comes before.

    Attributes:
        arm: whose run it is.
        key: the setting of the recipe that names the run's folder.
        data: the name of its data, where that is not the experiment's; "" for the experiment's.
    """

    arm: "TrainedArm"
    key: str
    data: str = ""

    def unit(self, trial: Trial) -> Unit:
        """Return the work of that run."""
        if not self.data:
            return self.arm.unit(trial)
        recipe = changed(self.arm.recipe, trial.settings)
        data = placed(recipe.data, self.data, trial.roots)
        return self.arm.unit(replace(trial, name=self.data, data=data, evaluates=measured_by(recipe), fold=0))


@dataclass(frozen=True)
class TrainedArm:
    """A network that is trained by a recipe, on the data of the trial.

    Attributes:
        recipe: of the training.
        source: the run that it needs.
        uses: makes what is measured out of the trained network; None measures the network.
        settings: of the recipe on the trial's data, such as `{"data.learned": "0.5"}`: in what this arm differs there.
    """

    recipe: Recipe
    source: Source | None = None
    uses: Callable[[Any], Any] | None = None
    settings: Mapping[str, str] = field(default_factory=dict)

    def unit(self, trial: Trial) -> Unit:
        """Return the run, with the trial's data, seed and settings; runs of one recipe are one, however measured.

        Raises:
            InputError: a setting is not one of the recipe, or is the seed.
        """
        if "training.seed" in trial.settings:
            raise InputError("--set training.seed: a study's seeds are given by --seed")
        recipe = changed(replace(changed(self.recipe, trial.settings), data=trial.data), self.settings)
        needs = None if self.source is None else self.source.unit(trial)
        of_any_seed = as_data(replace(recipe, training=replace(recipe.training, seed=Training().seed)))
        numbers = {key: part for key, part in of_any_seed.items() if key not in ("about", "data")}
        about = [as_data(recipe.network), numbers, about_data(recipe.data, True), needs and needs.folder.parent.name]
        recipe = replace(recipe, training=replace(recipe.training, seed=trial.seed))
        if self.source is not None and needs is not None:
            recipe = changed(recipe, {self.source.key: str(needs.folder)})
        kept = f"test-{digest_of(as_data(trial.evaluates), as_data(self.uses))}.csv"
        return trial.unit(replace(self, recipe=recipe), about, needs=needs, kept=kept)

    def rows(self, unit: Unit, console: Console) -> list[Row]:
        """Train, or continue what was stopped, and measure.

        Raises:
            Interrupted: it was asked to stop.
        """
        try:
            network = run(self.recipe, unit.folder, resume=True, console=console).to(device_of())
        except Interrupted as error:
            raise Interrupted(f"{str(error).split(';')[0]}; the same command goes on from there") from None
        return _measured(network if self.uses is None else self.uses(network), unit.trial, console)


@dataclass(frozen=True)
class SourceArm:
    """A network that was trained on other data, as it is: a teacher beside its students.

    Attributes:
        source: its run.
        uses: as of `TrainedArm`.
    """

    source: Source
    uses: Callable[[Any], Any] | None = None

    def unit(self, trial: Trial) -> Unit:
        """Return the work, after that run."""
        needs = self.source.unit(trial)
        about = [as_data(self.source.arm.recipe.network), needs.folder.parent.name, about_data(trial.data)]
        used = [] if self.uses is None else [as_data(self.uses)]
        return trial.unit(self, [*about, as_data(trial.evaluates), *used], needs=needs)

    def rows(self, unit: Unit, console: Console) -> list[Row]:
        """Measure the run of the same seed."""
        assert unit.needs is not None
        run = Run(str(unit.needs.folder))
        return _measured(run if self.uses is None else self.uses(run.network), unit.trial, console)


@dataclass(frozen=True)
class RegisterArm:
    """A register without training, as measured by the trial's evaluation; the same for all seeds."""

    register: Any

    def unit(self, trial: Trial) -> Unit:
        """Return the work, which may end without rows where the register cannot take the images."""
        about = [as_data(self.register), about_data(trial.data), as_data(trial.evaluates)]
        return trial.unit(self, about, seeded=False, may_lack=True)

    def rows(self, unit: Unit, console: Console) -> list[Row]:
        """Measure the register."""
        return _measured(self.register, unit.trial, console)


@dataclass(frozen=True)
class FunctionArm:
    """A simulation, or another function that returns rows.

    Attributes:
        function: the trial's data and its seed → rows.
        seeded: whether the rows differ from seed to seed.
    """

    function: Callable[[Any, int], Iterable[Row]]
    seeded: bool = True

    def unit(self, trial: Trial) -> Unit:
        """Return the work, named by the function and the data."""
        return trial.unit(self, [as_data(self.function), as_data(trial.data)], self.seeded)

    def rows(self, unit: Unit, console: Console) -> Iterator[Row]:
        """Call the function."""
        yield from self.function(unit.trial.data, unit.trial.seed)


def measured_by(recipe: Recipe) -> partial[Any]:
    """Return the evaluation of a recipe's networks, as data."""
    return recipe.evaluation or partial(PairEvaluation, metrics=recipe.metrics)


def is_stored(data: Any) -> bool:
    """Return whether data is read from a folder, its `root`; of data made of other data, whether that is."""
    *_, known = layers(data)
    return is_dataclass(known) and any(each.name == "root" for each in fields(known))


def placed(data: Any, name: str, roots: Mapping[str, Path]) -> Any:
    """Return the data of this name with its folder.

    Raises:
        InputError: no folder is given for data that is read, or one for data that is made.
    """
    if is_stored(data):
        if name not in roots:
            raise InputError(f"say where the images of {name} are: --data {name}=DIR")
        return replace(data, root=str(roots[name]))
    if name in roots:
        raise InputError(f"--data {name}={roots[name]}: this data is made, not read; it takes no folder")
    return data


def _measured(register: Any, trial: Trial, console: Console) -> list[Row]:
    return evaluate({"": register}, trial.data.test, trial.evaluates, device_of(), console)[""]


def _called(about: Any) -> str:
    """Return the name of the part, or the function, that data describes."""
    while isinstance(about, list):
        about = about[0]
    return str(next(iter(about.values()))).rsplit(".", 1)[-1].lower()


def about_data(data: Any, trains: bool = False) -> object:
    """Return what rows depend on in data: the subjects of each split and the sizes of files, not their place."""
    splits = {"test": [case for pair in data.test.pairs for case in pair]}
    if trains:
        splits["train"] = data.train.cases
        splits["validation"] = [case for pair in data.validation.pairs for case in pair]
    cases = {split: sorted({(case.name, *_sizes(case)) for case in listed}) for split, listed in splits.items()}
    about = as_data(replace(data, root="") if is_stored(data) else data)
    kept = {key: value for key, value in about.items() if value or key not in LATER}
    return [{key: value for key, value in kept.items() if key != "out"}, cases]


def _sizes(case: Case) -> tuple[int, ...]:
    """Return the sizes of a case's files in bytes; 0 for one that it does not have."""
    files = case.files if isinstance(case, FileCase | PickledCase) else ()
    return tuple(0 if path is None else path.stat().st_size for path in files)
