"""The study of broken geodesics (Thottupattu et al. 2022): pieces beside one velocity, and the length as a metric.

    pullback study broken-geodesics pieces/slices metric --data slices=oasis_trt20_2d/
    pullback study broken-geodesics pieces/brains --data brains=brains/2mm/

`pieces` are the ordered pairs of the four test subjects. Five pieces stand beside one, and beside the two ways by which
one piece may come as far: more steps than all five take together, and half the smoothing. The figures show what each
further piece does, up to eight, by demons and by local correlation, and the first pair piece by piece.

`metric` asks for what the paper shows by the ages of subjects: that the length tells small deformations from large
ones. Here their sizes are known: each test subject's image is deformed by a smooth random velocity, six sizes of it.

"Back" is the mean squared difference of the fixed image, pulled through the inverse, and the moving one; the round trip
is there and back through `inverse()`, which of SyN's field is found by iteration, and is not SyN's own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from matplotlib.figure import Figure as Drawing
from scipy.stats import linregress, spearmanr

from pullback.alignment import Alignment, Pair, Register
from pullback.energies import LNCC
from pullback.methods.pair.broken_geodesics import BrokenGeodesics
from pullback.methods.pair.classical import DEFORMED, FAST
from pullback.methods.pair.log_demons import LogDemons
from pullback.metrics import Dice, Folding, Length, foreground, numbers_of, of_one
from pullback.numerics.kernel import Sobolev
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import gaussian
from pullback.recipes.datasets import DATASETS
from pullback.report.figures import COLOURS, INK, WIDTH, blank, legend
from pullback.report.pictures import cuts, grid_step, lattice
from pullback.solvers import Converged, Descend, Stalled
from pullback.space import Flow, Transform, Velocity, pull
from pullback.studies._images import DICE, FOLDING, SECONDS
from pullback.study.arms import Arm, FunctionArm, RegisterArm
from pullback.study.evaluate import unmoved
from pullback.study.figures import boxes, by_number
from pullback.study.peers import ANTs, PeerArm
from pullback.study.result import Result
from pullback.study.table import Column, Experiment, Figure, Study, Table
from pullback.training import Row

KERNEL = Sobolev(25.0, 2, unit="mm")
"""Of the second length: a velocity bends over some 5 mm."""
SIZES = (0.5, 1.0, 2.0, 3.0, 4.5, 6.0)  # mm, root mean square over the foreground
WIDE = 12.0  # sigma in voxels of a made velocity
MOST = 8  # pieces of the curve
ALL = Stalled(1, -1.0)  # every piece is taken that makes the difference less

DEMONS = LogDemons()
FIVE = BrokenGeodesics(DEMONS, 5, ALL)
LOCAL = replace(DEFORMED, steps=(60, 40, 20), solver=Descend(step_size=0.15, until=Converged()))
"""With the step of a preset a later piece climbs at first, and the best it has seen is no motion."""
BY_LNCC = BrokenGeodesics(LOCAL, 5, ALL, LNCC(9, noise=0.05))


@dataclass(frozen=True)
class SquaredDifference:
    """The mean squared difference of fixed and moved intensities over all voxels, and that of the way back.

    The inverse is that of the transform, `inverse()`; the round trip is the mean distance in mm by which a point of the
    fixed foreground misses itself.
    """

    name: ClassVar[str] = "mse"
    higher_is_better: ClassVar[bool] = False

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        pair, there = alignment.pair, alignment.transform
        back = there.inverse()
        seen = pull(pair.fixed, back, onto=pair.moving).data
        grid, inside = pair.fixed.grid, foreground(alignment)
        off = grid.to_mm((back @ there).displacement(grid)).norm(dim=1, keepdim=True)
        return {
            "mse": float((alignment.moved.data - pair.fixed.data).square().mean()),
            "mse back": float((seen - pair.moving.data).square().mean()),
            "round trip mm": float(off.to(inside.device)[inside].mean()),
        }


METRICS = (Dice(), SquaredDifference(), Folding(), Length(KERNEL))
MSE_COLUMN = Column("MSE", better="less", against="ratio")
COLUMNS = (
    DICE,
    MSE_COLUMN,
    FOLDING,
    Column("length", "mm"),
    Column("MSE back", better="less"),
    Column("round trip", "mm", better="less"),
    SECONDS,
)
ARMS: dict[str, Arm] = {
    "before": RegisterArm(unmoved),
    "log-demons": RegisterArm(DEMONS),
    "log-demons, 300 steps a level": RegisterArm(replace(DEMONS, iterations=300, until=ALL)),
    "log-demons, half the smoothing": RegisterArm(replace(DEMONS, fluid=0.5, diffusion=0.5)),
    "five pieces": RegisterArm(FIVE),
    "five pieces, asymmetric": RegisterArm(replace(FIVE, by=replace(DEMONS, symmetric=False))),
    "five pieces by LNCC": RegisterArm(BY_LNCC),
    "fast, aligned": RegisterArm(replace(FAST, initialise=None, linear=())),
    "SyN, mean squares": PeerArm(ANTs("SyN", "meansquares")),
    "SyN": PeerArm(ANTs("SyN")),
}


# ---- pieces


def pieces_of(transform: Transform) -> list[Flow]:
    """Return the first one, two, … all pieces of a flow, each as a flow."""
    velocities, grid = transform.motion_on(transform.grids[0])
    each = velocities.flatten(0, 1) / len(velocities)  # (N, d, …)
    return [Flow(each[:n], grid, n, 7) for n in range(1, len(each) + 1)]


def by_pieces(result: Result, registers: Sequence[tuple[str, BrokenGeodesics]], pairs: int = 2) -> list[Row]:
    """Measure what each further piece does, on the first test pairs.

    Returns:
        One row per register, pair and number of pieces, from 0 on: numbers of the flow so far, the length of the last
        piece and its folds. Where a register has no further piece, its last flow stays.
    """
    rows: list[Row] = []
    for pair in list(result.data.test)[:pairs]:
        for name, register in registers:
            most = replace(register, pieces=MOST)
            flows: list[Transform] = [unmoved(*pair.images).transform, *pieces_of(most(*pair.images).transform)]
            numbers: dict[str, float] = {}
            for n in range(MOST + 1):
                if n < len(flows):
                    numbers = _measured(pair, flows[n])
                rows.append({"arm": name, "case": pair.name, "pieces": n, **numbers})
    return rows


def _measured(pair: Pair, flow: Transform) -> dict[str, float]:
    alignment = Alignment(pair, flow)
    numbers = {name: value for name, value in numbers_of(alignment, METRICS).items() if "/" not in name}
    velocities, grid = flow.motion_on(pair.fixed.grid)  # of what does not move, that is 0
    last = Alignment(pair, Velocity(velocities[-1] / len(velocities), grid))
    numbers["piece mm"], numbers["piece folding %"] = Length()(last)["length mm"], Folding()(last)["folding % (all)"]
    return numbers


def drawn_by_pieces(result: Result, rows: Sequence[Row], register: BrokenGeodesics = FIVE) -> Drawing:
    """Draw the first test pair after each piece: the moved image, and a grid through the flow."""
    pair = next(iter(result.data.test))
    flows: list[Transform] = [unmoved(*pair.images).transform, *pieces_of(register(*pair.images).transform)]
    shown = [cuts(Alignment(pair, flow))[0] for flow in flows]
    step, wide = grid_step(shown), WIDTH / 3
    tall = wide * shown[0].plane.size[1] / shown[0].plane.size[0]
    figure, axes = blank(len(shown) + 1, wide * (len(shown) + 1), 2 * tall + 0.6, 2)
    figure.suptitle(pair.name, color=INK, fontsize=9)
    for one in axes:
        one.set_axis_off()
    for n, cut in enumerate(shown):
        image, grid = axes[n], axes[n + len(shown) + 1]
        image.imshow(cut.after, cmap="gray", vmin=0, vmax=1)
        image.set_title(f"S{n}", fontsize=9, color=INK)
        for along, heights in zip(cut.reached, lattice(cut, step), strict=True):
            grid.contour(along, heights, colors=COLOURS[0], linewidths=0.8, linestyles="solid")
        grid.invert_yaxis()
        grid.set_aspect("equal")
    axes[len(shown)].imshow(shown[0].fixed, cmap="gray", vmin=0, vmax=1)
    axes[len(shown)].set_title("fixed", fontsize=9, color=INK)
    return figure


# ---- the metric


def of_known_size(data: Any, seed: int, register: Register) -> Iterator[Row]:
    """Measure the length that a register finds between an image and the same one, deformed by velocities of known size.

    Each subject of the test split has a velocity of its own, smoothed noise. M = F ∘ exp(−s w), so that exp(s w) brings
    it back.
    """
    for number, fixed in enumerate({pair.name.split(" ← ")[0]: pair.fixed for pair in data.test}.items()):
        name, image = fixed
        noise = torch.randn(1, image.grid.ndim, *image.grid.shape, generator=make_generator(seed, number))
        rough = Velocity(gaussian(noise, WIDE), image.grid)
        unit = Length()(Alignment(Pair(image, image), rough))["length mm"]
        for size in SIZES:
            known = replace(rough, field=rough.field * size / unit)
            pair = Pair(image, pull(image, known.inverse(), onto=image))
            found = Alignment(pair, register(*pair.images).transform)
            yield {"case": f"{name}, {size:g} mm", "subject": name, "true mm": size, **Length(KERNEL)(found)}


def ranked(result: Result) -> list[Row]:
    """Return Spearman's rank correlation of true and found lengths, and the slope, of each arm."""
    rows: list[Row] = []
    for arm, known in result.rows.items():
        true = [float(row["true mm"]) for row in known]
        for name in ("length mm", "length (smooth)"):
            found = [float(row[name]) for row in known]
            rank, slope = spearmanr(true, found).statistic, linregress(true, found).slope
            rows.append({"arm": arm, "number": name, "spearman": float(rank), "slope": float(slope)})
    return rows


