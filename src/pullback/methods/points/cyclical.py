"""Cyclical self-training of features of clouds.

Bigalke, Hansen, Mok, Heinrich: Unsupervised 3D registration through optimization-guided cyclical self-training, MICCAI
2023, sections 2.2 and 2.3.2. The `rounds` are those of images; a label is here the displacement of every fixed point.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pullback.methods.points.geometric import Match, RegisterClouds
from pullback.methods.points.learn import Affines, Cloud, Learning
from pullback.methods.points.lessons import QUICK, Labelled
from pullback.networks import GraphFeatures
from pullback.numerics.random import generator
from pullback.training import seeded
from pullback.training.rounds import easy_first, rounds


@dataclass(frozen=True)
class Cyclical:
    """Rounds of learning from the labels of the round before.

    The streams differ as section 2.2 asks: each sees the clouds turned and stretched by other random affines, and the
    labels alone are refined. What refines a label of clouds the paper does not say; here it is a second pass, from
    where the first led, a smoothing spline after each, settling, on all points, and the mean over some affines.

    Attributes:
        count: of rounds.
        learning: one of them.
        register: makes the labels.
        match: the optimiser while learning.
        points: fixed points in an update.
        affines: of both streams.
        views: affines by which a label is made.
        easy: draws pairs more often whose labels changed less as they were refined.
    """

    count: int = 5
    learning: Learning = Learning()
    register: RegisterClouds = RegisterClouds()
    match: Match = QUICK
    points: int = 400
    affines: Affines = Affines()
    views: int = 2
    easy: bool = False

    def __call__(
        self, clouds: Sequence[Cloud], seed: int, told: Callable[[float], None] = lambda _: None
    ) -> Iterator[nn.Module]:
        """The network after each round, the same one every time. The same weights for a seed.

        Args:
            told: gets the mean loss of every epoch.
        """

        def make(number: int) -> nn.Module:
            return untrained(seed, number)

        def label(network: nn.Module, number: int) -> tuple[list[Tensor], list[float]]:
            chance = generator(seed, 1, number)
            labels, changes = zip(*(self.label(network, cloud, chance) for cloud in clouds), strict=True)
            return list(labels), list(changes)

        def learn(network: nn.Module, made: tuple[list[Tensor], list[float]], number: int) -> nn.Module:
            labels, changes = made
            lesson = Labelled(clouds, labels, self.match, self.points, self.affines)
            weights = easy_first(changes) if self.easy else None
            self.learning(network, lesson, (seed, 2, number), len(clouds), weights, told)
            return network

        return rounds(make, label, learn, self.count)

    def label(self, network: nn.Module, cloud: Cloud, chance: torch.Generator) -> tuple[Tensor, float]:
        """The displacement of every fixed point, `(N, 3)` in mm, and by how many mm refinement changed it."""
        first, last = [], []
        for _ in range(self.views):
            affine = self.affines.draw(chance)
            seen = cloud.under(affine)
            stages = self.register.stages(network, seen)
            there = [stage(seen.fixed.double()).float() @ affine.inverse() for stage in (stages[0], stages[-1])]
            first.append(there[0])
            last.append(there[1])
        label = torch.stack(last).mean(0)
        return label, float((label - torch.stack(first).mean(0)).norm(dim=1).mean())


def untrained(seed: int, number: int) -> GraphFeatures:
    """A network of random weights: those of the first labels are number 0, those that begin to learn number 1."""
    with seeded(seed, number):
        return GraphFeatures()
