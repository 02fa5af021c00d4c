"""The study of the variational principle (Zhou and Liao 2022), and of maps with a known volume change.

    pullback study variational-principle letters least
    pullback study variational-principle slices --data slices=DIR
    pullback study variational-principle atrophy --data brains=DIR

The paper shows its letters as pictures; here they are formulas. J, V and C have strokes of 0.17 of the side with round
ends; of letters and disc, the overlap is of what is ½ and more. Slices are r16 → r64 of the folder of `r16slice.jpg`,
at 128², and their overlap is that of the foregrounds by Otsu's threshold, each on its own image, moved as labels.

"ratio" is the loss after over the loss before, over all voxels; "inverse" is what the inverse makes of the fixed image,
against the moving one. Of the method with its own numbers it is the one that the variational principle constructs,
stage by stage; of other arms the inverse at each point.

In `atrophy` both hippocampi of a brain shrink to 0.8 of their volume by a prescribed map. The brain is smoothed by a
voxel before, and noise is drawn for each image: of two that are the same but for the map, whatever resamples the one
away from the voxels of the other makes them less alike.
What is asked is how much of that a registration of the two images finds.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import matmul
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair, seen
from pullback.energies import MSE, Diffusion
from pullback.methods.pair.broken_geodesics import BrokenGeodesics
from pullback.methods.pair.classical import BALANCED, FAST
from pullback.methods.pair.convex_adam import ConvexAdam
from pullback.methods.pair.determinant_and_curl import controlled, inverse_by
from pullback.methods.pair.log_demons import LogDemons
from pullback.methods.pair.variational_principle import VariationalPrinciple
from pullback.report.animation import write_animation
from pullback.report.figures import COLOURS, blank
from pullback.solvers import DeformableStage, Descend, FieldAdam, Levels
from pullback.space import Affine, Displacement, Image, Velocity, pull
from pullback.studies._letters import SHRUNK, SIDE, Atrophy, Letters, Slices
from pullback.study.arms import RegisterArm
from pullback.study.evaluate import unmoved
from pullback.study.peers import ANTs, PeerArm
from pullback.study.table import Column, Experiment, Figure, Study, Table
from pullback.training import ExampleEvaluation, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

    from pullback.study.result import Result

ONE_LEVEL = Levels(coarsest=SIDE)


# ---- what is measured


def recovered(register: Any, pair: Pair) -> dict[str, float]:
    """Measure the volume of the hippocampi after what a register finds, and after the truth, as a share of before."""
    start = time.perf_counter()
    found = seen(pair, register(pair.fixed, pair.moving))
    seconds = time.perf_counter() - start
    assert pair.truth is not None
    assert pair.fixed_labels is not None
    inside = pair.fixed_labels.data > 0
    true = Alignment(pair, pair.truth)
    off = pair.fixed.grid.to_mm(
        (found.transform.displacement(pair.fixed.grid) - pair.truth.displacement(pair.fixed.grid)).double()
    )
    return {
        "volume": float(found.jacobian[inside].mean()),
        "true volume": float(true.jacobian[inside].mean()),
        "error of the prescription": float((true.jacobian[inside] - SHRUNK).abs().max()),
        "epe mm": float(off.norm(dim=1, keepdim=True)[inside].mean()),
        "seconds": seconds,
    }


def both_ways(register: Any, pair: Pair) -> dict[str, float]:
    """Measure a register and its inverse as a registration the other way, as in tables 1 and 2."""
    start = time.perf_counter()
    found = seen(pair, register(pair.fixed, pair.moving))
    seconds = time.perf_counter() - start
    start, phi, grid = time.perf_counter(), found.transform, pair.fixed.grid
    back = inverse_by(phi, grid) if register in (PAPER, BRAIN) else found.inverse
    turned = Pair(pair.moving, pair.fixed, pair.moving_labels, pair.fixed_labels)
    undone = Alignment(turned, back)
    trip = (back @ phi).displacement(grid).norm(dim=1)
    took = time.perf_counter() - start
    numbers = {**_numbers(found), **{f"inverse {name}": value for name, value in _numbers(undone).items()}}
    return {**numbers, "round trip voxels": float(trip.mean()), "seconds": seconds, "inverse seconds": took}


def _numbers(found: Alignment) -> dict[str, float]:
    before = Alignment(found.pair, Affine.identity(found.pair.fixed.grid.ndim))
    dice, loss = overlap(found), float(MSE()(before))
    return {
        "dice": dice,
        "ratio": float(MSE()(found)) / loss if loss > 0 else 0.0,
        "least determinant": float(found.jacobian.min()),
        "greatest determinant": float(found.jacobian.max()),
        "jsc": dice / (2 - dice),
    }


def overlap(found: Alignment) -> float:
    """Return DICE of letters, thresholded after the pull, or of labels that were moved."""
    fixed, moved, pair = found.pair.fixed_labels, found.moved_labels, found.pair
    assert fixed is not None
    assert moved is not None
    binary = torch.equal((pair.moving.data >= 0.5).to(torch.uint8), pair.moving_labels.data)  # type: ignore[union-attr]
    one, two = fixed.data > 0, found.moved.data >= 0.5 if binary else moved.data > 0
    return 2 * float((one & two).sum()) / max(float(one.sum() + two.sum()), 1)


@dataclass(frozen=True)
class ByAdam:
    """The controls f̂ and g, descended by Adam on one level, with f ≥ ½ everywhere and nothing else to hold the map.

    Attributes:
        steps: of Adam.
        size: of the first step.
    """

    steps: int = 300
    size: float = 0.05

    def __call__(self, fixed: Image, moving: Image) -> Alignment:
        pair, like = Pair(fixed, moving), fixed.data.double()
        edges = fixed.grid.spacing.tolist()
        f = torch.full_like(like, 0.5**0.5).requires_grad_()
        g = torch.zeros_like(like).requires_grad_()
        solver = torch.optim.Adam([f, g], self.size)
        with torch.enable_grad():
            for _ in range(self.steps):
                solver.zero_grad()
                field = controlled(0.5 + f.square(), g, edges)
                MSE()(Alignment(pair, Displacement(field, fixed.grid))).backward()
                solver.step()
        field = controlled(0.5 + f.detach().square(), g.detach(), edges)
        return Alignment(pair, Displacement(field.float(), fixed.grid))


# ---- figures


def pictures(result: "Result", rows: Sequence[Row]) -> "Drawing":
    """Draw the baseline's answer: the images, the moved ones of both ways, the grids, and the round trip in red."""
    pair = next(iter(result.data.test))
    arm = result.units[result.baseline][0].arm
    assert isinstance(arm, RegisterArm)
    found = seen(pair, arm.register(*pair.images))
    grid = pair.fixed.grid
    back = inverse_by(found.transform, grid)
    undone = Alignment(Pair(pair.moving, pair.fixed), back)
    figure, axes = blank(4, 9.6, 5.0, 2)
    shown = (("moving", pair.moving), ("fixed", pair.fixed), ("moved", found.moved), ("fixed ∘ inverse", undone.moved))
    for axis, (title, image) in zip((axes[0], axes[1], axes[3], axes[6]), shown, strict=True):
        axis.imshow(image.data[0, 0].T.flip(0).numpy(), cmap="gray")
        axis.set_title(title, fontsize=9)
    _lines(axes[2], found.transform.displacement(grid), COLOURS[0], "grid of φ")
    _lines(axes[5], back.displacement(grid), COLOURS[1], "grid of the inverse")
    _lines(axes[7], torch.zeros(1, 2, *grid.shape), "#000000", "")
    _lines(axes[7], (back @ found.transform).displacement(grid), "#d8404a", "there and back, over the identity")
    for axis in axes:
        axis.set_axis_off()
    return figure


