"""Supervisions of features of clouds: by known places of points, or by a metric of the clouds themselves.

The strategies that section 3.2.2 of Bigalke et al. 2023 compares differ in these and in their augmentation, and share
the model of `graph_propagation`. The paper gives no weights of the metric; those here are ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.example import PointPair
from pullback.methods.points.graph_propagation import Match, overlaid
from pullback.numerics.graph import gather_rows, laplacian, nearest, neighbours
from pullback.solvers import BeliefPropagation

QUICK = Match(BeliefPropagation(candidates=32, iterations=5))


@dataclass(frozen=True)
class PointDistance:
    """The supervision by the distance of the chosen fixed points from their true places: the paper's TRE, eq. 2, in mm.

    Attributes:
        match: the optimiser while learning.
    """

    match: Match = QUICK

    def __call__(self, network: Callable[..., Any], pair: PointPair, progress: float) -> dict[str, Tensor]:
        """Return the mean distance, as `tre`.

        Raises:
            InputError: where the points belong is not known.
        """
        if pair.truth is None:
            raise InputError(f"{pair.name or 'a pair of clouds'}: where its fixed points belong is not known")
        wanted = (pair.truth.data - pair.fixed.data)[0]
        found = self.match(network, pair)
        return {"tre": (found - (wanted if pair.chosen is None else wanted[pair.chosen])).norm(dim=1).mean()}


@dataclass(frozen=True)
class ByMetric:
    """The supervision by Chamfer distance, smoothness and Laplacian of the clouds: PointPWC-Net (Wu et al., ECCV 2020).

    1. Chamfer: squared distances of each moved fixed point to the nearest moving one, and back.
    2. Smoothness: squared differences of neighbours' displacements.
    3. Laplacian: squared differences of the Laplacian coordinates of the moved cloud and those of the moving cloud,
       interpolated there.

    The weights are 1, 1 and 0.3. Fixed points that are not chosen move as the nearest chosen one does.

    Attributes:
        match: the optimiser while learning.
        smooth, bend: weights of the second and third.
        neighbours: of a Laplacian.
    """

    match: Match = QUICK
    smooth: float = 1.0
    bend: float = 0.3
    neighbours: int = 10

    def __call__(self, network: Callable[..., Any], pair: PointPair, progress: float) -> dict[str, Tensor]:
        """Return the weighted terms, as `chamfer`, `smooth` and `laplacian`, in mm²."""
        fixed, moving = pair.fixed.data[0], pair.moving.data[0]
        chosen = torch.arange(len(fixed), device=fixed.device) if pair.chosen is None else pair.chosen
        placed = overlaid(fixed, moving)
        extra = self.match(network, pair) - (placed - fixed)[chosen]  # the overlay is not smooth's to judge
        moved = placed + gather_rows(extra, nearest(placed, placed[chosen], 1)[1])[:, 0]
        graph = neighbours(placed[chosen], self.neighbours)
        uneven = (gather_rows(extra, graph) - extra[:, None]).square().sum(2).mean()
        return {
            "chamfer": _to_nearest(moved, moving) + _to_nearest(moving, moved),
            "smooth": self.smooth * uneven,
            "laplacian": self.bend * self._bent(moved, placed, moving),
        }

    def _bent(self, moved: Tensor, placed: Tensor, moving: Tensor) -> Tensor:
        shape = laplacian(moved, neighbours(placed, self.neighbours))
        wanted = laplacian(moving, neighbours(moving, self.neighbours))
        distance, index = nearest(moved, moving, 5)
        weight = 1 / (distance + 1e-3)
        there = (gather_rows(wanted, index) * (weight / weight.sum(1, keepdim=True))[..., None]).sum(1)
        return (shape - there).square().sum(1).mean()


def _to_nearest(points: Tensor, others: Tensor) -> Tensor:
    with torch.no_grad():
        index = nearest(points, others, 1)[1]
    return (gather_rows(others, index)[:, 0] - points).square().sum(1).mean()
