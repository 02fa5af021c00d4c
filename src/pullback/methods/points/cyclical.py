"""Cyclical self-training of features of clouds: their labels.

Bigalke, Hansen, Mok, Heinrich: Unsupervised 3D registration through optimization-guided cyclical self-training, MICCAI
2023, sections 2.2 and 2.3.2; the rounds are `training.Cyclical`, with `Affines` as its `augment`, and `METHOD` is
in `pair.cyclical`.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pullback.example import PointPair
from pullback.methods.points.graph_propagation import RegisterClouds
from pullback.space import Points
from pullback.training import Cyclical, device_of


@dataclass(frozen=True)
class PointLabels:
    """Labels of pairs of clouds: the displacement of every fixed point, `(N, 3)` in mm.

    The streams differ as section 2.2 asks: each sees the clouds under other random affines, and only the labels are
    refined. The paper does not say how labels of clouds are refined; here by a second pass from the answer of the
    first, a smoothing spline after each, robust point matching on all points, and the mean over some affines.

    Attributes:
        register: makes them.
        views: number of affines by which each is made.
    """

    register: RegisterClouds = RegisterClouds()
    views: int = 2

    def untrained(self, network: Any, examples: Any, seed: int) -> Any:
        """Return the network as it is."""
        return network

    def label(self, network: Any, pair: PointPair, how: Cyclical, generator: torch.Generator) -> tuple[Tensor, float]:
        """Return the displacement of a pair, and by how many mm refinement changed it."""
        first, last = [], []
        for _ in range(self.views):
            linear = torch.eye(3, dtype=torch.float64) if how.augment is None else how.augment.draw(generator)
            seen = pair.each(lambda points, linear=linear: points @ linear.to(points)).to(device_of())  # type: ignore[misc]
            stages = self.register.stages(network, seen)
            back = torch.linalg.inv(linear).to(seen.fixed.data.device)
            there = [stage(seen.fixed.data[0].double()) @ back for stage in (stages[0], stages[-1])]
            first.append(there[0])
            last.append(there[1])
        guess, refined = torch.stack(first).mean(0), torch.stack(last).mean(0)
        found = refined if how.refined else guess
        return found.float().cpu(), float((found - guess).norm(dim=1).mean())

    def told(self, pair: PointPair, label: Tensor) -> PointPair:
        """Return the pair with the places to which the label leads the fixed points as its truth."""
        return replace(pair, truth=Points(pair.fixed.data + label))
