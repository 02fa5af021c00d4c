"""The study of registration uncertainty (Smolders et al. 2022), part by part.

    pullback study uncertainty slices breathing --data slices=oasis_trt20_2d/ --data breathing-slices=lung_keypoints/
    pullback study uncertainty optimum --data breathing-slices=lung_keypoints/
    pullback study uncertainty dose
    pullback study uncertainty network --data breathing-slices=lung_keypoints/ --seed 0

What is judged is always the deformable stage of `balanced`. In `slices` it does well: slices of brains, moved by a
spline of at most 6 mm, whose truth is known at each voxel. In `breathing` it does not: coronal planes of chests that
breathe as real lungs did, with 300 landmarks each, as of 4-D CT. "Constant" is one number everywhere, "ensemble" the
spread of six registers, and the rest the paper's posterior, by a descent on each pair. Calibrated is what one
temperature makes of it, that of all other people's pairs.

In `dose` chests are treated on two days, each by a field that is known exactly, through motion that is known exactly.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pullback.data import Synthesis, Synthetic
from pullback.energies import MSE, Diffusion
from pullback.methods.pair.classical import ACCURATE, BALANCED, FAST
from pullback.methods.pair.convex_adam import ConvexAdam
from pullback.methods.pair.ensemble import ConstantDeviation, Ensemble
from pullback.methods.pair.log_demons import LogDemons
from pullback.methods.pair.posterior import PosteriorEnergy
from pullback.methods.pair.uncertainty import WithPosterior
from pullback.recipes import find
from pullback.recipes.datasets import DATASETS, SLICES
from pullback.solvers import DeformableStage, Descend
from pullback.space import Displacement
from pullback.studies._posteriors import CalibrationEvaluation, DoseCoverage, TreatedChests, density_of
from pullback.study.arms import Arm, FunctionArm, RegisterArm, TrainedArm
from pullback.study.table import Column, Experiment, Study, Table
from pullback.training import Row

JUDGED: Any = BALANCED.deformable
MEMBERS: tuple[Any, ...] = (
    JUDGED,
    FAST.deformable,
    ACCURATE.deformable,
    DeformableStage(MSE() + 0.02 * Diffusion(), kind=Displacement, steps=(40, 30, 20), solver=Descend(step_size=0.3)),
    ConvexAdam(),
    LogDemons(),
)
"""What is judged, its faster and slower forms, a displacement by intensities alone, features, and demons."""
SMOOTH = 8.0
"""Voxels, for images of about 100: the paper's 15 of 256."""
PAPER = PosteriorEnergy(1e-4, 10.0, SMOOTH)
CAUTIOUS = PosteriorEnergy(1e-2, 10.0, SMOOTH)
NOISES, PRIORS = (1e-4, 1e-3, 1e-2, 1e-1), (0.3, 3.0, 30.0, 300.0)


def around(energy: PosteriorEnergy) -> WithPosterior:
    """Return the register that is judged, with the posterior of an energy."""
    return WithPosterior(JUDGED, energy)


JUDGES: dict[str, Any] = {
    "constant": ConstantDeviation(JUDGED),
    "ensemble": Ensemble(MEMBERS),
    "posterior, λ = 10, σ² = 1e-4": around(PAPER),
    "posterior, λ = 10, σ² = 1e-2": around(CAUTIOUS),
}
MOVED = replace(
    SLICES, synthetic=Synthetic(Synthesis(displacement=6.0, degrees=0.0, translation=0.0, gamma=1.2), per_subject=3)
)
BREATHING = DATASETS["breathing-slices"].data
EVALUATION = partial(CalibrationEvaluation, smooth=SMOOTH)
COLUMNS = (
    Column("log density", better="more", against="difference"),
    Column("log density, calibrated", better="more", against="difference"),
    Column("rms z", digits=2),
    Column("coverage 90", "%", digits=0, key="coverage 90 %"),
    Column("coverage 90, calibrated", "%", digits=0, key="coverage 90 %, calibrated"),
    Column("rank correlation", better="more", digits=2),
    Column("error", "mm", better="less"),
    Column("slope rank", digits=2),
    Column("folded samples", "%", better="less"),
    Column("time", "s", better="less", key="seconds"),
)


