"""The study of boxes instead of outlines (Schumacher et al. 2022), part by part.

    pullback study boxes annotation/hippocampus table1/hippocampus --data hippocampus=hippocampus/
    pullback study boxes table1/brains --data brains=brains/2mm --seed 0 1 2

All arms of an experiment share one data set, and differ in what is known of organs alone; the labels of half of the
people take the time of the boxes of all, as the paper has it, if a box takes half the time of an outline.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from pullback.alignment import Alignment
from pullback.data import PairFolder
from pullback.energies import BoxMSE, Energy, LabelMSE
from pullback.metrics import numbers_of
from pullback.recipes import find
from pullback.recipes.boxes import ERROR, HALF, NAME, NETWORK, WEIGHT, halved
from pullback.recipes.datasets import DATASETS
from pullback.recipes.unsupervised import ENERGY
from pullback.solvers import Descend
from pullback.space import Displacement
from pullback.studies._images import COLUMNS, DICE, FOLDING, METRICS, SECONDS, UNTRAINED, trained
from pullback.study.arms import FunctionArm, TrainedArm
from pullback.study.contrasts import Contrasts
from pullback.study.figures import boxes, curves
from pullback.study.statistics import paired
from pullback.study.table import Experiment, Figure, Study, Table
from pullback.training import Row

ROWS: Mapping[str, str] = {
    "unsupervised": "boxes-unsupervised",
    "boxes ± 5 %": "boxes-inexact",
    "boxes": NAME,
    "labels": "boxes-labels",
    "labels of half": HALF,
}
"""Rows of the paper's table 1, by the variant of each."""
PAIRS = 10
MIDDLE = (144, 192)  # voxels of 1 mm
DESCENT = Descend(steps=60, step_size=0.2)
KNOWN: Mapping[str, Energy | None] = {
    "nothing": None,
    "boxes ± 5 %": BoxMSE(ERROR),
    "boxes ± 5 %, soft": BoxMSE(ERROR, soft=True),
    "boxes": BoxMSE(),
    "labels": LabelMSE(),
}


def descended(data: Any, seed: int, known: Energy | None = None, weight: float = WEIGHT) -> Iterator[Row]:
    """Measure test pairs that are aligned by what is known of their own organs: no network learns anything.

    Args:
        data: of pairs with labels, of which `PAIRS` are taken.
        seed: without use, for nothing is drawn but an annotator's error.
        known: the energy of organs that is added to that of images.
        weight: of it.
    """
    energy = ENERGY if known is None else ENERGY + weight * known
    for pair in data.test.some(PAIRS):
        still = Displacement.identity(pair.fixed.grid, pair.fixed.data)
        found, _ = DESCENT(energy.on(pair), start=still)
        yield {"pair": pair.name, **numbers_of(Alignment(pair, found), METRICS)}


def annotation(data: str) -> Experiment:
    """Return the experiment of what boxes know of organs, and what labels do."""
    arms = {name: FunctionArm(partial(descended, known=known), seeded=False) for name, known in KNOWN.items()}
    strong = FunctionArm(partial(descended, known=BoxMSE(), weight=5 * WEIGHT), seeded=False)
    return Experiment({**arms, "boxes, five times": strong}, "nothing", DATASETS[data].data, METRICS)


def table(data: str, network: str = NETWORK) -> Experiment:
    """Return the experiment of the paper's table 1 with one network; and its own after one pass alone."""
    arms = {}
    for name, variant in ROWS.items():
        recipe = find(variant, network, data)
        arms[name] = TrainedArm(recipe, settings=halved(DATASETS[data].data) if variant == HALF else {})
    if network == NETWORK:
        arms["boxes, one pass"] = TrainedArm(arms["boxes"].recipe, uses=once)
    known = trained(arms, "unsupervised", UNTRAINED)
    return replace(known, data=DATASETS[data].data)


def _middle() -> Experiment:
    """Return the experiment on the middles of slices, without most of what is no brain, for minutes on one core."""
    data = DATASETS["slices"].data
    assert isinstance(data, PairFolder)
    return replace(table("slices"), data=replace(data, shape=MIDDLE))


def once(network: Any) -> Any:
    """Return the network of one pass that a trained `TwoStreamUNet` asks twice."""
    return network.repeated.network


TESTS = (
    Contrasts(
        "in the paper's order",
        paired,
        [("boxes ± 5 %", "unsupervised"), ("boxes", "unsupervised"), ("labels", "boxes")],
        "greater",
    ),
    Contrasts("an annotator's error", paired, [("boxes", "boxes ± 5 %")]),
    Contrasts("of the same time", paired, [("boxes", "labels of half")]),
)
SETS = ("hippocampus", "brains", "slices", "abdomen", "phantom")
FIGURES = {"cases": Figure(partial(boxes, column=DICE)), "training": Figure(partial(curves, columns=(DICE,)))}
CLAIM = (
    "Table 1, abdomen, points of Dice over the start: unsupervised +14, boxes ± 5 % +18, boxes +19, labels +22; labels "
    "of less people below boxes; Jacobians alike."
)

study = Study(
    about="Weak bounding box supervision for image registration networks (Schumacher et al. 2022)",
    tables={
        "annotation": Table(
            "What boxes know of organs: ten test pairs aligned by their own annotation, without a network",
            "This is not shown.",
            {data: annotation(data) for data in ("hippocampus", "brains", "slices", "phantom")},
            (DICE, FOLDING),
        ),
        "table1": Table(
            "Unsupervised, by inexact and by tight boxes, by labels, and by those of half of the people",
            CLAIM,
            {data: table(data) for data in SETS} | {"slices/middle": _middle()},
            (*COLUMNS, SECONDS),
            FIGURES,
            TESTS,
            "dice",
        ),
        "networks": Table(
            "The same with VoxelMorph",
            "This is not shown.",
            {f"{data}/voxelmorph": table(data, "voxelmorph") for data in ("hippocampus", "brains", "slices")},
            (*COLUMNS, SECONDS),
            FIGURES,
            TESTS,
            "dice",
        ),
    },
)
