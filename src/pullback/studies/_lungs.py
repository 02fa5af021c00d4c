"""Common parts of studies of clouds of lungs (DIR-Lab COPDgene): the evaluation, and arms without training."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, cast

import torch
from torch import Tensor

from pullback.data import LungCase, LungScans, Test, Validation
from pullback.errors import InputError
from pullback.example import PointPair
from pullback.methods.points.graph_propagation import RegisterClouds, overlay, untrained
from pullback.metrics.learn2reg import sdlogj
from pullback.recipes import find
from pullback.recipes.datasets import DATASETS
from pullback.recipes.graph_propagation import AS_PUBLISHED, PUBLISHED
from pullback.solvers import RobustPointMatching
from pullback.study.arms import Arm, RegisterArm, TrainedArm
from pullback.study.table import Column, Experiment
from pullback.training import Row, evaluating

STEP = 4  # voxels between the points at which the dense field is known
SEEN = ("copd_03", "copd_06", "copd_09")
FOLDS = 5

Displace = Callable[[Tensor], Tensor]
Clouds = Callable[[PointPair], Sequence[Displace]]
"""A register of clouds: the displacement of all space, `(N, 3)` mm to `(N, 3)` mm, after each of its stages."""


def unmoved_clouds(pair: PointPair) -> Sequence[Displace]:
    """Return no motion."""
    return [torch.zeros_like]


def overlaid_clouds(pair: PointPair) -> Sequence[Displace]:
    """Return the displacement that lays the mean and spread of one cloud on those of the other."""
    return [overlay(pair.fixed.data[0].double(), pair.moving.data[0].double())]


def settled_clouds(pair: PointPair) -> Sequence[Displace]:
    """Return the displacement of robust point matching, without features, from the overlaid clouds."""
    surfaces = pair.surfaces and (pair.surfaces[0].data[0].double(), pair.surfaces[1].data[0].double())
    fixed, moving = pair.fixed.data[0].double(), pair.moving.data[0].double()
    return [RobustPointMatching((8.0, 6.0, 4.0, 3.0, 2.0))(fixed, moving, overlay(fixed, moving), surfaces)]


@dataclass(frozen=True)
class ByFeatures:
    """The register of clouds by features of a network."""

    network: Callable[..., Tensor]
    register: RegisterClouds = RegisterClouds()

    def __call__(self, pair: PointPair) -> Sequence[Displace]:
        with evaluating(self.network):
            return self.register.stages(self.network, pair)


@dataclass(frozen=True)
class ByRandomFeatures:
    """The register of clouds by features of a network with random weights."""

    seed: int = 0
    register: RegisterClouds = RegisterClouds()

    def __call__(self, pair: PointPair) -> Sequence[Displace]:
        return ByFeatures(untrained(self.seed).to(pair.fixed.data.device), self.register)(pair)


@dataclass(frozen=True)
class LungEvaluation:
    """The evaluation of registers of clouds by the 300 landmarks of each case, and by Learn2Reg's SDlogJ.

    Attributes:
        pairs: a split of `LungKeypoints`.
    """

    pairs: Validation | Test
    aligns: ClassVar[str] = "points"

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def names(self) -> tuple[str, ...]:
        return self.pairs.names

    def rows(self, register: Clouds, device: torch.device) -> Iterator[Row]:
        """Yield one row per case, in mm, with seconds.

        `tre mm` is by the published spacing, `untouched mm` the same without the cases that were looked at, `true mm`
        by each scan's spacing, and `unsettled mm` before the last stage, where there are several.
        """
        for case in (cast(LungCase, one) for one, _ in self.pairs.pairs):
            scans = case.scans()
            pair, start = scans.pair.to(device), time.perf_counter()
            stages = register(pair)
            seconds = time.perf_counter() - start
            error, found = partial(_error, scans, pair), stages[-1]
            row: Row = {"pair": case.name, "tre mm": error(found)}
            row |= {} if case.name in SEEN else {"untouched mm": error(found)}
            row |= {"unsettled mm": error(stages[-2])} if len(stages) > 1 else {}
            row |= {"true mm": error(found, scans.true / scans.nominal), "sdlogj": sdlogj(_dense(scans, found, device))}
            yield row | {"seconds": seconds}

    def score(self, means: dict[str, float]) -> float:
        """Return minus the mean error of the landmarks.

        Raises:
            InputError: nothing was measured.
        """
        if "tre mm" not in means:
            raise InputError("no case of these clouds has landmarks to measure by")
        return -means["tre mm"]


def _error(scans: LungScans, pair: PointPair, displacement: Displace, scale: Tensor | float = 1.0) -> float:
    """Return the mean distance of the moved fixed landmarks to the moving ones."""
    assert pair.fixed_landmarks is not None
    assert pair.moving_landmarks is not None
    here, there = pair.fixed_landmarks.data[0], pair.moving_landmarks.data[0]
    off = (here + displacement(here) - there).cpu()
    return float((off * scale).norm(dim=1).mean())


def _dense(scans: LungScans, displacement: Displace, device: torch.device) -> Tensor:
    """Return the displacement on every fourth voxel of the fixed scan, in steps of those: `(1, 3, i, j, k)`."""
    axes = [torch.arange(0, n, STEP, dtype=torch.float64) for n in scans.shape]
    where = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    field = displacement((where.view(-1, 3) * scans.nominal).to(device)).cpu() / scans.nominal / STEP
    return field.view(where.shape).movedim(-1, 0)[None]


UNLEARNED: dict[str, Arm] = {
    "initial": RegisterArm(unmoved_clouds),
    "overlaid": RegisterArm(overlaid_clouds),
    "settled": RegisterArm(settled_clouds),
    "random features": RegisterArm(ByRandomFeatures()),
}
WIDE = RegisterArm(ByRandomFeatures(register=AS_PUBLISHED))
WAYS = {"rigid": "rigid maps", "field": "random fields", "metric": "metric", "landmarks": "landmarks"}
COLUMNS = (
    Column("TRE", "mm", better="less", against="difference", digits=2),
    Column("but 03 06 09", better="less", digits=2, key="untouched mm"),
    Column("unsettled", better="less", digits=2, key="unsettled mm"),
    Column("true mm", better="less", digits=2, key="true mm"),
    Column("SDlogJ", better="less"),
    Column("time", "s", better="less", digits=1, key="seconds"),
)


def unlearned(data: str) -> Experiment:
    """Return the experiment of what needs no training, over five folds by patient, on one set of clouds."""
    arms = UNLEARNED | ({"random features, 256 candidates": WIDE} if data == PUBLISHED else {})
    folds = [{"data.fold": str(fold)} for fold in range(FOLDS)]
    return Experiment(arms, "random features", DATASETS[data].data, (), partial(LungEvaluation), folds)


def lungs(data: str) -> Experiment:
    """Return the experiment of all ways of learning on one model beside what needs no training."""
    ways = {words: find(f"graph-propagation-{way}", on=data) for way, words in WAYS.items()}
    ways["cyclical"] = find("cyclical", on=data)
    uses = partial(ByFeatures, register=AS_PUBLISHED) if data == PUBLISHED else ByFeatures
    beside = unlearned(data)
    trained = {words: TrainedArm(recipe, uses=uses) for words, recipe in ways.items()}
    return replace(beside, arms={**beside.arms, **trained}, baseline="cyclical")
