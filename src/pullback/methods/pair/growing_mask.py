"""Masks that grow in time from balls to a region: a simple model of a tumour's growth."""

import math
import warnings
from dataclasses import dataclass

import torch
from scipy.ndimage import distance_transform_edt, label
from torch import Tensor

from pullback.energies import MSE
from pullback.errors import InputError
from pullback.methods.pair.image_shooting import Shooting
from pullback.numerics.kernel import Gaussian
from pullback.numerics.smooth import gaussian
from pullback.solvers import Converged, Descend, Levels
from pullback.space import Grid, Image


@dataclass(frozen=True)
class Growth:
    """A growth along the LDDMM geodesic from a smooth ball to the region, as in François et al. 2022.

    Each part of the region that is apart from the others has a ball of its own, about its deepest voxel.

    Attributes:
        share: of a part's volume that lies in its ball.
        kernel: of the geodesic.
        penalty: as of `Metamorphosis`.
        solver, levels: as of `Metamorphosis`.

    Raises:
        InputError: a share that is not between 0 and 1.
    """

    share: float = 0.05
    kernel: Gaussian = Gaussian(3.0)
    penalty: float = 4e-5
    solver: Descend = Descend(60, 0.5, last=0.1, until=Converged(25, 0.005))
    levels: Levels = Levels(most=500_000)

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(f"Growth: a share between 0 and 1, got {self.share:g}")

    def __call__(self, region: Tensor, grid: Grid, steps: int) -> Tensor:
        """Return the mask after each of the steps, from 0 to 1, `(steps, 1, *grid.shape)`.

        Args:
            region: where it ends, `(1, 1, *grid.shape)`, 0 or 1.
            grid: of the region.
            steps: how many.
        """
        whole = torch.ones_like(region)
        ball = Image(gaussian(balls(region, grid, self.share), 1.0), grid)
        shooting = Shooting(self.kernel, 0.0, steps, True, MSE(), self.penalty, self.solver, self.levels)
        shot, _ = shooting(Image(region, grid), ball, whole)
        return torch.cat([image.data for image, _ in shot.path()][1:]).clamp(0, 1)


def balls(region: Tensor, grid: Grid, share: float) -> Tensor:
    """Return balls about the deepest voxel of each part of a region, `(1, 1, *grid.shape)`, 0 or 1.

    Parts are apart where their voxels do not touch, not even by a corner. Each ball is the smallest that holds `share`
    of its part.
    """
    inside, out = region[0, 0].cpu().numpy() > 0.5, torch.zeros_like(region)
    parts, count = label(inside, structure=[[[1] * 3] * 3] * 3 if grid.ndim == 3 else [[1] * 3] * 3)
    spacing = tuple(grid.spacing.tolist())
    where = grid.to_world(grid.voxels(grid.affine)[None])[0]
    for number in range(1, count + 1):
        part = parts == number
        depth = torch.from_numpy(distance_transform_edt(part, sampling=spacing))
        deepest = where.flatten(1)[:, int(depth.argmax()), None]
        away = (where.flatten(1) - deepest).norm(dim=0).view(grid.shape)
        own = away[torch.from_numpy(part)].sort().values
        radius = own[max(math.ceil(share * len(own)) - 1, 0)]
        out[0, 0][(away <= radius).to(out.device)] = 1
    return out


def warn_of_border(region: Tensor) -> None:
    """Warn where a region `(1, 1, *spatial)` is cut off by the border of the image."""
    ends = [region.narrow(axis, at, 1) for axis in range(2, region.ndim) for at in (0, region.shape[axis] - 1)]
    if any(bool(end.any()) for end in ends):
        warnings.warn(
            "where new tissue may be is cut off by the border of the fixed image: what lies beyond is not seen, and "
            "the answer is less certain near there",
            UserWarning,
            stacklevel=2,
        )
