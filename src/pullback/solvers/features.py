"""Descent between features."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.alignment import Pair
from pullback.energies import MSE, Diffusion
from pullback.numerics.unfold import box_mean
from pullback.solvers.descend import Descend
from pullback.space import Displacement, Grid, Image, Transform


@dataclass(frozen=True)
class FeatureDescent:
    """From a displacement on, makes features of two images alike: the second stage of ConvexAdam.

    The squared difference of features, summed over channels, and λ times that of neighbouring displacements, summed
    over axes; means over voxels. The displacement is a spline: means of its parameters, three times over.

    Attributes:
        regularity: λ.
        solver: its step is in voxels of the features.
        smoothing: window of the means, in voxels.
    """

    regularity: float = 1.25
    solver: Descend = Descend(steps=80, step_size=1.0)
    smoothing: int = 3

    def __call__(self, fixed: Tensor, moving: Tensor, field: Tensor) -> Tensor:
        """Features `(B, C, *spatial)` on one grid, and a displacement in its voxels, `(B, d, *spatial)`, to another."""
        grid = Grid.centred(tuple(fixed.shape[2:]))
        energy = fixed.shape[1] * MSE() + grid.ndim * self.regularity * Diffusion()
        objective = energy.on(Pair(Image(fixed.detach(), grid), Image(moving.detach(), grid)))
        with torch.enable_grad():
            found = self.solver(lambda transform: objective(self._smooth(transform)), Displacement(field, grid))
        return self._smooth(found).params[0]

    def _smooth(self, transform: Transform) -> Transform:
        (values,) = transform.params
        for _ in range(3):
            values = box_mean(values, self.smoothing)
        return transform.with_params(values)
