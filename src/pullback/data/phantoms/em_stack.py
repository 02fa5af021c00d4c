"""A stack of electron-microscopy sections of tissue with mitochondria, each turned by a known angle. Nothing is read.

Membranes are the walls of Voronoi cells of points in space, mitochondria dark ellipsoids that run through several
sections; smooth noise is the cytoplasm's, and grain the microscope's. As the Lucchi++ stack is disturbed for MITO
(WBIR 2022): sections are padded and turned about their middle.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor

from pullback.errors import InputError
from pullback.group import Group
from pullback.numerics.random import make_generator
from pullback.numerics.rotation import planar
from pullback.numerics.smooth import smooth_noise
from pullback.space import Affine, Grid, Image, Labels, pull

CELL = 55.0  # px, mean distance of the cells' points
WALL = 4.0  # px, of a membrane
BRIGHT, DARK, LINE = 165.0, 95.0, 60.0  # grey of cytoplasm, mitochondria and membranes
LEAN = 0.15  # px along each axis per px of height: standard deviation
FINE = 2  # px of a picture to one at which walls are computed


@dataclass(frozen=True)
class EMStack:
    """A stack of sections with masks of mitochondria and known rotations.

    Attributes:
        sections: of the stack.
        shape: of a section before it is padded, px.
        pad: px on all sides; a section keeps all its corners when turned if this fills its diagonal.
        step: px from one section to the next.
        mitochondria: mean number of them in a section.
        grain: standard deviation of the noise of a pixel, grey values of 256.
        turned: whether sections are turned, by angles from U(−π, π); else they lie as they are.
        shift: standard deviation of a shift beside, px along each axis; none in the paper.
        pixel: edge length of a pixel in mm.
        seed: of all draws.

    Raises:
        InputError: fewer than two sections, or sections of less than 32 px.
    """

    sections: int = 40
    shape: tuple[int, int] = (1024, 768)
    pad: int = 256
    step: float = 4.0
    mitochondria: float = 50.0
    grain: float = 12.0
    turned: bool = True
    shift: float = 0.0
    pixel: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sections < 2 or min(self.shape) < 32:
            raise InputError(f"EMStack: two sections and 32 px at least, got {self.sections} of {list(self.shape)}")

    @property
    def grid(self) -> Grid:
        """The grid of each section, padded, its middle at the world's origin."""
        return Grid.centred(tuple(n + 2 * self.pad for n in self.shape), self.pixel)

    @property
    def inner(self) -> Grid:
        """The grid of a section before it is padded, about the same middle."""
        return Grid.centred(self.shape, self.pixel)

    @cached_property
    def truths(self) -> tuple[Affine, ...]:
        """The map from the upright stack to each section: it was turned by the inverse of its linear part."""
        generator = make_generator(self.seed, 1)
        angles = (2 * torch.rand(self.sections, generator=generator, dtype=torch.float64) - 1) * math.pi
        shifts = self.shift * self.pixel * torch.randn(self.sections, 2, generator=generator, dtype=torch.float64)
        middle = torch.zeros(2, dtype=torch.float64)
        turns = planar(angles if self.turned else 0 * angles)
        return tuple(Affine.about(turn, middle, shift) for turn, shift in zip(turns, shifts, strict=True))

    def section(self, z: int) -> Image:
        """Return a section, turned and padded with 0, whole grey values 0 … 255."""
        moved = pull(Image(self._grey(z)[None, None], self.inner), self.truths[z].inverse(), self.grid, outside=0.0)
        return Image(moved.data.round(), self.grid)

    def mask(self, z: int) -> Labels:
        """Return its mitochondria, turned and padded alike: 1 inside, 0 outside."""
        return pull(self.upright_mask(z), self.truths[z].inverse(), self.grid)

    def upright_mask(self, z: int) -> Labels:
        """Return the mitochondria of a section before it was turned, on `inner`."""
        centres, radii, leans = self._organelles
        near = (centres[:, 2] - z * self.step).abs() < radii[:, 2]
        mask = torch.zeros(self.shape, dtype=torch.uint8)
        for centre, radius, lean in zip(centres[near], radii[near], leans[near], strict=True):
            _fill(mask, centre, radius, lean, z * self.step)
        return Labels(mask[None, None], self.inner)

    @property
    def group(self) -> Group:
        """All sections and masks, each compared with the next."""
        every = range(self.sections)
        return Group.chain([self.section(z) for z in every], labels=[self.mask(z) for z in every])

    def _grey(self, z: int) -> Tensor:
        """Return a section as it was before it was turned, `(X, Y)`, grey values 0 … 255."""
        generator = make_generator(self.seed, 2, z)
        like = torch.zeros(())
        walls = self._walls(z)
        grey = BRIGHT - (BRIGHT - LINE) * walls
        inside = self.upright_mask(z).data[0, 0].bool()
        grey = torch.where(inside, DARK - 30 * walls, grey)
        grey = grey + 8 * smooth_noise((1, 1, *self.shape), 3.0, generator, like)[0, 0]
        return (grey + self.grain * torch.randn(self.shape, generator=generator)).clamp(0, 255).round()

    def _walls(self, z: int) -> Tensor:
        """Return how much of a membrane each pixel is, 0 … 1, `(X, Y)`."""
        coarse = tuple(math.ceil(n / FINE) + 1 for n in self.shape)
        at = np.stack(np.meshgrid(*(FINE * np.arange(n) for n in coarse), indexing="ij"), -1).reshape(-1, 2)
        at = np.concatenate([at, np.full((len(at), 1), z * self.step)], 1)
        near = self._cells.query(at, 2)[0]
        apart = torch.from_numpy((near[:, 1] - near[:, 0]).reshape(coarse)).float()[None, None]
        apart = F.interpolate(apart, scale_factor=FINE, mode="bilinear", align_corners=False)[0, 0]
        return torch.exp(-0.5 * (apart[: self.shape[0], : self.shape[1]] / WALL).square())

    @cached_property
    def _cells(self) -> cKDTree:
        """Return the points of the cells, in a box 2 cells wider than the stack."""
        generator = make_generator(self.seed, 3)
        low, high = self._box(2 * CELL)
        count = round(float((high - low).prod()) / CELL**3)
        return cKDTree((low + (high - low) * torch.rand(count, 3, generator=generator, dtype=torch.float64)).numpy())

    @cached_property
    def _organelles(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return centres and radii of the mitochondria, `(N, 3)` px, and by how much they lean, `(N, 2)` px per px."""
        generator = make_generator(self.seed, 4)
        low, high = self._box(40.0)
        deep = float(high[2] - low[2])
        across = float((high - low)[:2].prod()) / math.prod(self.shape)
        count = round(self.mitochondria * across * deep / 60)  # a mean height of 60 px
        centres = low + (high - low) * torch.rand(count, 3, generator=generator, dtype=torch.float64)
        least, most = torch.tensor([9.0, 9, 20]), torch.tensor([24.0, 24, 55])
        radii = least + (most - least) * torch.rand(count, 3, generator=generator, dtype=torch.float64)
        return centres, radii, LEAN * torch.randn(count, 2, generator=generator, dtype=torch.float64)

    def _box(self, margin: float) -> tuple[Tensor, Tensor]:
        high = torch.tensor([*self.shape, self.sections * self.step], dtype=torch.float64)
        return torch.full((3,), -margin, dtype=torch.float64), high + margin


def _fill(mask: Tensor, centre: Tensor, radius: Tensor, lean: Tensor, height: float) -> None:
    """Mark the ellipse in which an ellipsoid meets a section; it leans, so that its centre moves on with the height."""
    along = height - float(centre[2])
    size = radius[:2] * math.sqrt(1 - (along / float(radius[2])) ** 2)
    middle = centre[:2] + along * lean
    low = [max(0, math.ceil(float(m - s))) for m, s in zip(middle, size, strict=True)]
    high = [max(0, math.floor(float(m + s)) + 1) for m, s in zip(middle, size, strict=True)]
    part = mask[low[0] : high[0], low[1] : high[1]]
    x, y = (torch.arange(n, dtype=torch.float64) + a for n, a in zip(part.shape, low, strict=True))
    inside = ((x - middle[0]) / size[0])[:, None] ** 2 + ((y - middle[1]) / size[1])[None] ** 2 <= 1
    part[inside] = 1
