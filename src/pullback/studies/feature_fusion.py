"""The study of fused features (Siebert & Heinrich 2022), part by part.

    pullback study feature-fusion table1/hippocampus folds --data hippocampus=hippocampus/ --seed 0
    pullback study feature-fusion table1/brains --data brains=brains/2mm --seed 0

Segmenter and loss know some labels; the others of a data set are unseen, as the vertebrae of the paper are. All rows of
one seed are of one run, and of one search: the features alone differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch

from pullback.alignment import Alignment, Pair
from pullback.methods.pair.convex_adam import ConvexAdam
from pullback.methods.pair.cross_fitting import SegmentThenFuse
from pullback.methods.pair.feature_fusion import FeatureFusion, chosen
from pullback.metrics import Dice, HausdorffDistance, of_one
from pullback.networks import together
from pullback.recipes import find
from pullback.recipes.feature_fusion import SETS
from pullback.space import Image
from pullback.studies._images import DICE, FOLDING, SDLOGJ
from pullback.study.arms import Arm, RegisterArm, TrainedArm
from pullback.study.contrasts import Contrasts
from pullback.study.evaluate import unmoved
from pullback.study.figures import dots
from pullback.study.statistics import paired
from pullback.study.table import Column, Experiment, Figure, Study, Table


@dataclass(frozen=True)
class UnseenDice:
    """The mean Dice of the labels that neither the segmenter nor the mixer has learned from.

    Attributes:
        seen: those that they learned from.
    """

    seen: tuple[int, ...]
    name: ClassVar[str] = "unseen dice"
    higher_is_better: ClassVar[bool] = True

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        known = {name: value for name, value in Dice()(alignment).items() if name.startswith("dice/")}
        each = [value for name, value in known.items() if int(name.removeprefix("dice/")) not in self.seen]
        return {self.name: sum(each) / len(each)} if each else {}


@dataclass(frozen=True)
class OtherFeatures:
    """The search of a trained network between other features than its own, or its own by another search.

    Attributes:
        network: whose segmenter, mixer and search it is.
        use: as of `feature_fusion.chosen`.
        weight: of memberships in a concatenation.
        soft: search as while learning, one way.
    """

    network: FeatureFusion
    use: str = "fused"
    weight: float = 1.0
    soft: bool = False

    def __call__(self, fixed: Image, moving: Image) -> Alignment:
        with torch.no_grad():
            one, two = (
                chosen(self.network, Image(values, fixed.grid), self.use, self.weight, self.network.every)
                for values in together(fixed, moving).chunk(2, 1)
            )
            return self.network.between(one, two, Pair(fixed, moving), self.soft)


USES: Mapping[str, partial[OtherFeatures]] = {
    "MIND": partial(OtherFeatures, use="hand-crafted"),
    "semantic": partial(OtherFeatures, use="semantic"),
    "concatenated": partial(OtherFeatures, use="concatenated"),
    "concatenated, × 3": partial(OtherFeatures, use="concatenated", weight=3.0),
    "fused, soft": partial(OtherFeatures, soft=True),
}
UNSEEN = Column("unseen Dice", better="more", against="difference")
COLUMNS = (DICE, UNSEEN, Column("HD95", "mm", better="less"), FOLDING, SDLOGJ)
BESIDE: Mapping[str, Arm] = {"before": RegisterArm(unmoved), "ConvexAdam": RegisterArm(ConvexAdam())}
DOTS = Figure(partial(dots, columns=(DICE, UNSEEN)))


def _experiment(data: str, arms: Mapping[str, Arm], baseline: str) -> Experiment:
    recipe = find("feature-fusion", on=data)
    metrics = (*recipe.metrics, UnseenDice(SETS[data].labels), HausdorffDistance())
    return Experiment(arms, baseline, recipe.data, metrics)


def fusion(data: str) -> Experiment:
    """Return the experiment of single, concatenated and fused features on one data set."""
    recipe = find("feature-fusion", on=data)
    rivals = {name: TrainedArm(recipe, uses=use) for name, use in USES.items()}
    return _experiment(data, {**BESIDE, **rivals, "fused": TrainedArm(recipe)}, "MIND")


def folds(data: str) -> Experiment:
    """Return the experiment of cross-fitting, and of the paper's way, on one data set."""
    recipe = find("feature-fusion", on=data)
    whole = replace(recipe, procedure=SegmentThenFuse(folds=1))
    arms = {"MIND": TrainedArm(recipe, uses=USES["MIND"]), "two folds": TrainedArm(recipe), "one": TrainedArm(whole)}
    return _experiment(data, arms, "MIND")


PAIRS = [("fused", name) for name in ("MIND", "semantic", "concatenated", "concatenated, × 3")]
TESTS = (Contrasts("labels that are learned", paired, PAIRS, "greater"),)

study = Study(
    about="Learn to Fuse Input Features for Large-Deformation Registration with Differentiable Convex-Discrete "
    "Optimisation (Siebert & Heinrich 2022)",
    tables={
        "table1": Table(
            "Single, concatenated and fused features, on labels that are learned and on others",
            "Table 1, abdomen CT, Dice of 13 organs: fused 56.37 %, semantic 50.56, before 25.9; the others are in a "
            "picture. SDlogJ is least for semantic. Vertebrae, unseen: fused 5 % below MIND, semantic 42 %.",
            {data: fusion(data) for data in ("phantom", "hippocampus", "brains")},
            COLUMNS,
            {"dots": DOTS},
            TESTS,
            "dice",
        ),
        "organs": Table(
            "Single, concatenated and fused features of abdomen CT",
            "Table 1: fused 56.37 %, semantic 50.56 %, before 25.9 %. All labels of this folder are learned.",
            {"abdomen": fusion("abdomen")},
            tuple(column for column in COLUMNS if column is not UNSEEN),
            {},
            TESTS,
            "dice",
        ),
        "folds": Table(
            "Memberships from a segmenter that has not learned from the person, and the paper's way",
            "The paper has one segmenter, which knows its training images almost perfectly; there the mixer learns.",
            {data: folds(data) for data in ("hippocampus", "brains")},
            COLUMNS,
        ),
    },
)
