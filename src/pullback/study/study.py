"""Many runs, told as the tables and figures of a paper."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from pullback.alignment import Register
from pullback.data import Dataset
from pullback.methods.pair.convex_adam import ConvexAdam
from pullback.records.csv_records import read_csv, write_csv
from pullback.study.evaluate import unmoved
from pullback.study.families import Family, Ranges
from pullback.study.recipe import Recipe, as_data, digest_of
from pullback.study.run import load_network

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, float | str]


@dataclass(frozen=True)
class Source:
    """The run of the same seed that an arm learns from or goes on from; it comes before.

    Attributes:
        arm: whose run it is.
        key: the setting of the recipe that names the run's folder.
        experiment: which that arm is of; None for the same.
        name: of that other experiment's data and network.
    """

    arm: str
    key: str
    experiment: "Experiment | None" = None
    name: str = ""


@dataclass(frozen=True)
class Experiment:
    """Recipes, by arm, that are trained on the same pairs with the same seeds and measured on the same test pairs.

    Attributes:
        arms: by name. All have the same data.
        reference: the arm that the others are compared with, pair by pair; "" for the first.
        sources: of the arms that need another run.
        registers: by name, what needs no training and is measured beside them.
    """

    arms: Mapping[str, Recipe]
    reference: str = ""
    sources: Mapping[str, Source] = field(default_factory=dict)
    registers: Mapping[str, Register] = field(default_factory=lambda: {"before": unmoved, "ConvexAdam": ConvexAdam()})

    @property
    def compared_with(self) -> str:
        """The arm of `reference`."""
        return self.reference or next(iter(self.arms))

    @property
    def data(self) -> Dataset:
        return next(iter(self.arms.values())).data


@dataclass(frozen=True)
class Part:
    """A table of a paper, or what one figure needs.

    Attributes:
        title: what it shows.
        claim: what the paper says it shows, with its figures.
        experiments: by the name of their data and network: the groups of the table's rows.
        figures: by file name, of each outcome.
        measures: the numbers of the table.
        tests: what is asked of the arms, beside each arm's difference to the reference.
        tested: of which number.
    """

    title: str
    claim: str
    experiments: Mapping[str, Experiment]
    figures: Mapping[str, "Drawing"] = field(default_factory=dict)
    measures: Sequence[str] = ("dice", "folding %", "sdlogj")
    tests: Sequence[Family | Ranges] = ()
    tested: str = "dice"


@dataclass(frozen=True)
class Drawing:
    """A figure of an outcome.

    Attributes:
        draw: from the outcome and what was measured for it.
        measure: what must be measured first, as rows that are kept; None where the runs tell enough.
        by: the columns of those rows that name the rows of a table, of means over seeds; without any there is none.
    """

    draw: Callable[["Outcome", Sequence[Row]], "Figure"]
    measure: Callable[["Outcome"], list[Row]] | None = None
    by: Sequence[str] = ()


@dataclass(frozen=True)
class Study:
    """The parts of a paper's evaluation, by name."""

    about: str
    parts: Mapping[str, Part]


@dataclass(frozen=True)
class Planned:
    """A recipe, the folder of its run, and the run that it needs."""

    recipe: Recipe
    folder: Path
    source: "Planned | None" = None


@dataclass(frozen=True)
class Outcome:
    """An experiment, its runs by arm and seed, and the files that tell of the registers beside them."""

    name: str
    experiment: Experiment
    runs: Mapping[str, Mapping[int, Planned]]
    beside: Mapping[str, Path]

    @cached_property
    def rows(self) -> dict[str, list[Row]]:
        """What was done on the test pairs: by each register beside that can take them, a row per pair; by each arm, per
        seed and pair."""
        beside: dict[str, list[Row]] = {
            name: [{"seed": "", **row} for row in read_csv(path)]
            for name, path in self.beside.items()
            if path.is_file()
        }
        return beside | {
            arm: [{"seed": str(seed), **row} for seed, run in runs.items() for row in read_csv(run.folder / TESTED)]
            for arm, runs in self.runs.items()
        }

    @property
    def reference(self) -> str:
        return self.experiment.compared_with

    def network(self, arm: str, seed: int) -> nn.Module:
        """With its best weights, on the CPU: a register of the data's own pairs."""
        return load_network(self.runs[arm][seed].folder)[1]

    def measured(self, kind: str, measure: Callable[["Outcome"], list[Row]]) -> list[Row]:
        """What `measure` says of these runs; kept in a file beside them, and read from there the next time."""
        runs = [run.folder for by_seed in self.runs.values() for run in by_seed.values()]
        digest = digest_of(as_data(measure), [f"{run.parent.name}/{run.name}" for run in runs])
        path = runs[0].parent.parent / f"{kind}-{digest}.csv"
        if not path.is_file():
            write_csv(measure(self), path)
        return read_csv(path)

    @property
    def recipe(self) -> Recipe:
        """Of the reference with the first seed, as it was run; its data is that of all."""
        return self.runs[self.reference][self.seeds[0]].recipe

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(self.runs[self.reference])


TESTED = "test.csv"
