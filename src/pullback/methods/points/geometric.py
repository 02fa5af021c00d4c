"""Two clouds aligned by what their points' neighbourhoods look like.

Hansen & Heinrich: Deep learning based geometric registration for medical images: how accurate can we get without visual
features?, IPMI 2021: features of a graph network, then sparse loopy belief propagation. All strategies of learning in
this folder share this model.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pullback.methods.points.learn import Cloud
from pullback.numerics.graph import gathered
from pullback.numerics.spline import Spline, spline
from pullback.solvers import Propagate, Settle


@dataclass(frozen=True)
class Match:
    """Displacements of the fixed points, from features of a network.

    The clouds are laid over each other first, by the mean and the spread of each along each axis: the paper's clouds
    come aligned by their lung masks, these do not.

    Attributes:
        solver: chooses among displacements.
    """

    solver: Propagate = Propagate()

    def __call__(self, network: nn.Module, fixed: Tensor, moving: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Points `(N, 3)` and `(M, 3)` in mm to the displacement of the fixed ones, `(N, 3)` in mm.

        Args:
            network: points to features, `(N, 3)` in mm to `(N, C)`.
            chosen: indices of the fixed points whose displacements are wanted; the features still see all.
        """
        return self.onward(network, fixed, overlaid(fixed, moving), moving, chosen)

    def onward(
        self, network: nn.Module, fixed: Tensor, placed: Tensor, moving: Tensor, chosen: Tensor | None = None
    ) -> Tensor:
        """The same from where the fixed points are `placed` so far, `(N, 3)` in mm."""
        here, there = network(placed), network(moving)
        if chosen is not None:
            fixed, placed, here = fixed[chosen], placed[chosen], gathered(here, chosen[None])[0]
        return placed - fixed + self.solver(placed, moving, here, there)


@dataclass(frozen=True)
class RegisterClouds:
    """Two clouds to a displacement of all space: what a trained network is used by, and what its labels are made by.

    The displacements found are smoothed by a spline, by which the fixed points are placed anew; then what is left is
    looked for among fewer, nearer points; in the end the points settle where they are, without features, and the
    organs' surfaces, where they are known, with them.

    Attributes:
        passes: one solver each.
        smoothing: of the spline, in mm: it evens out the gaps between the clouds, whose points lie some 7 mm apart and
            of which many lack a partner.
        settle: the last step; None leaves it out.
    """

    passes: tuple[Propagate, ...] = (Propagate(64, iterations=10), Propagate(32, iterations=10))
    smoothing: float = 100.0
    settle: Settle | None = Settle()

    def __call__(self, network: nn.Module, cloud: Cloud) -> Spline:
        """The displacement in mm, a function of points `(N, 3)` in mm, float64."""
        return self.stages(network, cloud)[-1]

    @torch.no_grad()
    def stages(self, network: nn.Module, cloud: Cloud) -> list[Spline]:
        """After each pass, and after settling."""
        fixed, moving = cloud.fixed, cloud.moving
        placed, found = overlaid(fixed, moving), []
        for solver in self.passes:
            displacement = Match(solver).onward(network, fixed, placed, moving)
            found.append(spline(fixed.double(), displacement.double(), self.smoothing))
            placed = (fixed.double() + found[-1](fixed.double())).to(fixed)
        if self.settle is not None:
            surfaces = cloud.surfaces and (cloud.surfaces[0].double(), cloud.surfaces[1].double())
            found.append(self.settle(fixed.double(), moving.double(), found[-1], surfaces))
        return found


def overlay(fixed: Tensor, moving: Tensor) -> Callable[[Tensor], Tensor]:
    """The displacement of points `(…, 3)` that brings mean and spread of the fixed cloud to those of the moving one."""
    stretch = moving.std(0) / fixed.std(0)

    def displacement(points: Tensor) -> Tensor:
        return (points - fixed.mean(0)) * (stretch - 1) + moving.mean(0) - fixed.mean(0)

    return displacement


def overlaid(fixed: Tensor, moving: Tensor) -> Tensor:
    """The fixed points, moved and stretched along each axis to the mean and the spread of the moving ones."""
    return fixed + overlay(fixed, moving)(fixed)
