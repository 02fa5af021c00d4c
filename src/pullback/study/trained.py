"""A trained network as a register of any two images."""

from dataclasses import dataclass

import torch
from torch import nn

from pullback.alignment import Pair
from pullback.data import shown
from pullback.errors import InputError
from pullback.numerics.smooth import widened
from pullback.space import Affine, Composite, Displacement, Grid, Image, canonical, pull
from pullback.training import align


@dataclass(frozen=True, eq=False)
class Placed:
    """The answer: a displacement on the fixed image's own grid, before the shift from which the images started."""

    transform: Displacement | Composite


@dataclass(frozen=True, eq=False)
class Trained:
    """Shows a network images as it was trained to see them, and answers in the world.

    The images' intensities are normalised, and what their masks hide is replaced (`shown`). Both are laid on a
    grid that covers the fixed image, its axes as nearly along R, A, S as storage allows, with the training's voxel size
    (left alone within 5 %). The answer is a displacement on the fixed image's own grid; where the images started from
    a shift, it is shift ∘ displacement, for beyond its grid a displacement moves nothing.

    Attributes:
        network: a register of normalised images on one grid.
        spacing: of the images it was trained on, in mm; None takes the fixed image's.
        centred: whether it was trained on images laid middle on middle.
        ndim: of the images it was trained on; None does not check.
        channels: of one image; None does not check.

    Raises:
        TypeError: the network is none.
    """

    network: nn.Module
    spacing: tuple[float, ...] | None = None
    centred: bool = False
    ndim: int | None = None
    channels: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.network, nn.Module):
            raise TypeError(f"Trained: {self.network!r} is no network; `pb.load_run(folder)` reads a trained one")

    def begin(self, fixed: Image, moving: Image) -> Affine:
        """Where the images start: as their headers say, or middle on middle."""
        if not self.centred:
            return Affine.identity(fixed.grid.ndim)
        matrix = torch.eye(fixed.grid.ndim + 1, dtype=torch.float64)
        matrix[:-1, -1] = moving.grid.centre - fixed.grid.centre
        return Affine(matrix)

    def __call__(self, fixed: Image, moving: Image) -> Placed:
        """Fixed → moving: a displacement on the fixed grid, and then `begin`, where that moves anything.

        Raises:
            InputError: images of other dimensions or channels than it was trained on.
        """
        if self.ndim not in (None, fixed.grid.ndim):
            raise InputError(f"the network was trained on {self.ndim}-D images; these are {fixed.grid.ndim}-D")
        if self.channels not in (None, fixed.data.shape[1]):
            has = fixed.data.shape[1]
            raise InputError(f"the network was trained on images of {self.channels} channels; these have {has}")
        begin, grid = self.begin(fixed, moving), self._grid(fixed)
        still = Affine.identity(grid.ndim)
        seen = Pair(_laid(shown(fixed), still, grid), _laid(shown(moving), begin, grid))
        found = align(self.network, seen).transform.displacement(fixed.grid)
        field = Displacement(found.to(fixed.data.dtype), fixed.grid)
        return Placed(field if torch.equal(begin.matrix, still.matrix) else Composite(begin, field))

    def _grid(self, fixed: Image) -> Grid:
        grid = canonical(fixed).grid
        wanted = grid.spacing if self.spacing is None else torch.tensor(self.spacing, dtype=torch.float64)
        near = torch.allclose(grid.spacing, wanted, rtol=0.05)
        return grid if near else grid.at_spacing(tuple(wanted.tolist()))


def _laid(image: Image, begin: Affine, grid: Grid) -> Image:
    """The image on `grid`, whose axes are near R, A, S, smoothed first along those whose voxels grow."""
    image = canonical(image)
    smooth = widened(image.data, (grid.spacing / image.grid.spacing).tolist())
    return pull(Image(smooth, image.grid, image.mask), begin, onto=grid)
