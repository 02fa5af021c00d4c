"""The study of TM-TVF (Chen et al. 2022), part by part.

    pullback study tm-tvf table1/slices/voxelmorph --data slices=oasis_trt20_2d/
    pullback study tm-tvf table2 pieces --data hippocampus=hippocampus/ --data slices=oasis_trt20_2d/
    pullback study tm-tvf cost --seed 0

Arms of an experiment have the same data, updates, seeds and weights of the trunk to begin with. The paper's RaFD is not
distributed freely: slices of brains take its place, pairs of two people, which is harder than two faces of one.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from typing import Any, ClassVar, cast

import torch
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from pullback.alignment import Alignment, Pair
from pullback.energies import Energy, SoftDice
from pullback.metrics import Dice, HausdorffDistance, InverseError, Length, Metric, StructuralSimilarity, of_one
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import gaussian
from pullback.recipes import find
from pullback.recipes.tm_tvf import ORDER
from pullback.recipes.unsupervised import ENERGY
from pullback.records.manifest import forget_peak_memory, peak_memory_mb
from pullback.report.figures import COLOURS, WIDTH, blank
from pullback.report.pictures import cuts, grid_step, lattice
from pullback.space import Displacement, Flow, Grid, Image, Transform, Velocity
from pullback.studies._images import COLUMNS, DICE, FOLDING, METRICS, SECONDS, trained
from pullback.study.arms import FunctionArm, TrainedArm
from pullback.study.figures import boxes, curves, fields
from pullback.study.recipe import Recipe
from pullback.study.result import Result, network_of
from pullback.study.run import build
from pullback.study.table import Column, Experiment, Figure, Study, Table
from pullback.training import Row, Unsupervised, align, device_of, evaluating

SHORT: Mapping[str, str] = {"transmorph": "TM", "voxelmorph": "VM", "vit-v-net": "ViT-V-Net"}
COUNTS = (1, 2, 4, 12)
SHAPE = (80, 96, 112)
ROUNDS = 3


@dataclass(frozen=True)
class OwnInverse:
    """The error of a transform's own inverse: `InverseError` of `inverse()`, as it is where nothing is refined."""

    name: ClassVar[str] = InverseError.name
    higher_is_better: ClassVar[bool] = False

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        back = alignment.transform.inverse()
        return InverseError()(replace(alignment, transforms={InverseError.way: back}))


@dataclass(frozen=True)
class Backward:
    """A metric of the way back: of the fixed image, pulled onto the moving one by the inverse.

    Its numbers are called `back dice`, or `by minus dice` where the inverse is Id − u, as the paper takes it to be.

    Attributes:
        metric: of the images, changed over.
        minus: take Id − u, with u on the fixed grid, for the inverse, instead of the transform's own.
    """

    metric: Metric = Dice()
    minus: bool = False
    higher_is_better: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return f"{'by minus' if self.minus else 'back'} {self.metric.name}"

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        pair, transform = alignment.pair, alignment.transform
        grid = pair.fixed.grid
        back: Transform = Displacement(-transform.displacement(grid), grid) if self.minus else transform.inverse()
        turned = Pair(pair.moving, pair.fixed, pair.moving_labels, pair.fixed_labels)
        found = self.metric(Alignment(turned, back.to(pair.fixed.data.device)))
        return {self.name: found[self.metric.name]} if self.metric.name in found else {}


BACK, MINUS, SIMILAR = Backward(), Backward(minus=True), Backward(StructuralSimilarity())
MEASURES: tuple[Metric, ...] = (
    *METRICS,
    HausdorffDistance(),
    StructuralSimilarity(),
    OwnInverse(),
    BACK,
    MINUS,
    SIMILAR,
    Length(),
)
SHOWN = (
    *COLUMNS,
    Column("HD95", "mm", better="less"),
    Column("SSIM", better="more", against="difference"),
    Column("inverse", "mm", better="less"),
    Column("Dice back", better="more", key=BACK.name),
    Column("Dice back by Id − u", better="more", key=MINUS.name),
    Column("SSIM back", better="more", key=SIMILAR.name),
    Column("length", "mm"),
    SECONDS,
)


def _backbone(network: str, data: str, labels: bool) -> Recipe:
    """Return the recipe of a network alone: the backbone of the time-varying one, and its energy on full size."""
    plain, ours = find(network, network, data), find("tm-tvf", network, data)
    energy: Energy = ENERGY + SoftDice() if labels else ENERGY
    whole = partial(ours.network.keywords["backbone"], ndim=ours.network.keywords["ndim"])
    return replace(plain, network=whole, supervision=Unsupervised(energy))


