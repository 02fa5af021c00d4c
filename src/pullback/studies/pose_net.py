"""The study of the transformed grid distance (Song et al. 2022): the loss beside its rivals, and a learned start.

    pullback study pose-net angles --seed 0
    pullback study pose-net table1/prostates --data prostates=DIR --seed 0
    pullback study pose-net table2/prostates-us --data prostates-us=DIR --seed 0
    pullback study pose-net edges --data prostates-hidden=DIR --seed 0
    pullback study pose-net start/prostates --data prostates=DIR --seed 0

All arms of a table have the same network, which answers with Euler angles and a shift, and the same updates and rate;
what changes is the loss. `forms` changes the numbers that the network answers with, and `units` the unit of an angle.
TRE is over points of the surface of the fixed gland, as in the paper; a row is a pose, and tests are of people.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pullback.alignment import Pair, seen
from pullback.methods.pair.classical import BALANCED, Classical
from pullback.methods.pose.cross_ngf import SMALL
from pullback.methods.pose.pose_net import ParameterDistance, PoseNet
from pullback.metrics import EndPointError, LandmarkError
from pullback.numerics.random import make_generator
from pullback.numerics.rotation import of_euler, of_four, of_six, of_vector
from pullback.recipes.pose_net import METRICS, TRAINING
from pullback.report.figures import COLOURS, blank, legend
from pullback.solvers import Chain, chain
from pullback.space import Affine, Grid, mean_square_distance
from pullback.studies._posed import PosedBrains, Prostates
from pullback.study.arms import Arm, FunctionArm, RegisterArm, TrainedArm
from pullback.study.evaluate import unmoved
from pullback.study.figures import curves
from pullback.study.recipe import Recipe
from pullback.study.table import Column, Experiment, Figure, Study, Table
from pullback.training import ExampleEvaluation, KnownTransform, Perturbed, RandomPose, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

    from pullback.study.result import Result

# ---- what a loss sees of a turn: figure 2

AXES, ANGLES = 27, tuple(range(5, 360, 5))
SMALL_TURN, LARGE_TURN = 20, 90  # degrees
RADII = (20.0, 15.0, 17.0)  # mm, of a gland
FIELD_OF_VIEW = Grid.centred((64, 64, 60), 0.8)
POSES, DEGREES, SHIFT = 1000, 60.0, 6.0  # of the rank correlation
RADIAN = 180 / math.pi


def gland(count: int = 400) -> Tensor:
    """Return points of the surface of an ellipsoid, `(1, count, 3)` mm, always the same ones."""
    at = torch.randn(count, 3, generator=make_generator(28), dtype=torch.float64)
    return (at / at.norm(dim=1, keepdim=True) * torch.tensor(RADII) + torch.tensor([2.0, -3.0, 1.0]))[None]


def size_of(measure: str, poses: Affine) -> Tensor:
    """Return how far poses are from the identity by one of `MEASURES`, `(B,)`."""
    still, grid = Affine.identity(3), FIELD_OF_VIEW
    if measure == "TGD":
        return mean_square_distance(poses, still, grid).sqrt()
    if measure == "TRE":
        return (poses.at(gland().mT) - gland().mT).norm(dim=1).mean(1)
    loss = MEASURES[measure]
    off = loss.of(poses, grid) - loss.of(still, grid)
    return off.square().mean(1).sqrt() if loss.power == 2 else off.abs().mean(1)


MEASURES: Mapping[str, Any] = {
    "TRE": None,
    "TGD": None,
    "L1 Euler": ParameterDistance("euler", 1),
    "MSE Euler": ParameterDistance("euler"),
    "MSE Euler, radians": ParameterDistance("euler", 2, RADIAN),
    "quaternion": ParameterDistance("quaternion"),
}
"""Of the grid's points, of the gland's, or of numbers; squares are told by their root."""


def by_turn(data: None, seed: int, measure: str) -> Iterator[Row]:
    """Measure turns about the middle of the image by a loss: for each angle its mean and spread over random axes."""
    axes = torch.randn(AXES, 3, generator=make_generator(27, seed), dtype=torch.float64)
    axes = axes / axes.norm(dim=1, keepdim=True)
    for angle in ANGLES:
        values = size_of(measure, _poses(math.radians(angle) * axes, torch.zeros(AXES, 3).double()))
        spread = 100 * float(values.std() / values.mean())
        near = {"spread of small turns %": spread} if angle <= SMALL_TURN else {}
        far = {"spread of large turns %": spread} if LARGE_TURN <= angle <= 360 - LARGE_TURN else {}
        ends = {"value": float(values.mean()), "least": float(values.min()), "greatest": float(values.max())}
        yield {"case": f"{angle}°", "angle": angle, **ends, **near, **far}


def by_pose(data: None, seed: int, measure: str) -> Iterator[Row]:
    """Measure by a loss how the order of random poses stands to that by TRE: Spearman's rank correlation."""
    from scipy.stats import spearmanr  # noqa: PLC0415 (half a second, for one number)

    draws = make_generator(29, seed)
    axes = torch.randn(POSES, 3, generator=draws, dtype=torch.float64)
    angles = math.radians(DEGREES) * torch.rand(POSES, 1, generator=draws, dtype=torch.float64)
    shifts = SHIFT * (2 * torch.rand(POSES, 3, generator=draws, dtype=torch.float64) - 1)
    poses = _poses(angles * axes / axes.norm(dim=1, keepdim=True), shifts)
    rank = spearmanr(size_of("TRE", poses).numpy(), size_of(measure, poses).numpy()).statistic
    yield {"case": f"{POSES} poses", "rank": float(rank)}