def _lines(axis: "Axes", displacement: Tensor, colour: str, title: str, every: int = 4) -> None:
    where = (torch.stack(torch.meshgrid(*map(torch.arange, displacement.shape[2:]), indexing="ij")) + displacement)[0]
    x, y = where.double().numpy()
    for n in range(0, x.shape[0], every):
        axis.plot(x[n], y[n], color=colour, linewidth=0.5)
    for n in range(0, x.shape[1], every):
        axis.plot(x[:, n], y[:, n], color=colour, linewidth=0.5)
    axis.set_aspect("equal")
    axis.set_title(title, fontsize=9)


def animate(path: str | Path, data: Letters = Letters(), count: int = 4) -> None:
    """Write an animation of how one letter becomes the other, `count` pictures of each stage, beside its aim.

    The stages of the answer join one after another, each by parts of its displacement.
    """
    pair = data.load()
    stages = VariationalPrinciple(ratio=0.0034)(pair.fixed, pair.moving).transform.parts
    frames = [pair.moving.data] * count
    for n, stage in enumerate(stages):
        for part in range(1, count + 1):
            share = Displacement(part / count * stage.displacement(pair.fixed.grid), pair.fixed.grid)
            frames.append(pull(pair.moving, reduce(matmul, (*stages[:n], share)), onto=pair.fixed).data)
    frames += [frames[-1]] * (4 * count)
    aim = pair.fixed.data
    write_animation([_upright(torch.cat([frame, aim], 2)) for frame in frames], path)


def _upright(data: Tensor) -> np.ndarray:
    return np.kron(data[0, 0].T.flip(0).numpy(), np.ones((2, 2), dtype=np.float32))


# ---- the tables

PAPER = VariationalPrinciple(ratio=0.0034)
BRAIN = VariationalPrinciple(ratio=0.0605, levels=ONE_LEVEL)
DESCENT = DeformableStage(
    MSE() + 0.01 * Diffusion(),
    levels=Levels(coarsest=32),
    steps=(100, 100, 100),
    solver=Descend(100, 0.2, optimiser=FieldAdam()),
)
RIVALS = {
    "Velocity": RegisterArm(replace(DESCENT, kind=Velocity)),
    "Displacement": RegisterArm(replace(DESCENT, kind=Displacement)),
    "log-demons": RegisterArm(LogDemons()),
    "broken geodesics": RegisterArm(BrokenGeodesics()),
    "SyN": PeerArm(ANTs("SyN")),
}