@dataclass(frozen=True)
class Densities:
    """The log density at one λ and σ_I², without any calibration: a point of figure 2.

    Attributes:
        energy: of both numbers.
        count: of the pairs of each split.
    """

    energy: PosteriorEnergy
    count: int = 3

    def __call__(self, data: Any, seed: int) -> Iterator[Row]:
        """Yield one row: validation and test."""
        splits = {"validation": data.validation, "test": data.test}
        judge = around(self.energy)
        found = {name: density_of(judge, itertools.islice(pairs, self.count)) for name, pairs in splits.items()}
        yield {"pair": "all", **found}


@dataclass(frozen=True)
class Around:
    """The network of a run, judging another register than the one that it was trained with."""

    register: Any

    def __call__(self, network: Any) -> Any:
        return network.around(self.register)


def _doses() -> dict[str, Arm]:
    paper = "posterior, λ = 10, σ² = 1e-4"
    arms: dict[str, Arm] = {
        f"{name}, calibrated": FunctionArm(DoseCoverage(JUDGES[name], ConvexAdam()), seeded=False)
        for name in ("constant", "ensemble", paper)
    }
    return arms | {paper: FunctionArm(DoseCoverage(JUDGES[paper], ConvexAdam(), calibrated=False), seeded=False)}


def _trained() -> dict[str, Arm]:
    recipe = find("uncertainty", on="breathing-slices")
    return {
        "fast, its own": TrainedArm(recipe),
        "ConvexAdam": TrainedArm(recipe, uses=Around(ConvexAdam())),
        "log-demons": TrainedArm(recipe, uses=Around(LogDemons())),
        "alone": TrainedArm(find("uncertainty-alone", on="breathing-slices")),
    }


study = Study(
    about="Deformable Image Registration Uncertainty Quantification (Smolders et al. 2022)",
    tables={
        "slices": Table(
            "Where registration does well: slices of brains, simulated motion",
            "No figure: the paper has no known motion.",
            {
                "slices": Experiment(
                    {name: RegisterArm(judge) for name, judge in JUDGES.items()}, "constant", MOVED, (), EVALUATION
                )
            },
            COLUMNS,
        ),
        "breathing": Table(
            "Where registration fails in part: chests that breathe, landmarks",
            "Fig. 4: the predicted deviation is as large as the error of landmarks, for b-splines and demons.",
            {
                "breathing-slices": Experiment(
                    {name: RegisterArm(judge) for name, judge in JUDGES.items()}, "constant", BREATHING, (), EVALUATION
                )
            },
            COLUMNS,
        ),
        "optimum": Table(
            "Log density over λ and σ_I²",
            "Fig. 2: the greatest at λ = 10, σ_I² = 1e-4 on the validation set, and alike on the test set.",
            {
                "breathing-slices": Experiment(
                    {
                        f"λ = {prior:g}, σ² = {noise:g}": FunctionArm(
                            Densities(PosteriorEnergy(noise, prior, SMOOTH)), seeded=False
                        )
                        for prior, noise in itertools.product(PRIORS, NOISES)
                    },
                    data=BREATHING,
                )
            },
            (Column("validation", better="more", digits=2), Column("test", better="more", digits=2)),
        ),
        "network": Table(
            "One network for many pairs, the registers that it was not trained with, and VoxelMorph alone",
            "It predicts errors of a register that it was not trained with; VoxelMorph alone errs more and knows less.",
            {"breathing-slices": Experiment(_trained(), "fast, its own", BREATHING, (), EVALUATION)},
            COLUMNS,
        ),
        "dose": Table(
            "Share of volumes at which the true dose lies in the band, in %",
            "97 % of organs at risk and 81 % of targets (91 % with a margin of 0.1 %) by other registrations' doses, "
            "where 90 % are expected.",
            {"chests": Experiment(_doses(), data=TreatedChests())},
            (
                Column("organs", "%", digits=0),
                Column("target", "%", digits=0),
                Column("target with margin", "%", digits=0),
                Column("nominal", "%", digits=0),
                Column("other register: organs", "%", digits=0),
                Column("other register: target", "%", digits=0),
                Column("target width", "Gy", digits=3, key="target width"),
                Column("temperature", digits=2),
            ),
        ),
    },
)
