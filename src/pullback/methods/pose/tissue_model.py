"""A head as maps of its tissues, and the voxels of a series that tell where it lies."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from pullback.errors import InputError
from pullback.numerics.noise import rayleigh_sigma
from pullback.numerics.smooth import gaussian
from pullback.space import Affine, Box, Grid, Image, Series, pull

PRESENT = 0.05
"""Probability of all tissues together, from which a voxel is of the head."""
OVERSHOOT = 0.1  # of probabilities that were resampled
EMPTY = 0.05  # share of voxels that may be exactly 0
WITHIN = 0.5  # share of the tissues that must lie in the frames' view


@dataclass(frozen=True, eq=False)
class TissueModel:
    """A head as maps of its tissues, and what is expected of their intensities.

    Attributes:
        maps: probabilities, `(1, K, *grid.shape)`, on any grid in the world of the frames.
        mean: intensities expected of the tissues, K of them, up to a common scale; none where nothing is known.
        deviation: of these, as many.

    Raises:
        InputError: not as many numbers as maps, or maps that are no probabilities.
    """

    maps: Image
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        count = self.maps.data.shape[1]
        if len(self.mean) != len(self.deviation) or len(self.mean) not in (0, count):
            raise InputError(
                f"tissues: of {count} maps as many expected intensities and deviations are wanted, or none; got "
                f"{self.mean} and {self.deviation}"
            )
        low, high = float(self.maps.data.min()), float(self.maps.data.sum(1).max())
        if low < -OVERSHOOT or high > 1 + OVERSHOOT:
            raise InputError(
                f"tissues: probabilities expected, 0 … 1 and at most 1 in sum; these begin at {low:.3g}, and their sum "
                f"reaches {high:.3g}. Of a label map give one file for each label, 1 where it is and 0 elsewhere"
            )

    def blurred(self, sigma: float) -> Image:
        """Return the maps blurred by a Gaussian of `sigma` mm, such as a scanner's point spread."""
        return replace(self.maps, data=gaussian(self.maps.data, (sigma / self.maps.grid.spacing).tolist()))

    @property
    def head(self) -> Tensor:
        """The voxels with tissue, `(1, 1, *grid.shape)` bool."""
        return self.maps.data.sum(1, keepdim=True) > PRESENT

    @property
    def box(self) -> Grid:
        """The box about all tissues, as a grid of two voxels along each axis: turns are about its middle.

        Raises:
            InputError: there is no tissue.
        """
        if not self.head.any():
            raise InputError("tissues: the maps are 0 everywhere")
        box = Box.of(Image(self.maps.data[:, :1], self.maps.grid, self.head))
        return box.lattice((2,) * self.maps.grid.ndim, box.edges)


@dataclass(frozen=True, eq=False)
class NoisyFrames:
    """The voxels of a series that are looked at.

    Attributes:
        values: `(T, N)`, of the frames.
        points: `(d, N)` float64, where the voxels are in the world.
        sigma: deviation of the noise, by the voxels of air; where there is none, by differences between frames.
    """

    values: Tensor
    points: Tensor
    sigma: Tensor

    @classmethod
    def of(cls, series: Series, model: TissueModel, reach: float, air: int) -> Self:
        """Choose all voxels within `reach` mm of the head, and `air` of the others, evenly; frames are read twice.

        Raises:
            InputError: one frame, negative frames, a background of zeros, or tissues outside the frames' view.
        """
        squares = _mean_square(series)
        head = _head(model, series.grid, reach)
        chosen, noise = head.nonzero().T, torch.zeros(0, dtype=torch.long)
        beyond = (~head).nonzero().T
        if beyond.shape[1]:
            noise = _without_structure(squares[~head], len(series))
            beyond = beyond[:, noise][:, :: max(1, len(noise) // max(air, 1))][:, :air]
        voxels = torch.cat([chosen, beyond], 1)
        values = torch.stack([frame.data[0, 0][tuple(voxels)] for frame in series])
        quiet = values[:, chosen.shape[1] :]
        sigma = rayleigh_sigma(quiet) if quiet.shape[1] > 100 else values.diff(dim=0).std() / 2**0.5
        if not sigma > 0:
            raise InputError("the frames have no noise in the air about the head; plain realignment needs none")
        return cls(values, series.grid.to_world(voxels.double()[None])[0], sigma)


def _mean_square(series: Series) -> Tensor:
    """Return the mean of y² over frames, `(*grid.shape)`, of frames that may be magnitudes with their noise.

    Raises:
        InputError: they cannot.
    """
    if len(series) < 2:
        raise InputError(f"two frames or more expected, got {len(series)}; one frame has nothing to meet")
    total, empty = torch.zeros(series.grid.shape, dtype=torch.float64), 0
    for n, frame in enumerate(series):
        low = float(frame.data.min())
        if low < 0:
            raise InputError(f"frame {n} goes down to {low:.4g}: magnitudes expected, which are never negative")
        empty += int((frame.data == 0).sum())
        total += frame.data[0, 0].double().square()
    share = empty / (len(series) * total.numel())
    if share > EMPTY:
        raise InputError(
            f"{share:.0%} of the voxels are exactly 0: the frames were masked or denoised, and have no Rician noise "
            f"there; give the frames as the scanner made them, or leave the tissues out"
        )
    return total / len(series)


def _head(model: TissueModel, grid: Grid, reach: float) -> Tensor:
    """Return the voxels of frames within `reach` mm of the head, a box's, `(*grid.shape)` bool.

    Raises:
        InputError: most of the tissues lie outside the frames' view.
    """
    sure = model.maps.data.sum(1, keepdim=True)
    seen = pull(Image(sure, model.maps.grid), Affine.identity(grid.ndim), onto=grid).data
    sizes = [float(each.affine[:-1, :-1].det().abs()) for each in (grid, model.maps.grid)]
    share = float(seen.sum()) * sizes[0] / (float(sure.sum()) * sizes[1])
    if share < WITHIN:
        raise InputError(
            f"{share:.0%} of the tissues lie in the frames' view as the headers say: align the image that they were "
            f"made from with the mean of the frames, and apply the transform to the maps first"
        )
    wide = [int(reach / edge) for edge in grid.spacing.tolist()]
    pool = F.max_pool3d if grid.ndim == 3 else F.max_pool2d
    near = pool((seen > PRESENT).float(), [2 * n + 1 for n in wide], 1, wide)
    return near[0, 0] > 0


def _without_structure(squares: Tensor, frames: int) -> Tensor:
    """Return the numbers of voxels whose mean square over frames is that of Rayleigh noise, or less.

    2σ² is near the median of all; the mean of T squares scatters by 2σ² / √T.
    """
    return (squares <= squares.median() * (1 + 4 / frames**0.5)).nonzero()[:, 0]