def _arms(own: VariationalPrinciple) -> dict[str, Any]:
    """Return the method, what it is without each of its parts, and rivals."""
    ways = {
        "variational": own,
        "multiresolution alone": replace(own, floor=None, levels=PAPER.levels),
        **({} if own.levels == ONE_LEVEL else {"regridding alone": replace(own, levels=ONE_LEVEL)}),
        "neither": replace(own, floor=None, levels=ONE_LEVEL),
        "F": replace(own, controls="F"),
    }
    arms: dict[str, Any] = {"before": RegisterArm(unmoved)}
    arms |= {name: RegisterArm(one) for name, one in ways.items()}
    return arms | {"Adam": RegisterArm(ByAdam())} | RIVALS


def _few(own: VariationalPrinciple) -> dict[str, Any]:
    return {"before": RegisterArm(unmoved), "variational": RegisterArm(own)} | RIVALS


def _pairs(arms: dict[str, Any], data: Any) -> Experiment:
    measured = partial(ExampleEvaluation, measure=both_ways, chooses="dice", aligns="pair")
    return Experiment(arms, "variational", data, (), measured)


def _sweep() -> dict[str, Any]:
    least = {f"{value:g}": RegisterArm(replace(PAPER, least=value)) for value in (0.1, 0.25, 0.75)}
    return {"variational": RegisterArm(PAPER), **least}


def _shrunk(ndim: int) -> Experiment:
    plain: dict[str, Any] = {
        "before": RegisterArm(unmoved),
        "variational": RegisterArm(VariationalPrinciple()),
        "fast": RegisterArm(replace(FAST, initialise=None, linear=())),
        "balanced": RegisterArm(replace(BALANCED, initialise=None, linear=())),
        "ConvexAdam": RegisterArm(ConvexAdam()),
        "log-demons": RegisterArm(LogDemons()),
        "SyN": PeerArm(ANTs("SyN")),
    }
    measured = partial(ExampleEvaluation, measure=recovered, chooses="epe mm", higher_is_better=False, aligns="pair")
    return Experiment(plain, "variational", Atrophy(ndim=ndim), (), measured)


def _both(name: str, better: Any, digits: int) -> tuple[Column, Column]:
    return Column(name, better=better, digits=digits), Column(f"inverse {name}", better=better, digits=digits)


COLUMNS = (
    *_both("ratio", "less", 4),
    *_both("least determinant", "", 3),
    Column("greatest determinant", digits=1),
    Column("JSC", better="more", digits=4),
    Column("DICE", better="more", digits=4),
    Column("inverse DICE", better="more", digits=4),
    Column("round trip", "voxels", better="less", digits=4),
    Column("time", "s", better="less", digits=2, key="seconds"),
    Column("inverse time", "s", better="less", digits=2, key="inverse seconds"),
)
OF_ATROPHY = (
    Column("volume", digits=3),
    Column("true volume", digits=3),
    Column("error of the prescription", digits=4),
    Column("EPE", "mm", better="less", digits=3),
    Column("time", "s", better="less", digits=2, key="seconds"),
)
TABLES = "Table 1, {one}. Table 2, of the inverse: {two}."

study = Study(
    about="An image registration framework with controllable diffeomorphisms: the variational principle (2022)",
    tables={
        "letters": Table(
            "Large motion: J → V, and C → disc and back",
            TABLES.format(
                one="J → V: ratio 0.0034, least determinant 0.2191, JSC 0.9337, DICE 0.9657",
                two="0.0029, 0.1520, 0.9195, 0.9581",
            ),
            {
                "letters/J to V": _pairs(_arms(PAPER), Letters()),
                "letters/C to disc": _pairs(_few(PAPER), Letters("C", "disc")),
                "letters/disc to C": _pairs(_few(PAPER), Letters("disc", "C")),
            },
            COLUMNS,
            {"pictures": Figure(pictures)},
        ),
        "slices": Table(
            "One head's slice to another's",
            TABLES.format(
                one="brain morph (not these images): ratio 0.0605, least determinant 0.2540, JSC 0.9849, DICE 0.9924",
                two="0.0657, 0.3212, 0.9832, 0.9915",
            ),
            {"slices": _pairs(_arms(BRAIN), Slices())},
            COLUMNS,
            {"pictures": Figure(pictures)},
        ),
        "least": Table(
            "J → V by J_min; variational is 0.5",
            "J_min is 0.5 by hand; the paper wishes for a rule.",
            {"letters/J_min": _pairs(_sweep(), Letters())},
            COLUMNS,
        ),
        "atrophy": Table(
            "Hippocampi that shrank to 0.8 of their volume: how much of it is found, in a coronal slice",
            "This is not shown; no paper.",
            {"brains": _shrunk(2)},
            OF_ATROPHY,
        ),
        "atrophy-3d": Table(
            "The same of the whole brain; the truth takes minutes",
            "This is not shown; no paper.",
            {"brains/3-D": _shrunk(3)},
            OF_ATROPHY,
        ),
    },
)
