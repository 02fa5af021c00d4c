"""Series of magnitude frames with known motion: tissues seen through poses drawn at random, with Rician noise.

The synthetic data of Simpson et al. 2022 (4.1). Intensities are drawn from the prior of sodium, vary from voxel to
voxel and move with the head.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from pullback.data.phantoms.growth import FREESURFER_TISSUES
from pullback.numerics.random import make_generator
from pullback.numerics.rotation import of_vector
from pullback.numerics.smooth import gaussian
from pullback.space import Affine, Grid, Image, Labels, Series, fitted, pull

SODIUM = ((40.0, 30.0, 140.0, 50.0, 50.0), (4.0, 4.0, 6.0, 10.0, 10.0))
"""Means and deviations in mM: grey matter, white matter, cerebrospinal fluid, bone, soft tissue (eq. 3)."""
FLUID, BONE, SKIN = 4.0, 6.0, 6.0  # mm, of shells about a brain


def tissue_maps(labels: Labels, blur: float = 1.0) -> Image:
    """Return maps of five tissues about a brain, `(1, 5, *grid.shape)`, in the order of `SODIUM`.

    Label maps of brains have no skull: fluid, bone and soft tissue are shells about them.

    Args:
        labels: FreeSurfer's, `(1, 1, *grid.shape)`.
        blur: σ in voxels by which borders are blurred.
    """
    edge = float(labels.grid.spacing.min())
    grey, white, _ = (torch.isin(labels.data, torch.tensor(tissue)) for tissue in FREESURFER_TISSUES)
    brain = labels.data > 0
    fluid = _wider(brain, FLUID / edge)
    bone = _wider(fluid, BONE / edge)
    skin = _wider(bone, SKIN / edge)
    maps = torch.cat([grey, white & ~grey, fluid & ~(grey | white), bone & ~fluid, skin & ~bone], 1)
    return Image(gaussian(maps.float(), blur), labels.grid)


def _wider(inside: Tensor, voxels: float) -> Tensor:
    """Return what lies within so many voxels of a mask along each axis."""
    reach, pool = round(voxels), F.max_pool3d if inside.ndim == 5 else F.max_pool2d
    return pool(inside.float(), 2 * reach + 1, 1, reach) > 0


@dataclass(frozen=True)
class NoisySeries:
    """The law of a series.

    Attributes:
        frames: number of them.
        sigma: deviation of the noise in both parts of the complex signal, in the unit of the intensities.
        shift: deviation of shifts along each axis, mm; the paper's is a variance of 5 mm².
        turn: of turns about each axis, radians.
        still: frames at the beginning that do not move.
        spacing: of the frames' voxels, mm.
        spread: σ of the scanner's point spread, in voxels of the frames.
        mean, deviation: of the tissues' intensities, which are drawn once.
        texture: whether they vary from voxel to voxel by these deviations, too.
        seed: of all draws.
    """

    frames: int = 6
    sigma: float = 40.0
    shift: float = 5.0**0.5
    turn: float = 0.1
    still: int = 0
    spacing: float = 4.0
    spread: float = 0.6
    mean: tuple[float, ...] = SODIUM[0]
    deviation: tuple[float, ...] = SODIUM[1]
    texture: bool = True
    seed: int = 0

    def of(self, maps: Image) -> tuple[Series, Tensor]:
        """Return a series of a head, and the intensities of its tissues `(K,)`.

        Each truth is the map from a frame's world to that of the maps; turns are about the middle of the frames.
        """
        draws = make_generator(self.seed, round(1000 * self.sigma))
        count = maps.data.shape[1]
        deviation = torch.tensor(self.deviation)
        intensities = (torch.tensor(self.mean) + deviation * torch.randn(count, generator=draws)).clamp(min=0)
        each = intensities.view(-1, *[1] * maps.grid.ndim).expand(maps.data.shape[1:])
        if self.texture:
            each = each + deviation.view(-1, *[1] * maps.grid.ndim) * torch.randn(each.shape, generator=draws)
        grid = fitted(maps, self.spacing)
        signal = Image((each.to(maps.data) * maps.data).sum(1, keepdim=True), maps.grid)
        width = self.spread * self.spacing / maps.grid.spacing
        signal = replace(signal, data=gaussian(signal.data, width.tolist()))
        truths = [self.pose(grid, n, draws) for n in range(self.frames)]
        frames = tuple(self.measured(pull(signal, truth, onto=grid), draws) for truth in truths)
        times = torch.arange(self.frames, dtype=torch.float64)
        return Series(frames, grid, times, truths=tuple(truths)), intensities

    def pose(self, grid: Grid, number: int, draws: torch.Generator) -> Affine:
        """Draw where a frame lies."""
        turns = 1 if grid.ndim == 2 else 3
        vector = self.turn * torch.randn(1, turns, generator=draws, dtype=torch.float64)
        shift = self.shift * torch.randn(grid.ndim, generator=draws, dtype=torch.float64)
        if number < self.still:
            return Affine.identity(grid.ndim)
        return Affine.about(of_vector(vector)[0], grid.centre, grid.centre + shift)

    def measured(self, signal: Image, draws: torch.Generator) -> Image:
        """Return the magnitude of a signal with complex Gaussian noise."""
        return noisy(signal, self.sigma, draws)


def noisy(image: Image, sigma: float, draws: torch.Generator) -> Image:
    """Return the magnitude of an image to which complex Gaussian noise of deviation `sigma` was added."""
    real, imaginary = (sigma * torch.randn(image.data.shape, generator=draws).to(image.data) for _ in range(2))
    return replace(image, data=torch.hypot(image.data + real, imaginary))
