"""Gradient descent on the difference of features."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pullback.alignment import Pair
from pullback.energies import Diffusion
from pullback.numerics.cost_volume import box_mean
from pullback.numerics.sample import sample, voxels
from pullback.solvers.descend import Descend
from pullback.space import Displacement, Grid, Image, Transform


@dataclass(frozen=True)
class FeatureDescent:
    """Gradient descent on a displacement that makes features of two images alike: the second stage of ConvexAdam.

    The energy is the squared difference of features, summed over channels, and λ times that of neighbouring
    displacements, summed over axes; both are means over voxels. Beyond its border the moving image has features of 0.
    The displacement is a spline: its parameters, averaged three times.

    Attributes:
        regularity: λ.
        solver: its step is in voxels of the features.
        smoothing: window of the means, in voxels.
        means: of the answer, beside those that make the spline.
    """

    regularity: float = 1.25
    solver: Descend = Descend(steps=80, step_size=1.0)
    smoothing: int = 3
    means: int = 0

    def __call__(self, fixed: Tensor, moving: Tensor, field: Tensor, weight: Tensor | None = None) -> Tensor:
        """Improve a displacement `(B, d, *spatial)` in voxels, for features `(B, C, *spatial)` on one grid.

        A `weight` of each voxel's difference, `(B, 1, *spatial)`, says where the images are compared.
        """
        fixed, moving, grid = fixed.detach(), moving.detach(), Grid.centred(tuple(fixed.shape[2:]))
        rough = (grid.ndim * self.regularity * Diffusion()).on(Pair(Image(fixed, grid), Image(moving, grid)))
        still = voxels(grid.shape, field)[None]

        def objective(transform: Transform) -> Tensor:
            smooth = self._smooth(transform)
            moved = sample(moving, still + smooth.params[0])
            if weight is None:
                return fixed.shape[1] * F.mse_loss(moved, fixed) + rough(smooth)
            unlike = (moved - fixed).square().sum(1, keepdim=True)
            return (weight * unlike).sum() / weight.sum().clamp(min=1) + rough(smooth)

        with torch.enable_grad():
            found, _ = self.solver(objective, Displacement(field, grid))
        return self._smooth(found, 3 + self.means).params[0]

    def _smooth(self, transform: Transform, means: int = 3) -> Transform:
        (values,) = transform.params
        for _ in range(means):
            values = box_mean(values, self.smoothing)
        return transform.with_params(values)
