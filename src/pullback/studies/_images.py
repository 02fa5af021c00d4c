"""Common parts of studies of pairs of images: columns, and arms without training."""

from collections.abc import Mapping

from pullback.methods.pair.convex_adam import ConvexAdam
from pullback.metrics import Dice, Folding, SDLogJ
from pullback.study.arms import Arm, RegisterArm, TrainedArm
from pullback.study.evaluate import unmoved
from pullback.study.table import Column, Experiment

DICE = Column("Dice", better="more", against="difference")
FOLDING = Column("folding", "%", better="less", against="ratio")
SDLOGJ = Column("SDlogJ", better="less")
SECONDS = Column("time", "s", better="less", against="ratio", key="seconds")
COLUMNS = (DICE, FOLDING, SDLOGJ)
METRICS = (Dice(), Folding(), SDLogJ())
UNTRAINED: Mapping[str, Arm] = {"before": RegisterArm(unmoved), "ConvexAdam": RegisterArm(ConvexAdam())}


def trained(arms: Mapping[str, TrainedArm], baseline: str = "", beside: Mapping[str, Arm] = UNTRAINED) -> Experiment:
    """Return an experiment of networks, and of `beside`, arms without training, on the baseline's data and metrics.

    Args:
        arms: by name.
        baseline: as of `Experiment`, of these; "" for the first.
        beside: by name; stands first.
    """
    baseline = baseline or next(iter(arms))
    recipe = arms[baseline].recipe
    return Experiment({**beside, **arms}, baseline, recipe.data, recipe.metrics, recipe.evaluation)