def scattered(result: Result, rows: Sequence[Row]) -> Drawing:
    """Draw found against true lengths, in mm; the line is where they are the same."""
    figure, (axis,) = blank()
    axis.plot((0, max(SIZES)), (0, max(SIZES)), color=INK, linewidth=0.8)
    for (arm, known), colour in zip(result.rows.items(), COLOURS, strict=False):
        at, found = ([float(row[name]) for row in known] for name in ("true mm", "length mm"))
        axis.plot(at, found, "o", color=colour, markersize=4, alpha=0.8, label=arm)
    axis.set_xlabel("true length, mm")
    axis.set_ylabel("length found, mm")
    legend(figure, axis)
    return figure


CURVE = Figure(
    partial(
        by_number,
        columns=(MSE_COLUMN, DICE, Column("length of the piece", "mm", key="piece mm")),
        number="pieces",
        label="pieces",
    ),
    partial(by_pieces, registers=(("demons", FIVE), ("LNCC", BY_LNCC))),
    ("arm", "pieces"),
)


def _pieces(data: str) -> Experiment:
    return Experiment(ARMS, "five pieces", DATASETS[data].data, METRICS)


study = Study(
    about="A method for image registration via broken geodesics (Thottupattu et al. 2022)",
    tables={
        "pieces": Table(
            "Five pieces beside one velocity, beside more steps and less smoothing of one, and beside SyN",
            "3.2, T1 of ten pairs: MSE 0.0012 of the pieces, 0.0036 of ANTs by mean squares, 0.0113 of DRAMMS; no "
            "folds seen; five pieces are enough, and they shrink.",
            {name: _pieces(name) for name in ("slices", "brains")},
            COLUMNS,
            {
                "by pieces": CURVE,
                "first pair": Figure(drawn_by_pieces),
                "labels": Figure(partial(boxes, column=DICE)),
            },
        ),
        "metric": Table(
            "The length between an image and the same one, deformed by a known amount",
            "3.3: longer for six old subjects than for young ones. Here the amount is known.",
            {
                "slices": Experiment(
                    {
                        "five pieces": FunctionArm(partial(of_known_size, register=FIVE)),
                        "log-demons": FunctionArm(partial(of_known_size, register=DEMONS)),
                    },
                    "five pieces",
                    DATASETS["slices"].data,
                )
            },
            (
                Column("true", "mm"),
                Column("length", "mm"),
                Column("length (smooth)"),
                Column("Spearman", digits=3),
                Column("slope", digits=2),
            ),
            {"sizes": Figure(scattered, ranked, ("arm", "number"))},
        ),
    },
)