def _arms(data: str, network: str, labels: bool) -> dict[str, TrainedArm]:
    """Return a network as it is, with a velocity, and with time-varying ones by either loss."""
    name, suffix, plain = SHORT[network], "-labels" if labels else "", _backbone(network, data, labels)
    velocity = replace(plain, network=partial(plain.network, transform=Velocity))
    return {
        name: TrainedArm(plain),
        f"{name}-TVF": TrainedArm(find(f"tm-tvf{suffix}", network, data)),
        f"{name}-TVF LDDMM": TrainedArm(find(f"tm-tvf-lddmm{suffix}", network, data)),
        f"{name}-diff": TrainedArm(velocity),
    }


def _measured(arms: Mapping[str, TrainedArm], baseline: str = "") -> Experiment:
    return replace(trained(arms, baseline), metrics=MEASURES)


def _each(sets: Sequence[str], labels: bool) -> dict[str, Experiment]:
    return {f"{data}/{network}": _measured(_arms(data, network, labels)) for data in sets for network in ORDER}


def _pieces(data: str, network: str) -> Experiment:
    """Return the experiment of how many pieces there are, and of what the network sees again."""
    arms = _arms(data, network, labels=False)
    name, eight = f"{SHORT[network]}-TVF", arms[f"{SHORT[network]}-TVF"].recipe
    changes: dict[str, dict[str, Any]] = {f"{n} piece{'s' * (n > 1)}": {"pieces": n} for n in COUNTS}
    changes |= {
        "8 pieces, no second look": {"looks": False},
        "8 pieces by one step": {"shared": True},
        "8 pieces, Euler": {"squarings": 0},
    }
    made = {key: replace(eight, network=partial(eight.network, **change)) for key, change in changes.items()}
    return _measured(
        {name: arms[name], SHORT[network]: arms[SHORT[network]], **{k: TrainedArm(r) for k, r in made.items()}}
    )


