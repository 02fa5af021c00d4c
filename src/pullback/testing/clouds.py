"""Pairs of clouds of points whose alignment is known."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pullback.example import PointAlignment, PointPair, seen_points
from pullback.numerics.random import make_generator
from pullback.space import Points, Transform
from pullback.testing.contract import require
from pullback.testing.problems import chosen, turned
from pullback.training import evaluating

COUNT = 150
EXTENT = 80.0
"""Edge in mm of the box from which the points are drawn; the nearest other is some 8 mm away, as in lungs."""
SIDES = torch.tensor([1.0, 0.8, 1.2], dtype=torch.float64)
"""Of the box, in edges: no rotation maps it to itself."""


@dataclass(frozen=True, eq=False)
class PointProblem:
    """Two clouds whose points are in no order that is known, and where the fixed ones belong.

    Attributes:
        name: one of `POINT_PROBLEMS`.
        pair: the clouds, with their `truth`.
        within: mean distance in mm, at most, of an answer that solves the problem.
        because: the reason of that tolerance.
    """

    name: str
    pair: PointPair
    within: float
    because: str

    def __str__(self) -> str:
        return f"{self.name}, points"

    @property
    def batch(self) -> int:
        """Number of pairs: one."""
        return 1

    def double(self) -> "PointProblem":
        """Return the same problem in float64."""
        return replace(self, pair=self.pair.each(lambda data: data.double()))

    def ask(self, register: Callable[[PointPair], Any]) -> Transform:
        """Return the transform with which a register of points answers; it is not told the truth.

        Raises:
            BrokenContract: it answers with something else.
        """
        with evaluating(register):
            answer = register(replace(self.pair, truth=None))
        fits = isinstance(answer, Transform | PointAlignment)
        require(fits, self, "an answer that is a Transform or a PointAlignment", type(answer).__name__)
        return seen_points(self.pair, answer).transform

    def displacement(self, transform: Transform) -> Tensor:
        """Return how far the fixed points are moved, `(1, d, N)` in mm, float64."""
        fixed = self.pair.fixed.data.double()
        return (transform(fixed).detach() - fixed).mT

    def apart(self, one: Transform, other: Transform) -> Tensor:
        """Return the distances in mm between where two transforms lead the fixed points, `(N,)`."""
        return (self.displacement(one) - self.displacement(other)).norm(dim=1)[0]

    def distance(self, transform: Transform) -> float:
        """Return the mean distance in mm of the fixed points, moved, from where they belong."""
        assert self.pair.truth is not None
        return float((transform(self.pair.fixed.data.double()) - self.pair.truth.data).norm(dim=2).mean())


def _problem(
    name: str,
    truth: Callable[[Tensor], Tensor],
    within: float,
    because: str,
    kept: float = 1.0,
    noise: float = 0.0,
) -> PointProblem:
    """Return two copies of a cloud, one as the truth leads it and in another order, with some points of each kept."""
    chance = make_generator(5)
    points = (EXTENT * torch.rand(COUNT, 3, generator=chance, dtype=torch.float64) - EXTENT / 2) * SIDES
    order = torch.randperm(COUNT, generator=chance)
    left = round(kept * COUNT)
    fixed, moving = points[:left], truth(points)[order[:left]]
    moving = moving + noise * torch.randn(moving.shape, generator=chance, dtype=torch.float64)
    one, two = (Points(each[None].float()) for each in (fixed, moving))
    return PointProblem(name, PointPair(one, two, truth=Points(truth(fixed)[None]), name=name), within, because)


def identity(_: int) -> PointProblem:
    """Return a cloud and itself, in another order."""
    return _problem("identity", lambda points: points, 0.5, "a twentieth of the points' distance from one another")


def shift(_: int) -> PointProblem:
    """Return a translation by 20 mm, which is more than the points are apart."""
    far = torch.tensor([14.0, -12.0, 8.0], dtype=torch.float64)
    return _problem("shift", lambda points: points + far, 0.5, "as of the identity")


def rotation(_: int) -> PointProblem:
    """Return a rotation by 12° about an oblique axis."""
    turn = turned(3, 12.0).matrix[:3, :3]
    return _problem("rotation", lambda points: points @ turn.mT, 2.0, "a fifth of the points' distance")


def smooth(_: int) -> PointProblem:
    """Return a smooth field of up to 8 mm along each axis."""
    return _problem("smooth", _waved, 2.0, "a fifth of the points' distance, a quarter of the motion")


def missing(_: int) -> PointProblem:
    """Return the smooth field between two clouds that each lack a fifth of the points."""
    return _problem("missing", _waved, 3.0, "a third of the points' distance: many have no partner", kept=0.8)


def noise(_: int) -> PointProblem:
    """Return the smooth field, and a deviation of each moving point by 1 mm along each axis."""
    return _problem("noise", _waved, 2.5, "the noise moves a point by 1.6 mm on average", noise=1.0)


def _waved(points: Tensor) -> Tensor:
    return points + 8.0 * (math.pi * points.roll(1, dims=1) / EXTENT).cos()


POINT_PROBLEMS: dict[str, Callable[[int], PointProblem]] = {
    made.__name__: made for made in (identity, shift, rotation, smooth, missing, noise)
}
"""All problems of clouds by name."""


def point_problems(*names: str) -> list[PointProblem]:
    """Return problems of clouds in 3-D by name, or all of them.

    Raises:
        InputError: there is no such problem.
    """
    return chosen(POINT_PROBLEMS, names, (3,))
