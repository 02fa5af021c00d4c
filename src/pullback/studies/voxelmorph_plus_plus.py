"""The study of VoxelMorph++ (Heinrich & Hansen 2022), part by part.

    pullback study voxelmorph-plus-plus table1/breathing-slices --data breathing-slices=lung_keypoints/ --seed 0
    pullback study voxelmorph-plus-plus landmarks --data lungs=lung_keypoints/

The paper's CT is not all open, and none was at hand: chests are made that move as its people's lungs did. Of real lungs
the landmarks of experts and automatic matches tell what a spline through perfect answers could reach.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from pullback.alignment import Alignment, Registered
from pullback.data import Folds
from pullback.data.lung_matches import people_in, read_matches
from pullback.methods.pair.convex_adam import ConvexAdam, FeatureOptimised
from pullback.methods.pair.voxelmorph_plus_plus import Warped
from pullback.metrics import EndPointError, Folding, Metric, SDLogJ, of_one
from pullback.recipes import find
from pullback.recipes.voxelmorph_plus_plus import FEATURES, METHOD
from pullback.space import Image, Points, ThinPlate
from pullback.studies._images import FOLDING, SDLOGJ, SECONDS
from pullback.study.arms import Arm, FunctionArm, RegisterArm, TrainedArm
from pullback.study.contrasts import Contrasts
from pullback.study.evaluate import unmoved
from pullback.study.statistics import paired
from pullback.study.table import Column, Experiment, Study, Table
from pullback.training import Row

ROWS: Mapping[str, tuple[str, str]] = {
    "VoxelMorph": (FEATURES, "regression"),
    "VM + heatmap": (FEATURES, "heatmap"),
    "VM + keypoints": (METHOD, "regression"),
    "VoxelMorph++": (METHOD, "heatmap"),
}
"""Rows of the paper's table 1: the variant and the head of each."""
SMOOTHINGS = (0.0, 10.0, 20.0)


@dataclass(frozen=True)
class HalfExtentError:
    """The paper's error: the mean distance of the pushed fixed points from the moving ones, in "vx".

    That is 100 times the length in coordinates that run from −1 to 1 along each axis of the fixed grid.
    """

    name: ClassVar[str] = "error vx"
    higher_is_better: ClassVar[bool] = False

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        if alignment.pushed is None or alignment.pair.moving_points is None:
            return {}
        grid = alignment.pair.fixed.grid
        off = grid.from_mm(
            (alignment.pushed.data.detach() - alignment.pair.moving_points.data).double().mT
        )  # (1, d, N)
        half = torch.tensor(grid.shape, dtype=torch.float64).view(1, -1, 1) / 2
        return {self.name: 100 * float((off / half).norm(dim=1).mean())}


@dataclass(frozen=True)
class Optimised:
    """A network followed by the instance optimisation, as a register.

    Attributes:
        network: gives the start.
        finish: goes on from it.
    """

    network: Any
    finish: FeatureOptimised = FeatureOptimised()

    def __call__(self, fixed: Image, moving: Image) -> Registered:
        with torch.no_grad():
            start = self.network(fixed, moving).transform
        return self.finish(fixed, moving, start)


@dataclass(frozen=True)
class LandmarkFolder:
    """A folder of matches and of landmarks of lungs.

    Attributes:
        root: the folder, or "" until one is given.
    """

    root: str = ""

    @property
    def people(self) -> tuple[str, ...]:
        """The people of COPDgene, of whom there are landmarks, sorted."""
        return tuple(name for name in people_in(self.root) if name.startswith("copd"))


def through_matches(data: LandmarkFolder, seed: int, smoothing: float | None = None) -> Iterator[Row]:
    """Measure by landmarks the smoothing spline through a person's automatic matches; None measures no motion.

    Args:
        smoothing: in voxels, as of `VoxelMorphPlusPlus`.
    """
    for person in data.people:
        with np.load(Path(data.root) / f"{person}.npz", allow_pickle=False) as stored:
            here, there, nominal, true = (
                torch.from_numpy(stored[name].astype(np.float64))
                for name in ("landmarks_exhale", "landmarks_inhale", "spacing_nominal", "spacing_true")
            )
        moved = here
        if smoothing is not None:
            fixed, moving = (Points(points[None]) for points in read_matches(data.root, person))
            moved = ThinPlate.between(fixed, moving, smoothing)(here)
        off = moved - there
        errors = {name: float((off * size).norm(dim=1).mean()) for name, size in (("nominal", nominal), ("true", true))}
        yield {"case": person, **{f"{name} mm": error for name, error in errors.items()}}


