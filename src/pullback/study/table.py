"""Studies as their authors write them: tables of experiments, whose arms yield rows and whose columns are data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pullback.metrics import STANDARD, Metric
from pullback.study.arms import Arm
from pullback.study.contrasts import Contrasts, TukeyRange
from pullback.training import Evaluation, PairEvaluation, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

    from pullback.study.result import Result


@dataclass(frozen=True)
class Column:
    """A column of a table: a number of the rows.

    Attributes:
        name: of the number, in words.
        unit: of the number; "" for none.
        better: whether `"less"` or `"more"` of it is better; "" for neither.
        against: how an arm is compared with the baseline: by the `"difference"` of the means, with a test of cases, or
            by the `"ratio"` of the means; "" for not at all.
        of: what of the cases' numbers is told: the `"mean"` with its deviation, the `"median"`, the `"max"`, or the
            `"rate"`, in %, of a number that is 1 or 0.
        digits: after the point; None chooses them by size.
        key: the number's name in the rows; "" for name and unit in lower case.
    """

    name: str
    unit: str = ""
    better: Literal["less", "more", ""] = ""
    against: Literal["difference", "ratio", ""] = ""
    of: Literal["mean", "median", "max", "rate"] = "mean"
    digits: int | None = None
    key: str = ""

    @property
    def number(self) -> str:
        """The number's name in the rows."""
        return self.key or f"{self.name} {self.unit}".strip().lower()

    @property
    def heading(self) -> str:
        """The name and unit, with an arrow to where it is better."""
        arrow = {"less": "↓", "more": "↑", "": ""}[self.better]
        return " ".join(filter(None, (self.name, self.unit, arrow)))

    @property
    def label(self) -> str:
        """The name and unit for an axis."""
        return ", ".join(filter(None, (self.name, self.unit)))


@dataclass(frozen=True)
class Experiment:
    """Arms that are measured on the same cases.

    Attributes:
        arms: by name. Networks among them are trained with the same seeds, on the data below.
        baseline: the arm that the others are compared with, case by case; "" for the first.
        data: three splits, of which arms are measured on the test split; or whatever the arms take, or None.
        metrics: of pairs of images: what is measured of them.
        evaluation: of other examples: makes what measures an arm on a split, an `Evaluation`.
        folds: settings such as `{"data.fold": "3"}`; under each of them all arms are measured on further cases.
        needs: names of further data that arms bring, whose folders are asked for.
    """

    arms: Mapping[str, Arm]
    baseline: str = ""
    data: Any = None
    metrics: tuple[Metric, ...] = STANDARD
    evaluation: partial[Any] | None = None
    folds: Sequence[Mapping[str, str]] = ({},)
    needs: Sequence[str] = ()

    @property
    def compared_with(self) -> str:
        """The name of the baseline."""
        return self.baseline or next(iter(self.arms))

    @property
    def evaluates(self) -> Callable[[Any], Evaluation]:
        """The evaluation of an arm, made of a split."""
        return self.evaluation or partial(PairEvaluation, metrics=self.metrics)


@dataclass(frozen=True)
class Table:
    """A table of a paper, or what one figure needs.

    Attributes:
        title: what it shows.
        claim: what the paper says it shows, with its figures.
        experiments: by the name of their data, or data and network: the groups of the table's rows.
        columns: of the table.
        figures: by file name, of each experiment.
        tests: what is asked of the arms, beside the columns' comparisons with the baseline.
        tested: the number in the rows that these are of; or several.
        unit: the column of the rows by whose values cases are averaged before anything is tested, such as `"subject"`;
            "" tests cases.
    """

    title: str
    claim: str
    experiments: Mapping[str, Experiment]
    columns: Sequence[Column]
    figures: Mapping[str, "Figure"] = field(default_factory=dict)
    tests: Sequence[Contrasts | TukeyRange] = ()
    tested: str | tuple[str, ...] = ""
    unit: str = ""


@dataclass(frozen=True)
class Figure:
    """A figure of an experiment.

    Attributes:
        draw: from the result and what was measured for it.
        measure: what must be measured first, as rows that are kept; None where the arms' rows tell enough.
        by: the columns of those rows that name the rows of a table, of means over seeds; without any there is none.
    """

    draw: Callable[["Result", Sequence[Row]], "Drawing"]
    measure: Callable[["Result"], list[Row]] | None = None
    by: Sequence[str] = ()


@dataclass(frozen=True)
class Study:
    """The tables of a paper's evaluation, by name."""

    about: str
    tables: Mapping[str, Table]
