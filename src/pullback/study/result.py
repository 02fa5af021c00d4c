"""Results of an experiment, once its arms were measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from pullback.data import Dataset
from pullback.records.csv_records import read_csv, write_csv
from pullback.study.arms import TrainedArm, Unit
from pullback.study.recipe import Recipe, as_data, digest_of
from pullback.study.run import load_network
from pullback.training import Row


@dataclass(frozen=True)
class Result:
    """An experiment's rows, and its runs.

    Attributes:
        name: of the experiment.
        baseline: the name of the arm that the others are compared with.
        units: by arm, one per seed and fold, or per fold where seeds do not matter.
    """

    name: str
    baseline: str
    units: Mapping[str, Sequence[Unit]]

    @cached_property
    def rows(self) -> dict[str, list[Row]]:
        """The rows of each arm that has some, with their `seed`; "" where seeds do not matter."""
        found: dict[str, list[Row]] = {}
        for arm, units in self.units.items():
            for unit in units:
                seed = str(unit.trial.seed) if unit.seeded else ""
                found.setdefault(arm, []).extend({**row, "seed": seed} for row in unit.rows())
        return {arm: rows for arm, rows in found.items() if rows}

    @cached_property
    def runs(self) -> dict[str, list[Unit]]:
        """The units of the arms that were trained."""
        trained = {arm: [u for u in units if isinstance(u.arm, TrainedArm)] for arm, units in self.units.items()}
        return {arm: units for arm, units in trained.items() if units}

    @property
    def recipe(self) -> Recipe:
        """The recipe of the baseline's first run, or of the first arm that was trained."""
        units = self.runs.get(self.baseline) or next(iter(self.runs.values()))
        return recipe_of(units[0])

    @property
    def data(self) -> Dataset:
        """The data of the first fold."""
        return next(iter(self.units.values()))[0].trial.data

    def measured(self, kind: str, measure: Callable[["Result"], list[Row]]) -> list[Row]:
        """Return the rows of `measure` for this result; they are kept in a file, and read from it the next time."""
        units = [unit for listed in (self.runs or self.units).values() for unit in listed]
        digest = digest_of(as_data(measure), [f"{unit.folder.parent.name}/{unit.folder.name}" for unit in units])
        path = units[0].trial.out / "runs" / units[0].trial.name / f"{kind}-{digest}.csv"
        if not path.is_file():
            write_csv(measure(self), path)
        return read_csv(path)


def recipe_of(unit: Unit) -> Recipe:
    """Return the recipe of a run, as it was trained.

    Raises:
        TypeError: the unit is no run.
    """
    if not isinstance(unit.arm, TrainedArm):
        raise TypeError(f"{unit.folder}: no network was trained there")
    return unit.arm.recipe


def network_of(unit: Unit) -> nn.Module:
    """Return the network of a run with its best weights, on the CPU: a register of the data's own pairs."""
    return load_network(unit.folder)[1]
