"""A trained network as a register of any two images."""

from dataclasses import dataclass

import torch
from torch import nn

from pullback.alignment import Alignment, Pair, Register, Registered, continued, seen
from pullback.data import preprocessed
from pullback.errors import InputError
from pullback.solvers import Tiled
from pullback.space import Affine, Displacement, Grid, Image, Transform, canonical, pull, resample
from pullback.stats import Stats
from pullback.training import evaluating


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network as a register, which sees images as in its training and answers in the world.

    The images' intensities are brought to its scale, and voxels hidden by their masks filled (`preprocessed`). They lie
    on a grid that covers the fixed image, its axes as nearly along R, A, S as storage allows, with the training's voxel
    size (left alone within 5 %). The answer is a displacement on the fixed image's own grid; where the images start
    from a shift, it is shift ∘ displacement, for beyond its grid a displacement moves nothing.

    Attributes:
        network: a register of normalised images on one grid.
        spacing: of the images it was trained on, in mm; None takes the fixed image's.
        centred: whether it was trained on images laid middle on middle.
        ndim: of the images it was trained on; None does not check.
        channels: of one image; None does not check.
        scale: by which intensities are divided; None normalises each image.
        before: the pre-alignment that it was trained with, a register whose answer is linear; None where it has none. A
            given start takes its place.
        tiles: edges in voxels of the tiles in which the network sees the images, as `Tiled.size`; None shows them
            whole. Intensities are brought to its scale before.

    Raises:
        TypeError: the network is none.
    """

    network: nn.Module
    spacing: tuple[float, ...] | None = None
    centred: bool = False
    ndim: int | None = None
    channels: int | None = None
    scale: float | None = None
    before: Register | None = None
    tiles: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.network, nn.Module):
            raise TypeError(f"Trained: {self.network!r} is no network; `pb.load_run(folder)` reads a trained one")

    def begin(self, fixed: Image, moving: Image) -> Transform:
        """Return the start of the images: pre-aligned, as their headers say, or middle on middle."""
        if self.before is not None:
            return self.before(fixed, moving).transform
        if not self.centred:
            return Affine.identity(fixed.grid.ndim)
        matrix = torch.eye(fixed.grid.ndim + 1, dtype=torch.float64)
        matrix[:-1, -1] = moving.grid.centre - fixed.grid.centre
        return Affine(matrix)

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
        """Align two images, fixed → moving, by a displacement on the fixed grid and the start.

        Raises:
            InputError: images of other dimensions or channels than those of the training, or tiles that do not fit
                them.
        """
        if self.ndim not in (None, fixed.grid.ndim):
            raise InputError(f"the network was trained on {self.ndim}-D images; these are {fixed.grid.ndim}-D")
        if self.channels not in (None, fixed.data.shape[1]):
            has = fixed.data.shape[1]
            raise InputError(f"the network was trained on images of {self.channels} channels; these have {has}")
        still = Affine.identity(fixed.grid.ndim)
        begin = self.begin(fixed, moving) if start is None else start
        other = _laid(preprocessed(moving, self.scale), begin, self._grid(fixed))
        shown, register = Pair(self.shown(fixed), other), self._seeing
        with evaluating(self.network):
            answer = seen(shown, register(*shown.images))
        found = _on(answer.transform, fixed)
        further = {name: _on(transform, fixed) for name, transform in answer.transforms.items()}
        return Alignment(
            Pair(fixed, moving),
            begin @ found if _moves(begin) else found,
            {name: pull(image, still, onto=fixed) for name, image in answer.maps.items()},
            continued(begin, further) if _moves(begin) else further,
            Stats(start=begin).then(answer.stats),
        )

    @property
    def _seeing(self) -> Register:
        """The network, as it sees images."""
        return self.network if self.tiles is None else Tiled(self.network, self.tiles)

    def shown(self, image: Image) -> Image:
        """Return an image as the network sees it as the fixed one."""
        return _laid(preprocessed(image, self.scale), Affine.identity(image.grid.ndim), self._grid(image))

    def is_near(self, image: Image) -> bool:
        """Return whether voxels are as large as in the training, within 5 %."""
        if self.spacing is None:
            return True
        return torch.allclose(canonical(image).grid.spacing, torch.tensor(self.spacing, dtype=torch.float64), rtol=0.05)

    def _grid(self, fixed: Image) -> Grid:
        grid = canonical(fixed).grid
        return grid if self.spacing is None or self.is_near(fixed) else grid.at_spacing(self.spacing)


@dataclass(frozen=True, eq=False)
class AtItsSpacing:
    """A trained network as a register of images that a data set has prepared, as `evaluate` measures it.

    Images with voxels as large as in the training are shown to the network as they are; others as `Trained` shows them,
    so that what is measured is what `register --network` gives.
    """

    trained: Trained

    def __call__(self, fixed: Image, moving: Image) -> Registered:
        """Align two images, fixed → moving."""
        known = self.trained.is_near(fixed) and self.trained.is_near(moving)
        return self.trained.network(fixed, moving) if known else self.trained(fixed, moving)


def _on(found: Transform, fixed: Image) -> Transform:
    """Return a network's answer on its own grid as a displacement on the fixed image's; what is linear stays so."""
    if found.as_affine is not None:
        return found
    return Displacement(found.displacement(fixed.grid).to(fixed.data.dtype), fixed.grid)


def _moves(begin: Transform) -> bool:
    return begin.as_affine is None or not torch.equal(begin.as_affine.matrix, Affine.identity(begin.ndim).matrix)


def _laid(image: Image, begin: Transform, grid: Grid) -> Image:
    """Resample the image on `grid`, with axes near R, A, S, smoothed first along those whose voxels grow."""
    return resample(canonical(image), grid, begin)