def cost(data: object, seed: int, recipe: Recipe, shape: tuple[int, ...] = SHAPE) -> Iterator[Row]:
    """Measure a recipe's network on a random pair: parameters, seconds and memory.

    Times are medians of rounds, after one that does not count; memory is the most that is held meanwhile, less what was
    held before. A process of its own does it, for one that has worked before keeps what it frees.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as own:
        yield own.submit(_cost, recipe, seed, shape).result()


def _cost(recipe: Recipe, seed: int, shape: tuple[int, ...]) -> Row:
    device, pair = device_of(), _random_pair(seed, shape).to(device_of())
    network = build(recipe).to(device)
    optimiser = torch.optim.Adam(network.parameters(), 1e-5)

    def answer() -> None:
        with evaluating(network):
            network(pair.fixed, pair.moving).transform.displacement(pair.fixed.grid)

    def update() -> None:
        losses: dict[str, Tensor] = recipe.supervision(network, pair, 0.0)
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()

    forget_peak_memory(device)
    before = peak_memory_mb(device)
    row: Row = {"case": "×".join(map(str, shape)), "parameters m": sum(p.numel() for p in network.parameters()) / 1e6}
    for name, work in (("forward", answer), ("update", update)):
        spent = []
        for _ in range(ROUNDS + 1):
            start = time.perf_counter()
            work()
            if device.type != "cpu":
                torch.accelerator.synchronize()
            spent.append(time.perf_counter() - start)
        row |= {f"{name} s": float(torch.tensor(spent[1:]).median()), f"{name} mb": peak_memory_mb(device) - before}
    return row


def _random_pair(seed: int, shape: tuple[int, ...]) -> Pair:
    generator = make_generator(seed)
    images = [gaussian(torch.rand(1, 1, *shape, generator=generator), 2.0) for _ in range(2)]
    fixed, moving = (Image((i - i.min()) / (i.max() - i.min()), Grid.centred(shape)) for i in images)
    return Pair(fixed, moving)


def _costs(network: str) -> Experiment:
    """Return the experiment of what a network costs, by intensities alone, as all data are of one size."""
    arms = {name: arm.recipe for name, arm in _arms("phantom", network, labels=False).items() if "diff" not in name}
    name = f"{SHORT[network]}-TVF"
    arms[f"{name}, frugal"] = replace(arms[name], network=partial(arms[name].network, frugal=True))
    return Experiment({name: FunctionArm(partial(cost, recipe=recipe)) for name, recipe in arms.items()})


def way(result: Result, rows: Sequence[Row]) -> Drawing:
    """Draw the first test pair, moved by the pieces up to each one, and a grid through them, of each flow's first seed.

    Flows are those of arms named TVF.
    """
    pair = next(iter(result.data.test))
    arms = [arm for arm in result.runs if "TVF" in arm or "piece" in arm]
    flows = {arm: cast(Flow, align(network_of(result.runs[arm][0]), pair).transform) for arm in arms}
    most = max((flow.pieces for flow in flows.values()), default=1)
    figure, axes = blank(most, WIDTH / 4 * most, WIDTH / 2 * max(len(flows), 1), 2 * max(len(flows), 1))
    for one in axes:
        one.set_axis_off()
    for number, (arm, flow) in enumerate(flows.items()):
        shown = [cuts(Alignment(pair, _begun(flow, n)))[0] for n in range(1, flow.pieces + 1)]
        for n, cut in enumerate(shown):
            moved, grid = (axes[(2 * number + row) * most + n] for row in (0, 1))
            moved.imshow(cut.after, cmap="gray", vmin=0, vmax=1)
            moved.set_title(f"{arm}, {n + 1}", fontsize=9)
            for along, heights in zip(cut.reached, lattice(cut, grid_step(shown)), strict=True):
                grid.contour(along, heights, colors=COLOURS[0], linewidths=0.8, linestyles="solid")
            grid.invert_yaxis()
            grid.set_aspect("equal")
    return figure


def _begun(flow: Flow, pieces: int) -> Flow:
    """Return the flow of the first pieces, of one pair."""
    return replace(flow, field=flow.field[:pieces], pieces=pieces)


FIGURES = {
    "training": Figure(partial(curves, columns=(DICE, FOLDING))),
    "labels": Figure(partial(boxes, column=DICE)),
    "fields": Figure(fields),
    "way": Figure(way),
}

study = Study(
    about="Unsupervised Learning of Diffeomorphic Image Registration via TransMorph (TM-TVF, Chen et al. 2022)",
    tables={
        "table1": Table(
            "By intensities alone: a network, with time-varying velocities, and with the LDDMM norm",
            "Table 1, faces: SSIM 0.899 (TM), 0.910 (TM-TVF), 0.829 (LDDMM), 0.858 (VM), 0.805 (VM-diff); folding "
            "0.190, 0.062, below 0.001, 0.798, below 0.001 %; SDlogJ 0.065, 0.057, 0.046, 0.086, 0.051. TM-TVF against "
            "TM p < 0.0001. Figure 4: forward and backward, TM-TVF is best. Figures 1 and 3: grids, folds.",
            _each(("phantom", "slices", "hippocampus", "brains"), labels=False),
            SHOWN,
            FIGURES,
        ),
        "table2": Table(
            "Guided by labels",
            "Table 2, OASIS, validation: Dice 0.862 (TM), 0.869 (TM-TVF), 0.833 (LDDMM), 0.846 (ConvexAdam); SDlogJ "
            "0.128, 0.094, 0.090, 0.067; HD95 1.431, 1.396, 1.630, 1.500. Test: Dice 0.820 (TM), 0.824 (TM-TVF).",
            _each(("phantom", "slices", "hippocampus", "brains", "oasis"), labels=True),
            SHOWN,
            FIGURES,
        ),
        "pieces": Table(
            "How many pieces, and what is looked at again",
            "This is not shown; eight are said to have been found by trial. Without a second look every step sees the "
            "images as they were; by one step all pieces come from the same weights.",
            {f"{data}/{network}": _pieces(data, network) for data in ("slices", "hippocampus") for network in ORDER},
            SHOWN,
            {"training": FIGURES["training"]},
        ),
        "cost": Table(
            "What it costs on images of 80×96×112",
            "This is not shown. Eight steps add 0.58 million parameters to TransMorph's trunk; frugal computes each "
            "step again for the gradient.",
            {f"random/{network}": _costs(network) for network in ORDER},
            (
                Column("parameters", "M", digits=3),
                Column("forward", "s", better="less", against="ratio"),
                Column("update", "s", better="less", against="ratio"),
                Column("forward", "MB", better="less", digits=0),
                Column("update", "MB", better="less", digits=0),
            ),
        ),
    },
)
