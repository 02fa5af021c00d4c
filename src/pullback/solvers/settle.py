"""Points drawn to the points nearest them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.numerics.graph import gathered, nearest
from pullback.numerics.spline import Spline, spline


@dataclass(frozen=True)
class Settle:
    """A cloud, near another already, comes to rest on it: robust point matching with a spline (Chui & Rangarajan 2003).

    Each fixed point goes to the mean of the moving points near it, by Gaussian weights that compete with a share of
    none at all, since many points of one scan have no partner in the other; the fewer are near, the less its
    displacement counts in the smoothing spline that all share. Again and again, from where that leads. Needs no
    features.

    Attributes:
        width: of the Gaussians, in mm; the error that this begins with may be about twice that.
        none: distance in mm at which a moving point weighs as much as none.
        smoothing: of the spline, in mm, where a point is certain of its partner.
        iterations: of both steps in turn.
        candidates: nearest moving points of each fixed point.
    """

    width: float = 2.0
    none: float = 4.0
    smoothing: float = 32.0
    iterations: int = 14
    candidates: int = 16

    def __call__(self, fixed: Tensor, moving: Tensor, start: Spline) -> Spline:
        """The displacement in mm, a function of points in mm.

        Args:
            fixed, moving: points `(N, 3)` and `(M, 3)`, float64, in mm.
            start: the displacement to begin with.
        """
        found = start
        for _ in range(self.iterations):
            distance, index = nearest(fixed + found(fixed), moving, min(self.candidates, len(moving)))
            alone = torch.full_like(distance[:, :1], self.none)
            weight = (-torch.cat([distance, alone], 1).square() / (2 * self.width**2)).softmax(1)[:, :-1]
            certain = weight.sum(1).clamp_min(1e-3)
            target = (weight[..., None] * gathered(moving, index)).sum(1) / certain[:, None]
            found = spline(fixed, target - fixed, self.smoothing / certain)
        return found