def _poses(vectors: Tensor, shifts: Tensor) -> Affine:
    matrix = torch.eye(4, dtype=torch.float64).repeat(len(vectors), 1, 1)
    matrix[:, :3, :3] = of_vector(vectors)
    matrix[:, :3, 3] = shifts  # the middle is the world's origin
    return Affine(matrix)


def turns(result: "Result", rows: Sequence[Row]) -> "Drawing":
    """Draw each loss over the angle, the mean and the range over the axes: figure 2."""
    figure, axes = blank(3, 8.0, 4.6, 2)
    for one, (arm, each), colour in zip(axes, result.rows.items(), COLOURS, strict=False):
        angles, values, least, greatest = (
            [float(row[key]) for row in each] for key in ("angle", "value", "least", "greatest")
        )
        one.fill_between(angles, least, greatest, color=colour, alpha=0.3, linewidth=0)
        one.plot(angles, values, color=colour, linewidth=1.3)
        one.set_title(arm)
        one.set_xlabel("degrees")
    return figure


def cumulative(result: "Result", rows: Sequence[Row]) -> "Drawing":
    """Draw for each arm what share of the poses has a TRE below each number of mm."""
    figure, (axis,) = blank()
    for (arm, each), colour in zip(result.rows.items(), COLOURS, strict=False):
        errors = sorted(float(row[TRE.number]) for row in each if TRE.number in row)
        axis.step(errors, [100 * (n + 1) / len(errors) for n in range(len(errors))], color=colour, label=arm)
    axis.set_xlabel(TRE.label)
    axis.set_ylabel("% of the poses")
    legend(figure, axis)
    return figure


# ---- losses

TOLD = KnownTransform(2, "mm")
LOSSES: Mapping[str, Any] = {
    "TGD, squared": TOLD,
    "TGD": KnownTransform(1, "mm"),
    "TRE-TGD": KnownTransform(1, "mm", "points"),
    "MSE Euler": ParameterDistance("euler"),
    "L1 Euler": ParameterDistance("euler", 1),
    "MSE Euler, radians": ParameterDistance("euler", 2, RADIAN),
    "MSE Euler, tenths of a degree": ParameterDistance("euler", 2, 0.1),
    "quaternion": ParameterDistance("quaternion"),
}
"""The grid distance, and five rivals."""
FORMS: Mapping[str, tuple[Any, int]] = {
    "Euler": (of_euler, 3),
    "rotation vector": (of_vector, 3),
    "quaternion": (of_four, 4),
    "six numbers": (of_six, 6),
}


def recipe(data: Any, loss: Any = TOLD, form: str = "Euler") -> Recipe:
    """Return the recipe of a loss and a way to write rotations, on data that is made by `Perturbed`."""
    make, count = FORMS[form]
    return Recipe(
        about=f"A pose network that answers with {form}, by {loss}",
        data=data,
        network=partial(PoseNet, ndim=3, form=make, count=count),
        supervision=loss,
        training=replace(TRAINING, augment=data.perturbed),
        metrics=METRICS,
    )


def _losses(data: Any, names: Sequence[str] = tuple(LOSSES)) -> Experiment:
    arms: dict[str, Arm] = {"before": RegisterArm(unmoved)}
    arms |= {name: TrainedArm(recipe(data, LOSSES[name])) for name in names}
    return Experiment(arms, "MSE Euler", data, METRICS)


def _forms(data: Any) -> Experiment:
    return Experiment({name: TrainedArm(recipe(data, TOLD, name)) for name in FORMS}, "Euler", data, METRICS)


# ---- a start

RIGID = Classical(initialise=None, linear=BALANCED.linear[:1], deformable=None)
SUCCESS_MM = 3.0


def placed(register: Any, pair: Pair) -> dict[str, float]:
    """Measure the TRE in mm of a register, whether it is a success, and the seconds that it takes."""
    start = time.perf_counter()
    found = seen(pair, register(pair.fixed, pair.moving))
    seconds = time.perf_counter() - start
    error = LandmarkError()(found)[LandmarkError.name]
    return {LandmarkError.name: error, "success": float(error < SUCCESS_MM), "seconds": seconds}


def then_rigid(network: Any) -> Chain:
    """Return a network followed by the rigid stage."""
    return chain(network, RIGID)


