"""Registration of two clouds by graph features of their points' neighbourhoods and belief propagation.

Hansen & Heinrich: Deep learning based geometric registration for medical images: how accurate can we get without visual
features?, IPMI 2021: features of a graph network, then sparse loopy belief propagation. All strategies of learning in
this folder share this model.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pullback.errors import InputError
from pullback.example import PointPair
from pullback.methods.method import Method, Paper
from pullback.networks import GraphFeatures
from pullback.numerics.graph import gather_rows, nearest
from pullback.numerics.spline import Spline, spline
from pullback.solvers import BeliefPropagation, RobustPointMatching
from pullback.space import Points, ThinPlate
from pullback.training import seeded

GAP = 7.4  # mm from a keypoint of a lung to the nearest other, on average; `RegisterClouds` has its numbers from there
LEAST = 20  # points of a cloud


@dataclass(frozen=True)
class Match:
    """The displacements of the fixed points by features of a network.

    Where the pair has no start, the clouds are overlaid first, by the mean and the spread of each along each axis: the
    paper's clouds come aligned by their lung masks, these do not.

    Attributes:
        solver: chooses among displacements.
        moving_graph: neighbours of each moving point on the network's graph; None has as many as fixed ones have.
    """

    solver: BeliefPropagation = BeliefPropagation()
    moving_graph: int | None = None

    def __call__(self, network: Callable[..., Any], pair: PointPair) -> Tensor:
        """Return the displacement of the chosen fixed points from where they are stored, `(n, 3)` in mm.

        Args:
            network: takes points `(N, 3)` in mm to features `(N, C)`, with `moving_graph` also their number of
                neighbours; it sees all points, the fixed ones at their start.
        """
        fixed, moving = pair.fixed.data[0], pair.moving.data[0]
        placed = overlaid(fixed, moving) if pair.start is None else pair.start.data[0]
        here = network(placed)
        there = network(moving) if self.moving_graph is None else network(moving, self.moving_graph)
        if pair.chosen is not None:
            fixed, placed, here = fixed[pair.chosen], placed[pair.chosen], gather_rows(here, pair.chosen[None])[0]
        return placed - fixed + self.solver(placed, moving, here, there)


@dataclass(frozen=True)
class RegisterClouds:
    """A register of two clouds by features of a network, for evaluation and for labels; it answers with a spline.

    1. The displacements found are smoothed by a spline, which places the fixed points anew.
    2. The rest of the displacement is searched for among fewer, nearer points.
    3. In the end robust point matching, without features, moves the points onto each other, and the organs' surfaces,
       where they are known, with them.

    Attributes:
        passes: one solver each.
        smoothing: of the spline, in mm: it evens out the gaps between the clouds, whose points lie some 7 mm apart and
            of which many lack a partner.
        settle: the last step; None leaves it out.
        moving_graph: as of `Match`, for a moving cloud that is denser than the fixed one.
    """

    passes: tuple[BeliefPropagation, ...] = (BeliefPropagation(64, iterations=10), BeliefPropagation(32, iterations=10))
    smoothing: float = 100.0
    settle: RobustPointMatching | None = RobustPointMatching()
    moving_graph: int | None = None

    def __call__(self, network: Callable[..., Any], pair: PointPair) -> Spline:
        """Return the displacement in mm, a function of points `(N, 3)` in mm, float64."""
        return self.stages(network, pair)[-1]

    @torch.no_grad()
    def stages(self, network: Callable[..., Any], pair: PointPair) -> list[Spline]:
        """Return the displacement after each pass, and after robust point matching."""
        fixed, found = pair.fixed.data[0].double(), list[Spline]()
        seen = replace(pair, chosen=None)
        for solver in self.passes:
            displacement = Match(solver, self.moving_graph)(network, seen)
            found.append(spline(fixed, displacement.double(), self.smoothing))
            placed = (fixed + found[-1](fixed)).to(pair.fixed.data)
            seen = replace(seen, start=Points(placed[None]))
        if self.settle is not None:
            surfaces = pair.surfaces and (pair.surfaces[0].data[0].double(), pair.surfaces[1].data[0].double())
            found.append(self.settle(fixed, pair.moving.data[0].double(), found[-1], surfaces))
        return found


def overlay(fixed: Tensor, moving: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the displacement of points `(…, 3)` that gives the fixed cloud the mean and spread of the moving one."""
    stretch = moving.std(0) / fixed.std(0)

    def displacement(points: Tensor) -> Tensor:
        return (points - fixed.mean(0)) * (stretch - 1) + moving.mean(0) - fixed.mean(0)

    return displacement


