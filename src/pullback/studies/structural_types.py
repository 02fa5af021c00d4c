"""The study of structural types (Kruggel 2022): populations whose types are known, and what registration removes.

    pullback study structural-types truth
    pullback study structural-types removed/hippocampus --data hippocampus=DIR
    pullback study structural-types removed/hippocampus --data hippocampus=DIR --set data.count=100
    pullback study structural-types removed/brains --data brains=DIR

`truth` draws populations of partitions of one type and of four, and asks how many there are: by the whole method, by
the information criterion alone and by the silhouette alone, which the paper takes.

In `removed` everybody is registered to the person who is nearest to all, by the fast preset, and the question is asked
anew after each stage. Labels are pulled once, from the nearest voxel. "Within" counts pairs of one type alone, of the
types that are found after the affine stage; the last arm registers each to the person nearest to all of the own type.
Before, the centroids of all labels lie on each other, unless the images share a grid.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor

from pullback.data import FileCase, Learn2Reg, PairFolder, Subject
from pullback.data.phantoms.partitions import Partitions, Population
from pullback.errors import InputError
from pullback.methods.group.distances import structural
from pullback.methods.group.onto_template import OntoTemplate, Shown, laid_on_centroids, on_one_grid, pulled_labels
from pullback.methods.group.structural_types import Typed, Types, stage_numbers
from pullback.methods.pair.classical import FAST
from pullback.numerics.mixture import adjusted_rand
from pullback.records.atomic import atomic_write
from pullback.space import Affine, Image, Labels, Transform
from pullback.study.arms import Arm, FunctionArm, Trial, Unit
from pullback.study.recipe import as_data
from pullback.study.regression import regression
from pullback.study.table import Column, Experiment, Study, Table
from pullback.training import Row

MANY, SOME = 20, 2  # populations of one seed, of one type and of four, which take longer
TOGETHER = 10  # people who are registered between two times that the maps are kept
KEPT = "found.safetensors"  # beside the rows of the affine stage: its distances and types
RULES = {"all": "count", "BIC alone": "by_bic", "silhouette alone": "by_silhouette"}

# ---- populations with known types


@lru_cache(maxsize=MANY + SOME)
def _answer(data: Partitions) -> tuple[Typed, Population]:
    """Return what is found in a population, and its truth; all rules look at the same answer."""
    population = data.population()
    return Types()(structural(list(population.labels)), regions=population.regions), population


def asked(data: Partitions, seed: int, rule: str, count: int) -> Iterator[Row]:
    """Ask `count` populations how many types they have, by one of `RULES`."""
    for number in range(count):
        found, population = _answer(replace(data, seed=count * seed + number))
        fit = regression(found.scores[:, 0].numpy(), population.regions.numpy())
        shares = {f"explained {d + 1}": float(share) for d, share in enumerate(found.embeddings[0].explained)}
        yield {
            "case": f"population {number}",
            "types": getattr(found, rule),
            "right": float(getattr(found, rule) == data.kinds),
            "rand": adjusted_rand(found.types, population.types),
            **({"r2": fit.r2} if fit else {}),
            **shares,
            **({} if found.dimension[0] is None else {"dimension": found.dimension[0]}),
        }


def _populations(data: Partitions, count: int) -> Experiment:
    arms: dict[str, Arm] = {name: FunctionArm(partial(asked, rule=rule, count=count)) for name, rule in RULES.items()}
    return Experiment(arms, "all", data)


# ---- what registration removes


@dataclass(frozen=True)
class LabelledPeople:
    """People whose images have labels, in a folder of Learn2Reg or one of patterns; no splits are made.

    Attributes:
        root: the folder, or "" until one is given.
        images, labels: patterns, where the folder has no list of Learn2Reg.
        count: how many of the people, evenly spread; 0 for all.
    """

    root: str = ""
    images: str = "*_T1w.nii.gz"
    labels: str = "*_dseg.nii.gz"
    count: int = 0

    @cached_property
    def subjects(self) -> list[Subject]:
        """The people, loaded.

        Raises:
            InputError: fewer than three have labels.
        """
        listed = any(Path(self.root).glob("*_dataset.json"))
        data = Learn2Reg(self.root) if listed else PairFolder(self.root, self.images, self.labels)
        cases: Sequence[FileCase] = [case for case in data.cases if case.labels is not None]
        if len(cases) < 3:
            raise InputError(f"{self.root}: {len(cases)} images with labels; three or more are needed")
        count = self.count or len(cases)
        return [cases[n * len(cases) // count].load() for n in range(min(count, len(cases)))]

    @property
    def known(self) -> list[Labels]:
        """The labels of all, as they are."""
        return [each.labels for each in self.subjects if each.labels is not None]

    @cached_property
    def before(self) -> Tensor:
        """Distances of all before any registration."""
        known = self.known
        return _distances(known if on_one_grid(known) else laid_on_centroids(known))


def _distances(labels: Sequence[Labels]) -> Tensor:
    return structural([each.data[0, 0] for each in labels])


def _nearest(distances: Tensor) -> int:
    """Return who is nearest to all."""
    return int(distances.sum(1).argmin())


@dataclass(frozen=True)
class StageArm:
    """An arm that asks for types after a stage of registration, with one row.

    Transforms and distances are kept beside the rows, for the arms that come after.

    Attributes:
        stage: `"before"`, `"affine"`, `"deformable"` or `"by type"`.
        onto: how people are registered.
        types: how types are sought.
    """

    stage: str
    onto: OntoTemplate = OntoTemplate(replace(FAST, deformable=None), replace(FAST, initialise=None, linear=()))
    types: Types = Types()

    def unit(self, trial: Trial) -> Unit:
        """Return the work; the last two stages go on from the affine one."""
        sizes = [(path.name, path.stat().st_size) for path in sorted(Path(trial.data.root).rglob("*.nii.gz"))]
        about = [as_data(self), as_data(replace(trial.data, root="")), sizes]
        needs = replace(self, stage="affine").unit(trial) if self.stage in ("deformable", "by type") else None
        return trial.unit(self, about, seeded=False, needs=needs)

    def rows(self, unit: Unit, console: Console) -> Iterator[Row]:
        """Register, and ask."""
        data: LabelledPeople = unit.trial.data
        if self.stage == "before":
            yield _row(stage_numbers(self.types(data.before), data.before, data.before))
            return

        def shown(images: Iterable[Image]) -> Iterable[Image]:
            return track(
                images, f"{self.stage}: {unit.trial.name}", len(data.subjects), console=console, transient=True
            )

        template, images, labels = _nearest(data.before), [each.image for each in data.subjects], data.known
        if self.stage == "affine":
            transforms = self._affine(images, template, unit.folder / "affine.safetensors", shown)
            distances = _after(labels, template, transforms)
            found = self.types(distances)
            _keep({"distances": distances, "types": found.types}, unit.folder / KEPT)
            yield _row(stage_numbers(found, distances, data.before, found.types))
            return
        assert unit.needs is not None
        known = load_file(unit.needs.folder / KEPT)
        if self.stage == "deformable":
            starts = self._affine(images, template, unit.needs.folder / "affine.safetensors", shown)
            distances = _after(labels, template, self.onto.deformed(images, template, starts, shown))
            yield _row(stage_numbers(self.types(distances), distances, data.before, known["types"]))
            return
        distances = self._by_type(images, labels, known["types"], known["distances"], unit.folder, shown)
        yield _row(stage_numbers(None, distances, data.before, known["types"]))

    def _by_type(
        self,
        images: Sequence[Image],
        labels: Sequence[Labels],
        types: Tensor,
        distances: Tensor,
        folder: Path,
        shown: Shown,
    ) -> Tensor:
        """Return distances within types, each registered to the nearest of the own type; of two types they are 0."""
        after = torch.zeros_like(distances)
        for k in types.unique().tolist():
            who = (types == k).nonzero()[:, 0]
            own, theirs = _nearest(distances[who][:, who]), [images[n] for n in who]
            starts = self._affine(theirs, own, folder / f"affine-{k}.safetensors", shown)
            transforms = self.onto.deformed(theirs, own, starts, shown)
            if len(who) > 1:
                after[who[:, None], who] = _after([labels[n] for n in who], own, transforms)
        return after

    def _affine(self, images: Sequence[Image], template: int, path: Path, shown: Shown) -> list[Transform]:
        """Return the maps of the affine stage, of which those that the file has are not made again."""
        known = [*load_file(path)["matrices"]] if path.is_file() else []
        for n, _ in enumerate(shown(images)):
            if n == len(known):
                some = self.onto.affine([images[template], *images[n : n + TOGETHER]], 0)[1:]
                known += [each.as_affine.matrix for each in some if each.as_affine is not None]
                _keep({"matrices": torch.stack(known)}, path)
        return [Affine(matrix) for matrix in known]


def _keep(tensors: dict[str, Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        save_file({name: values.contiguous() for name, values in tensors.items()}, temporary)


def _after(labels: Sequence[Labels], template: int, transforms: Sequence[Transform]) -> Tensor:
    return _distances(pulled_labels(labels, transforms, labels[template].grid))


def _row(numbers: dict[str, float]) -> Row:
    return {"case": "people", **numbers}


STAGES = ("before", "affine", "deformable", "by type")
TRUTH = (
    Column("right", better="more", of="rate"),
    Column("types", digits=2),
    Column("Rand", better="more", digits=2, key="rand"),
    Column("R² of regions", digits=2, key="r2"),
    *(Column(f"explained {d}", digits=3) for d in range(1, 5)),
    Column("dimension", digits=1),
)
REMOVED = (
    Column("people", digits=0),
    Column("variance", digits=4),
    Column("removed", better="more", digits=3),
    Column("variance within", digits=4),
    Column("removed within", better="more", digits=3),
    Column("types", digits=0),
    Column("by BIC", digits=0, key="by BIC"),
    Column("by silhouette", digits=0),
    Column("p of one", digits=3),
    *(Column(f"explained {d}", digits=3) for d in range(1, 5)),
)

study = Study(
    about="Distinct structural patterns of the human brain: a caveat for registration (Kruggel 2022)",
    tables={
        "truth": Table(
            "Populations whose number of types is known",
            "None: the paper's people have no truth. It finds four types, by the criterion and the silhouette.",
            {
                "partitions/one": _populations(Partitions(100, 1), MANY),
                "partitions/four": _populations(Partitions(400, 4), SOME),
            },
            TRUTH,
        ),
        "removed": Table(
            "What registration removes of the variance, and how many types there are after it",
            "Section 1: registration reduces the total variance by 20 to 40 % only; no method is named. Table 1: the "
            "structural dimensions explain 0.559 0.123 0.084 0.045 on the left, 0.588 0.098 0.058 0.046 on the right.",
            {
                name: Experiment({stage: StageArm(stage) for stage in STAGES}, "before", LabelledPeople())
                for name in ("hippocampus", "brains")
            },
            REMOVED,
        ),
    },
)