def _start(data: Any) -> Experiment:
    learned = recipe(data)
    return Experiment(
        {
            "before": RegisterArm(unmoved),
            "rigid": RegisterArm(RIGID),
            "CrossNGF": RegisterArm(SMALL),
            "CrossNGF, rigid": RegisterArm(chain(SMALL, RIGID)),
            "chosen start, rigid": RegisterArm(replace(RIGID, initialise=BALANCED.initialise)),
            "pose network": TrainedArm(learned),
            "pose network, rigid": TrainedArm(learned, uses=then_rigid),
        },
        "CrossNGF, rigid",
        data,
        METRICS,
        partial(ExampleEvaluation, measure=placed, chooses=LandmarkError.name, higher_is_better=False, aligns="pose"),
    )


TRE = Column("TRE", "mm", better="less", against="difference", digits=2, key=LandmarkError.name)
GRID = Column("distance over the foreground", "mm", better="less", digits=2, key=EndPointError.name)
ERRORS = (
    TRE,
    replace(TRE, name="median TRE", against="", of="median", key=TRE.number),
    replace(TRE, name="worst TRE", against="", of="max", key=TRE.number),
    GRID,
)
FIGURES = {"training": Figure(partial(curves, columns=(TRE,))), "cumulative": Figure(cumulative)}
MADE, MR = PosedBrains(), Prostates()
HIDDEN = Prostates(perturbed=Perturbed(RandomPose(25.0), surface=400, margin=0.25))
WITH_ULTRASOUND = Prostates(kind="mr-us", perturbed=Perturbed(RandomPose(20.0), alone=False, surface=400))

study = Study(
    about="Transformed grid distance loss for supervised image registration (Song et al. 2022)",
    tables={
        "angles": Table(
            "What each loss sees of a turn: its spread over the axes of one angle, and its order of poses by TRE",
            "Figure 2, 27 axes, 0 to 360°: L1 and MSE of Euler angles differ from axis to axis, the grid distance "
            "follows TRE.",
            {
                name: Experiment({arm: FunctionArm(partial(measured, measure=arm)) for arm in MEASURES}, "TRE")
                for name, measured in (("turns", by_turn), ("poses", by_pose))
            },
            (
                Column("spread of small turns", "%", better="less"),
                Column("spread of large turns", "%", better="less"),
                Column("rank correlation with TRE", better="more", digits=2, key="rank"),
            ),
            {"turns": Figure(turns)},
        ),
        "table1": Table(
            "An image and itself in a random pose, by the loss that is learned from",
            "Table 1, MR and itself, 528 people to learn from, TRE in mm and its 25th, 50th, 75th and 95th percentile: "
            "before 12.66 ± 7.30 (6.39 12.83 18.79 23.88), quaternion 12.95 ± 7.36 (6.64 12.93 19.00 24.67), MSE Euler "
            "2.68 ± 2.31 (1.19 2.04 3.43 6.82), L1 Euler 2.80 ± 2.68 (1.04 2.09 3.72 7.48), TGD 1.51 ± 1.45 (0.62 1.15 "
            "1.93 3.85), TRE-TGD 1.50 ± 1.53 (0.65 1.14 1.87 3.83).",
            {"phantom": _losses(MADE), "prostates": _losses(MR)},
            ERRORS,
            FIGURES,
            unit="subject",
        ),
        "table2": Table(
            "An MR and its ultrasound in a random pose; the truth is made from the glands",
            "Table 2, 528 people to learn from, truth by hand: before 9.93 ± 5.87 (4.89 9.82 14.89 19.10), MSE Euler "
            "5.57 ± 2.86 (3.47 5.06 7.07 10.98), SRE-TGD 4.40 ± 2.49 (2.57 3.97 5.77 8.88), p < 0.001 of people.",
            {"prostates-us": _losses(WITH_ULTRASOUND, ("TGD, squared", "TRE-TGD", "MSE Euler"))},
            ERRORS,
            FIGURES,
            unit="subject",
        ),
        "edges": Table(
            "As table 1, where the ends of the field of view tell nothing: either image is hidden from there at random",
            "This is not shown: of an image in a pose what comes from beyond is 0, and its edge tells the pose.",
            {"prostates-hidden": _losses(HIDDEN, ("TGD, squared", "MSE Euler", "MSE Euler, radians"))},
            ERRORS,
            FIGURES,
            unit="subject",
        ),
        "forms": Table(
            "The numbers that the network answers with, by the grid distance",
            "This is not shown: the paper says that the loss asks for no change of the network's output.",
            {"phantom": _forms(MADE), "prostates": _forms(MR)},
            ERRORS,
            FIGURES,
            unit="subject",
        ),
        "start": Table(
            "A pose network as the start of a rigid registration",
            f"This is not shown. A success is a TRE below {SUCCESS_MM:g} mm.",
            {"phantom": _start(MADE), "prostates": _start(MR)},
            (
                Column("success", "", better="more", of="rate"),
                TRE,
                replace(TRE, name="median TRE", against="", of="median", key=TRE.number),
                Column("time", "s", better="less", against="ratio", of="median", digits=2, key="seconds"),
            ),
        ),
    },
)