def overlaid(fixed: Tensor, moving: Tensor) -> Tensor:
    """Return the fixed points, moved and scaled along each axis to the mean and the spread of the moving ones."""
    return fixed + overlay(fixed, moving)(fixed)


@dataclass(frozen=True)
class GraphPropagation:
    """A register of two clouds of any size whose points are not matched.

    Clouds that are larger or denser than the keypoints of lungs are scaled, so that their points are as far apart as
    those. Nothing is random: without a network the features are those of one drawn from a fixed seed.

    Attributes:
        register: matches the clouds.
    """

    register: RegisterClouds = RegisterClouds()

    def __call__(self, pair: PointPair, network: nn.Module | None = None) -> ThinPlate:
        """Return the transform, fixed → moving.

        Args:
            pair: clouds of at least 20 points in 3-D, in mm; of surfaces some 400 fixed and 4,000 moving points are
                enough.
            network: points `(N, 3)` to features `(N, C)`.

        Raises:
            InputError: clouds in 2-D, too few points, or not finite, or all in one plane or place.
        """
        gap = max(_gap(points, name) for points, name in ((pair.fixed, "fixed"), (pair.moving, "moving")))
        middle, scale = pair.fixed.data[0].double().mean(0), GAP / gap

        seen = pair.each(lambda data: ((data.double() - middle) * scale).float())
        found = self.register(network or untrained(0), seen)
        kernels, constant, linear = found.weights.split([len(found.points), 1, 3])
        constant = constant / scale - middle @ linear
        return ThinPlate.of(
            replace(found, points=found.points / scale + middle, weights=torch.cat([kernels, constant, linear]))
        )


def untrained(seed: int, number: int = 0) -> GraphFeatures:
    """Return a feature network of random weights, other ones for each number."""
    with seeded(seed, number):
        return GraphFeatures()


def gap_of(points: Tensor) -> float:
    """Return the mean distance of a point of a cloud `(N, d)` to the nearest other."""
    return float(nearest(points, points, 2)[0][:, 1].mean())


def _gap(points: Points, name: str) -> float:
    data = points.data[0].double()
    if not data.isfinite().all():
        raise InputError(f"the {name} cloud: finite coordinates expected, got others")
    if data.shape[1] != 3 or len(data) < LEAST:
        raise InputError(
            f"the {name} cloud: at least {LEAST} points in 3-D expected, got {len(data)}, {data.shape[1]}-D"
        )
    gap = gap_of(data)
    if not gap > 0:
        raise InputError(f"the {name} cloud: its points lie in pairs on one another; leave each out but one")
    if int(torch.linalg.matrix_rank(data - data.mean(0))) < 3:
        raise InputError(f"the {name} cloud: all its points lie in one plane; points of a body are expected")
    return gap


METHOD = Method(
    about="two clouds, aligned by what the neighbourhood of each point looks like; features may learn, or be random",
    aligns=("points",),
    trained=True,
    papers=(
        Paper(
            "hansen2021geometric",
            "Hansen, Lasse and Heinrich, Mattias P.",
            "Deep Learning Based Geometric Registration for Medical Images: How Accurate Can We Get Without Visual "
            "Features?",
            "Information Processing in Medical Imaging (IPMI)",
            2021,
            "10.1007/978-3-030-78191-0_2",
            pages="18--30",
        ),
    ),
    keys=(
        "graph-propagation-landmarks",
        "graph-propagation-rigid",
        "graph-propagation-field",
        "graph-propagation-metric",
    ),
    register=GraphPropagation(),
    solves=("identity", "shift", "rotation", "smooth", "missing", "noise"),
)
