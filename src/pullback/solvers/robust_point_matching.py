"""Robust point matching: points drawn to the points nearest them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.numerics.graph import gather_rows, nearest
from pullback.numerics.spline import Knots, Spline

ALONE = 1e-3  # certainty of a point that is near no other: it stays where it is
_Surfaces = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class RobustPointMatching:
    """Robust point matching of a cloud that is near another already, by a spline (Chui & Rangarajan 2003).

    It needs no features.

    1. Each fixed point is drawn to the mean of the moving points near it, by Gaussian weights. These compete with the
       weight of no partner, since many points of one scan have none in the other.
    2. The displacements are smoothed by a spline, in which a point counts the less the fewer moving points are near it.
    3. Both steps are repeated from where the spline leads and a little beyond, with ever narrower Gaussians.

    Points of the organs' surfaces may take part: they are drawn only to each other. They show where an organ ends, and
    so lead where the cloud alone would rest on the wrong points.

    Attributes:
        widths: of the Gaussians, in mm, one after the other; the first is about half the initial error.
        none: distance, in widths, at which a moving point weighs as much as no partner.
        smoothing: of the spline, in mm, for a Gaussian of 1 mm and a point certain of its partner; it grows with the
            variance, as in the sum of squares over variances that is minimised.
        iterations: of both steps in turn, for each width.
        momentum: share of the last step that is added beforehand; without it the steps converge very slowly.
        surface: weight of a point of the surface, of which there may be any number.
        candidates: nearest moving points of each fixed point.

    Raises:
        InputError: no width or no iteration.
    """

    widths: tuple[float, ...] = (4.0, 3.0, 2.0)
    none: float = 2.0
    smoothing: float = 8.0
    iterations: int = 20
    momentum: float = 0.8
    surface: float = 0.5
    candidates: int = 16

    def __post_init__(self) -> None:
        if not self.widths or self.iterations < 1:
            raise InputError(
                f"RobustPointMatching: one width or more and one iteration, got {self.widths} and {self.iterations}"
            )

    def __call__(
        self, fixed: Tensor, moving: Tensor, start: Callable[[Tensor], Tensor], surfaces: _Surfaces | None = None
    ) -> Spline:
        """Return the displacement in mm, a function of points in mm.

        Args:
            fixed, moving: points `(N, 3)` and `(M, 3)`, float64, in mm.
            start: the displacement to begin with.
            surfaces: points of the fixed and of the moving surface, `(S, 3)` and `(T, 3)`, float64, in mm.
        """
        kinds = [(fixed, moving, 1.0)] if surfaces is None else [(fixed, moving, 1.0), (*surfaces, self.surface)]
        knots = Knots(torch.cat([here for here, *_ in kinds]))
        weight = torch.cat([torch.full_like(here[:, 0], share) for here, _, share in kinds])
        before = now = start(knots.points)
        for width in self.widths:
            for _ in range(self.iterations):
                placed = knots.points + now + self.momentum * (now - before)
                parts = placed.split([len(here) for here, *_ in kinds])
                met = [self._met(part, there, width) for part, (_, there, _) in zip(parts, kinds, strict=True)]
                target, certain = (torch.cat(both) for both in zip(*met, strict=True))
                found = knots.spline(target - knots.points, self.smoothing * width**2 / (weight * certain))
                before, now = now, knots.at(found)
        return found

    def _met(self, placed: Tensor, moving: Tensor, width: float) -> tuple[Tensor, Tensor]:
        """Return the points `(N, 3)` to which the moving ones draw them, and how certain their partners are, `(N,)`."""
        distance, index = nearest(placed, moving, min(self.candidates, len(moving)))
        alone = torch.full_like(distance[:, :1], self.none * width)
        weight = (-torch.cat([distance, alone], 1).square() / (2 * width**2)).softmax(1)[:, :-1]
        certain = weight.sum(1) + ALONE
        drawn = (weight[..., None] * (gather_rows(moving, index) - placed[:, None])).sum(1) / certain[:, None]
        return placed + drawn, certain
