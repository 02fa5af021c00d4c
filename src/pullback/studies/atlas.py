"""The study of atlases: templates by any register and by a network, beside single people, plain means and ANTs.

    pullback study atlas truth --seed 0
    pullback study atlas ages --seed 0
    pullback study atlas labels/hippocampus --data hippocampus=DIR --seed 0
    pullback study atlas labels/slices --data slices=DIR --seed 0
    pullback study atlas labels/brains --data brains=DIR --seed 0
    pullback study atlas people --seed 0
    pullback study atlas weights/phantom --seed 0 --set training.updates=300

In `truth` and `people` subjects are made of one template by known maps, so that their true mean shape is known: where
points of the template lie on average over the subjects. `offset` is how far a template lies from it: the mean distance,
over lit voxels, between a point and where the template's maps and the true ones lead it, on average over the subjects.

In `labels` templates are made of some people; their labels, voted through the maps that one preset finds from each
template to its people, are carried onto others by the same preset. So the arms differ in the template alone. The arm
of single people carries the labels of each of a few of them.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from pullback.data import BrainPhantom, Learn2Reg, Subject
from pullback.data.case import subject_of
from pullback.data.single_scans import SingleScans
from pullback.errors import InputError
from pullback.files import read_image, write_image
from pullback.methods.group.ages import age_weights
from pullback.methods.group.atlas import AtlasEvaluation
from pullback.methods.group.mean_shape import sharpness
from pullback.methods.group.template import Template, TemplateBuilder, common_grid, mean_image
from pullback.methods.labels.consensus import weighted
from pullback.methods.pair.classical import FAST
from pullback.numerics.random import make_generator
from pullback.recipes.atlas import CHILDREN, POPULATIONS, atlas
from pullback.recipes.datasets import BRAINS, SLICES
from pullback.records.manifest import forget_peak_memory, peak_memory_mb
from pullback.space import Affine, Displacement, Grid, Image, Labels, Transform, inverted, pull
from pullback.study.arms import FunctionArm, TrainedArm
from pullback.study.table import Column, Experiment, Study, Table
from pullback.training import Row

CPU = torch.device("cpu")
LINEAR, DEFORMABLE = replace(FAST, deformable=None), replace(FAST, initialise=None, linear=())
BUILDER = TemplateBuilder(LINEAR, DEFORMABLE)
ALIGNED = replace(BUILDER, linear=None)
AFFINE = replace(BUILDER, deformable=None)
BIASED = replace(ALIGNED, centred=False, begin=0)
SINGLES = 3  # people whose labels are carried one by one


def loaded(cases: Sequence[Any]) -> list[Subject]:
    """Return the first scan of each person."""
    first: dict[str, Any] = {}
    for case in cases:
        first.setdefault(subject_of(case), case)
    return [case.load() for _, case in sorted(first.items())]


# ---- truth


@dataclass(frozen=True, eq=False)
class TrueMean:
    """The true mean shape of subjects who were made of one template.

    Attributes:
        grid: about the template.
        to_mean: from the template's world to the mean's.
        people: maps from each to the template's world.
    """

    grid: Grid
    to_mean: Displacement
    people: Sequence[Transform]

    def offset(self, maps: Sequence[tuple[int, Transform]], lit: Tensor) -> float:
        """Return how far a world lies from the mean, mm, by maps from it to some of the people, over lit voxels."""
        at = self.grid.to_world(self.grid.voxels(torch.zeros((), dtype=torch.float64))[None])
        there = torch.zeros_like(at)
        for n, found in maps:
            there += self.to_mean.at(self.people[n].at(found.at(at))) / len(maps)
        return float((there - at).norm(dim=1, keepdim=True)[lit].mean())


@lru_cache(maxsize=2)
def true_mean(data: BrainPhantom) -> tuple[list[Subject], TrueMean]:
    """Return the subjects for training, and their true mean shape."""
    people = [case.load() for case in data.train.cases]
    grid, maps = people[0].image.grid, [_to_template(each) for each in people]
    at = grid.to_world(grid.voxels(torch.zeros((), dtype=torch.float64))[None])
    mean = sum((inverted(each).at(at) for each in maps), torch.zeros_like(at)) / len(maps)
    field = (grid.to_voxels(mean) - grid.to_voxels(at)).float()
    return people, TrueMean(grid, Displacement(field, grid), maps)


def _to_template(subject: Subject) -> Transform:
    assert subject.to_template is not None
    return subject.to_template


def built(data: BrainPhantom, seed: int, builder: TemplateBuilder, backwards: bool = False) -> Iterator[Row]:
    """Make the template of subjects in their order, or in the other, and measure it."""
    people, truth = true_mean(data)
    order = list(range(len(people)))[:: -1 if backwards else 1]
    images = [people[n].image for n in order]
    forget_peak_memory(CPU)
    begin = time.perf_counter()
    found = builder.template(images, builder.placed(images))
    seconds = time.perf_counter() - begin
    lit = _lit(people)
    maps = [(n, found.transform(k)) for k, n in enumerate(order)]
    row = {"offset mm": truth.offset(maps, lit), "sharpness": sharpness(found.image, lit)}
    row |= {"mean mm": found.rounds[-1]["mean mm"]} if found.rounds else {}
    yield {"case": "template", **row, "seconds": seconds, "peak mb": peak_memory_mb(CPU)}


def nearest(data: BrainPhantom, seed: int) -> Iterator[Row]:
    """Measure the subject who is nearest to the mean shape, as if it were the template."""
    people, truth = true_mean(data)
    lit, still = _lit(people), Affine.identity(truth.grid.ndim)
    offsets = [truth.offset([(n, still)], lit) for n in range(len(people))]
    best = min(range(len(people)), key=lambda n: offsets[n])
    yield {"case": "template", "offset mm": offsets[best], "sharpness": sharpness(people[best].image, lit)}


def by_truth(data: BrainPhantom, seed: int) -> Iterator[Row]:
    """Measure the mean of the subjects through their true maps: what a template could be."""
    people, truth = true_mean(data)
    to_template = truth.to_mean.inverse()
    maps = [inverted(each) @ to_template for each in truth.people]
    weights = torch.full((len(people),), 1 / len(people))
    found = mean_image([each.image for each in people], truth.grid, lambda n: maps[n], weights, range(len(people)))
    offset = truth.offset(list(enumerate(maps)), _lit(people))
    yield {"case": "template", "offset mm": offset, "sharpness": sharpness(found, _lit(people))}


def _lit(people: Sequence[Subject]) -> Tensor:
    """Return where most of the subjects have tissue, `(1, 1, *spatial)` bool."""
    return torch.stack([each.image.data > 0.1 for each in people]).float().mean(0) > 0.5


# ---- ages


def by_age(data: SingleScans, seed: int, builder: TemplateBuilder, bandwidth: float = 0.75) -> Iterator[Row]:
    """Make templates of children at ages, and compare their volume with that of the children of that age.

    Volumes are of the voted labels; of the children their mean by logarithms, by the same weights.
    """
    scans = [case.load() for case in data.train.cases]
    ages = torch.tensor([float(each.about["age"]) for each in scans], dtype=torch.float64)
    images = [each.image for each in scans]
    begin = time.perf_counter()
    placed = builder.placed(images)
    for age in POPULATIONS["growth"].ages:
        weights = age_weights(ages, age, bandwidth)
        found = builder.template(images, placed, weights)
        labels = _voted(found, scans)
        known = torch.stack([_volume(each.labels) for each in scans if each.labels is not None]).log()
        wanted = float((weights * known).sum().exp())
        volume = float(_volume(labels))
        yield {
            "case": f"age {age:g}",
            "volume ml": volume / 1000,
            "of the children ml": wanted / 1000,
            "error %": 100 * (volume / wanted - 1),
            "sharpness": sharpness(found.image),
            "mean age": float((weights * ages).sum()),
            "seconds": time.perf_counter() - begin,
        }


def _volume(labels: Labels) -> Tensor:
    """Return the volume of all labels, mm³."""
    return (labels.data > 0).double().sum() * torch.linalg.det(labels.grid.affine[:-1, :-1]).abs()


def _voted(found: Template, scans: Sequence[Subject]) -> Labels:
    maps = [pull(_labels(scans[n]), found.transform(n), onto=found.image).data for n in found.who]
    return weighted(Labels(torch.cat(maps), found.image.grid), found.weights).labels


def _labels(subject: Subject) -> Labels:
    if subject.labels is None:
        raise InputError(f"{subject.name}: has no labels, and labels are what is carried; set data.labels")
    return subject.labels


# ---- labels


@dataclass(frozen=True)
class TemplatePeople:
    """People of a data set: some to make a template of, and others onto whom its labels are carried.

    Attributes:
        data: the data set.
        made_of, others: how many: of those for training, and of those for tests.
        root: the folder of the data set.
    """

    data: Any
    made_of: int = 10
    others: int = 8
    root: str = ""

    @property
    def both(self) -> tuple[list[Subject], list[Subject]]:
        """The people of both kinds, loaded.

        Raises:
            InputError: there are fewer.
        """
        known = replace(self.data, root=self.root)
        tested = [case for pair in known.test.pairs for case in pair]
        found = loaded(known.train.cases)[: self.made_of], loaded(tested)[: self.others]
        if (len(found[0]), len(found[1])) != (self.made_of, self.others):
            raise InputError(f"{self.made_of} and {self.others} people expected; there are {[*map(len, found)]}")
        return found


def by_builder(people: Sequence[Subject], builder: TemplateBuilder) -> Image:
    """Return the template by our own builder."""
    images = [each.image for each in people]
    return builder.template(images, builder.placed(images)).image


def by_ants(people: Sequence[Subject], iterations: int = 4) -> Image:
    """Return the template of `ants.build_template` (Avants et al. 2010) from the mean of the images, by its defaults.

    Raises:
        InputError: antspyx is not installed.
    """
    try:
        ants: Any = import_module("ants")
    except ImportError as error:
        raise InputError("ANTs' template needs antspyx: pip install 'pullback[peers]'") from error
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{n}.nii.gz" for n in range(len(people))]
        for each, path in zip(people, paths, strict=True):
            write_image(each.image, path)
        images = [ants.image_read(str(path)) for path in paths]
        found = ants.build_template(image_list=images, iterations=iterations)
        ants.image_write(found, f"{folder}/template.nii.gz")
        return read_image(f"{folder}/template.nii.gz")


def by_mean(people: Sequence[Subject]) -> Image:
    """Return the mean of the images where their headers put them."""
    images = [each.image for each in people]
    grid = common_grid([image.grid for image in images])
    weights, still = torch.full((len(images),), 1 / len(images)), Affine.identity(grid.ndim)
    return mean_image(images, grid, lambda n: still, weights, range(len(images)))


def carried(data: TemplatePeople, seed: int, make: Callable[[Sequence[Subject]], Image]) -> Iterator[Row]:
    """Make a template, vote its labels, and carry them onto others."""
    people, others = data.both
    forget_peak_memory(CPU)
    begin = time.perf_counter()
    template = make(people)
    seconds, peak = time.perf_counter() - begin, peak_memory_mb(CPU)
    maps = [pull(_labels(each), FAST(template, each.image).transform, onto=template).data for each in people]
    voted = weighted(Labels(torch.cat(maps), template.grid), torch.ones(len(maps))).labels
    sharp = {"sharpness": sharpness(template), "seconds": seconds, "peak mb": peak}
    for each in others:
        found = pull(voted, FAST(each.image, template).transform, onto=each.image)
        yield {"case": each.name, "subject": each.name, "dice": _dice(found, _labels(each)), **sharp}


def carried_from_one(data: TemplatePeople, seed: int, count: int = SINGLES) -> Iterator[Row]:
    """Carry the labels of single people onto others; a row is the mean over these."""
    people, others = data.both
    for each in others:
        dice = []
        for one in people[:count]:
            found = pull(_labels(one), FAST(each.image, one.image).transform, onto=each.image)
            dice.append(_dice(found, _labels(each)))
        sharp = math.fsum(sharpness(one.image) for one in people[:count]) / count
        yield {"case": each.name, "subject": each.name, "dice": math.fsum(dice) / count, "sharpness": sharp}


def _dice(found: Labels, truth: Labels) -> float:
    """Return the mean Dice of the labels of the truth."""
    each = []
    for value in truth.data.unique().tolist():
        if value:
            one, two = found.data == value, truth.data == value
            each.append(2 * float((one & two).sum()) / float(one.sum() + two.sum()))
    return math.fsum(each) / len(each)


# ---- people


def many(data: BrainPhantom, seed: int, count: int) -> Iterator[Row]:
    """Make the template of so many subjects, and say what it costs and how near it is to the mean of all."""
    people, truth = true_mean(data)
    chosen = torch.randperm(len(people), generator=make_generator(seed))[:count].tolist()
    images = [people[n].image for n in chosen]
    forget_peak_memory(CPU)
    begin = time.perf_counter()
    found = ALIGNED.template(images, ALIGNED.placed(images))
    seconds, peak = time.perf_counter() - begin, peak_memory_mb(CPU)
    lit = _lit(people)
    row = {"offset mm": truth.offset([(n, found.transform(k)) for k, n in enumerate(chosen)], lit)}
    row |= {"seconds": seconds, "seconds each": seconds / count, "peak mb": peak}
    yield {"case": "template", **row, "sharpness": sharpness(found.image, lit)}


SHARPNESS = Column("sharpness", "per mm", better="more", digits=4, key="sharpness")
SECONDS, PEAK = Column("seconds", digits=0), Column("peak", "MB", digits=0)
TRUTH = (
    Column("offset", "mm", better="less", digits=2),
    SHARPNESS,
    Column("mean of maps", "mm", digits=4, key="mean mm"),
    SECONDS,
)
PHANTOM = BrainPhantom(spacing=5.0, train_subjects=10)


def _labelled(data: Any, made_of: int, others: int) -> Experiment:
    arms = {
        "one person": FunctionArm(carried_from_one, False),
        "plain mean": FunctionArm(partial(carried, make=by_mean), False),
        "affine mean": FunctionArm(partial(carried, make=partial(by_builder, builder=AFFINE)), False),
        "template": FunctionArm(partial(carried, make=partial(by_builder, builder=BUILDER)), False),
        "ANTs": FunctionArm(partial(carried, make=by_ants), False),
    }
    return Experiment(arms, "template", TemplatePeople(data, made_of, others))


study = Study(
    about="Towards a 4D spatio-temporal atlas of the embryonic and fetal brain (Bastiaansen et al. 2022)",
    tables={
        "truth": Table(
            "Templates of subjects whose true mean shape is known",
            "None: the paper's atlas has no truth.",
            {
                "phantom": Experiment(
                    {
                        "template": FunctionArm(partial(built, builder=ALIGNED), False),
                        "backwards": FunctionArm(partial(built, builder=ALIGNED, backwards=True), False),
                        "from one, not centred": FunctionArm(partial(built, builder=BIASED), False),
                        "from another, not centred": FunctionArm(partial(built, builder=BIASED, backwards=True), False),
                        "affine mean": FunctionArm(partial(built, builder=AFFINE), False),
                        "nearest person": FunctionArm(nearest, False),
                        "by the true maps": FunctionArm(by_truth, False),
                    },
                    "template",
                    PHANTOM,
                )
            },
            TRUTH,
        ),
        "ages": Table(
            "Templates of children at three ages, and how large they are",
            "None: the paper shows slices at 68 and 82 days.",
            {
                "growth": Experiment(
                    {
                        "template": FunctionArm(partial(by_age, builder=replace(BUILDER, rounds=3)), False),
                        "affine mean": FunctionArm(partial(by_age, builder=AFFINE), False),
                    },
                    "template",
                    SingleScans(CHILDREN, POPULATIONS["growth"].data.lattice),
                )
            },
            (
                Column("volume", "ml", digits=0),
                Column("of the children", "ml", digits=0, key="of the children ml"),
                Column("error", "%", digits=1),
                SHARPNESS,
                Column("mean age", digits=2),
                SECONDS,
            ),
        ),
        "labels": Table(
            "Labels of a template, carried onto other people",
            "None: the paper has no labels.",
            {
                "hippocampus": _labelled(Learn2Reg(shape=(48, 64, 48)), 12, 10),
                "slices": _labelled(SLICES, 9, 4),
                "brains": _labelled(BRAINS, 8, 4),
            },
            (Column("Dice", better="more", against="difference", digits=3, key="dice"), SHARPNESS, SECONDS, PEAK),
            tested="dice",
        ),
        "people": Table(
            "What a template costs as people grow",
            "None: the paper gives no times.",
            {
                "phantom": Experiment(
                    {f"{count} people": FunctionArm(partial(many, count=count)) for count in (4, 8, 16)},
                    "4 people",
                    replace(PHANTOM, train_subjects=16),
                )
            },
            (*TRUTH[:2], SECONDS, Column("seconds each", digits=1), PEAK),
        ),
        "weights": Table(
            "A registration network with the constraint at several weights, and a generator of templates",
            "Table 1, after one round, test: weights 0, 1, 10, 100: folding 0.36, 0.32, 0.22, 0.05 %; group 1.90e-3, "
            "1.62e-3, 9.40e-4, 1.85e-4; similarity 0.130, 0.129, 0.126, 0.101.",
            {
                data: Experiment(
                    {
                        **{f"weight {w:g}": TrainedArm(atlas(data, group=w)) for w in (0.0, 1.0, 10.0, 100.0)},
                        "generator": TrainedArm(atlas(data, generated=True)),
                    },
                    "weight 10",
                    POPULATIONS[data].data,
                    evaluation=partial(AtlasEvaluation, truth=data == "phantom"),
                )
                for data in ("phantom", "growth", "hippocampus")
            },
            (
                Column("similarity", better="more", against="difference", digits=3),
                Column("group", "voxels²", better="less", digits=4),
                Column("folding", "%", better="less", digits=2),
                Column("motion", "mm", digits=2),
                Column("offset", "mm", better="less", digits=2),
            ),
            tested="similarity",
        ),
    },
)