ERROR = Column("error", "vx", better="less", against="difference", digits=2)
COLUMNS = (ERROR, Column("EPE", "mm", better="less", digits=2), FOLDING, SDLOGJ, SECONDS)
METRICS: tuple[Metric, ...] = (HalfExtentError(), EndPointError(), Folding(), SDLogJ())
BESIDE: Mapping[str, Arm] = {
    "initial": RegisterArm(unmoved),
    "Adam alone": RegisterArm(FeatureOptimised()),
    "ConvexAdam": RegisterArm(ConvexAdam()),
}


def ablation(data: str, smoothness: float | None = None, every_fold: bool = False) -> Experiment:
    """Return the experiment of the four networks, each alone and with the instance optimisation.

    Args:
        smoothness: of the baseline's displacements; None for the default.
        every_fold: test on everybody, or on the people of the first of five folds.
    """
    arms: dict[str, Arm] = dict(BESIDE)
    for name, (variant, head) in ROWS.items():
        recipe = find(variant, head, data)
        if smoothness is not None and head == "regression" and variant == FEATURES:
            recipe = replace(recipe, supervision=Warped(smoothness=smoothness))
        arms |= {name: TrainedArm(recipe), f"{name} + Adam": TrainedArm(recipe, uses=Optimised)}
    known = find(METHOD, "heatmap", data).data
    assert isinstance(known, Folds)
    folds = [{"data.number": str(number)} for number in range(known.count if every_fold else 1)]
    return Experiment(arms, "VoxelMorph", known, METRICS, folds=folds)


SETS = ("breathing-slices", "breathing")
"""Planes on one split, which take minutes; volumes in five folds, which take hours."""
TESTS = (
    Contrasts(
        "in the paper's order",
        paired,
        [
            ("VoxelMorph++", "VM + keypoints"),
            ("VM + keypoints", "VM + heatmap"),
            ("VM + heatmap", "VoxelMorph"),
            ("VoxelMorph++ + Adam", "VoxelMorph + Adam"),
            ("VoxelMorph++ + Adam", "ConvexAdam"),
        ],
        "less",
    ),
)

study = Study(
    about="VoxelMorph++: Going Beyond the Cranial Vault with Keypoint Supervision and Multi-channel Instance "
    "Optimisation (Heinrich & Hansen 2022)",
    tables={
        "table1": Table(
            "Heatmaps and matched keypoints, each alone and both, before and after instance optimisation",
            "Table 1, thirty pairs of lungs, vx: initial 10.04, Adam alone 7.41; VoxelMorph 8.17, with Adam 4.80; with "
            "heatmaps 6.49, 3.18; with keypoints 6.30, 2.79; VoxelMorph++ 5.31, 2.34.",
            {data: ablation(data, every_fold=data == "breathing") for data in SETS},
            COLUMNS,
            {},
            TESTS,
            "error vx",
            "subject",
        ),
        "smoothness": Table(
            "The baseline with the other weight of smoothness that the paper gives",
            "This is not shown; the text has 0.25 and 0.75.",
            {"breathing-slices": ablation("breathing-slices", 0.75)},
            COLUMNS,
            tested="error vx",
            unit="subject",
        ),
        "landmarks": Table(
            "Splines through automatic matches, by the landmarks of real lungs",
            "Table 2, COPDgene: 2.16 mm after training on such matches, 11.99 before; nominal millimetres.",
            {
                "lungs": Experiment(
                    {"initial": FunctionArm(partial(through_matches, smoothing=None), seeded=False)}
                    | {
                        f"matches, smoothing {size:g}": FunctionArm(
                            partial(through_matches, smoothing=size), seeded=False
                        )
                        for size in SMOOTHINGS
                    },
                    data=LandmarkFolder(),
                )
            },
            (
                Column("nominal", "mm", better="less", digits=2),
                Column("true", "mm", better="less", digits=2),
            ),
        ),
    },
)
