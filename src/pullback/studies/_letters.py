"""Data of the study of the variational principle: letters as formulas, slices of heads, and brains that shrink."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pullback.alignment import Pair
from pullback.data import normalised
from pullback.data.case import LOADED
from pullback.files import read_image, read_labels
from pullback.methods.pair.determinant_and_curl import possible, reached
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import gaussian
from pullback.solvers.initialise import otsu
from pullback.space import Grid, Image, Labels, inverted, pull, resample
from pullback.studies._pairs import OnePair

SIDE = 128
STROKE = 0.17  # of the side
HIPPOCAMPI, SHRUNK, NOISE = (17, 53), 0.8, 0.01


# ---- letters


def letter(name: str, side: int = SIDE) -> Image:
    """Return J, V, C or the disc, `(1, 1, side, side)`, 0 … 1, anti-aliased, y growing upwards."""
    t = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    x, y = torch.meshgrid(t, t, indexing="ij")
    if name == "J":
        away = torch.minimum(_to_segment(x, y, (0.58, 0.38), (0.58, 0.8)), _to_arc(x, 0.38 - y + 0.38, (0.41, 0.38)))
    elif name == "V":
        away = torch.minimum(*(_to_segment(x, y, (at, 0.78), (0.5, 0.22)) for at in (0.26, 0.74)))
    elif name == "C":
        middle = (x - 0.5, y - 0.5)
        opening = math.pi / 4
        tip = 0.25 * math.cos(opening), 0.25 * math.sin(opening)
        end = (middle[0] - tip[0]).hypot(middle[1].abs() - tip[1])
        ring = (middle[0].hypot(middle[1]) - 0.25).abs()
        away = torch.where(torch.atan2(middle[1], middle[0]).abs() >= opening, ring, end)
    else:
        away = (x - 0.5).hypot(y - 0.5) - 0.335 + STROKE / 2
    ink = (0.5 - (away - STROKE / 2) * side).clamp(0, 1)
    return Image(ink[None, None].float(), Grid.centred((side, side)))


def _to_segment(x: Tensor, y: Tensor, one: tuple[float, float], other: tuple[float, float]) -> Tensor:
    """Return the distance of points to a segment."""
    along = other[0] - one[0], other[1] - one[1]
    share = ((x - one[0]) * along[0] + (y - one[1]) * along[1]) / (along[0] ** 2 + along[1] ** 2)
    share = share.clamp(0, 1)
    return (x - one[0] - share * along[0]).hypot(y - one[1] - share * along[1])


def _to_arc(x: Tensor, y: Tensor, centre: tuple[float, float], radius: float = 0.17) -> Tensor:
    """Return the distance of points to the upper half of a circle, whose ends are round."""
    off = x - centre[0], y - centre[1]
    ends = (off[0].abs() - radius).hypot(off[1])
    return torch.where(off[1] >= 0, (off[0].hypot(off[1]) - radius).abs(), ends)


@dataclass(frozen=True)
class Letters(OnePair):
    """A letter that is to become another."""

    moving: str = "J"
    fixed: str = "V"
    side: int = SIDE

    @property
    def name(self) -> str:
        return f"{self.moving} → {self.fixed}"

    def load(self) -> Pair:
        """Return the pair, with labels of what is ½ and more."""
        fixed, moving = letter(self.fixed, self.side), letter(self.moving, self.side)
        return Pair(fixed, moving, _at_least(fixed, 0.5), _at_least(moving, 0.5), name=self.name)


@dataclass(frozen=True)
class Slices(OnePair):
    """A slice of a head that is to become another's.

    Attributes:
        root: the folder of `r16slice.jpg`, or "" until one is given.
        moving, fixed: names of slices.
        side: voxels along each axis.
    """

    root: str = ""
    moving: str = "r16"
    fixed: str = "r64"
    side: int = SIDE

    @property
    def name(self) -> str:
        return f"{self.moving} → {self.fixed}"

    def load(self) -> Pair:
        """Return the pair, intensities as stored, with labels of the foregrounds."""
        fixed, moving = (self._read(name) for name in (self.fixed, self.moving))
        one, two = (_at_least(image, otsu(image.data.flatten())) for image in (fixed, moving))
        return Pair(fixed, moving, one, two, name=self.name)

    def _read(self, name: str) -> Image:
        image = read_image(Path(self.root) / f"{name}slice.jpg")
        return resample(image, image.grid.between_ends((self.side,) * 2))


def _at_least(image: Image, value: float) -> Labels:
    return Labels((image.data >= value).to(torch.uint8), image.grid)


# ---- atrophy


@dataclass(frozen=True)
class Atrophy(OnePair):
    """A brain whose hippocampi shrink by a prescribed map.

    Attributes:
        root: the folder of *_T1w.nii.gz and *_dseg.nii.gz, or "" until one is given.
        subject: whose brain.
        ndim: 2 for the coronal slice through the middle of the hippocampi, 3 for the whole.
    """

    root: str = ""
    subject: str = "sub-13"
    ndim: int = 2

    @property
    def name(self) -> str:
        return f"{self.subject}, {self.ndim}-D"

    def load(self) -> Pair:
        """Return the shrunk brain ← the brain as it was, with the hippocampi as fixed labels and the truth."""
        return LOADED.get(self, self._made)

    def _made(self) -> Pair:
        image = normalised(read_image(Path(self.root) / f"{self.subject}_T1w.nii.gz"))
        labels = read_labels(Path(self.root) / f"{self.subject}_dseg.nii.gz")
        inside = torch.isin(labels.data, torch.tensor(HIPPOCAMPI))
        if self.ndim == 2:
            at = round(float(inside.nonzero()[:, 3].double().mean()))
            grid = Grid.centred((image.grid.shape[0], image.grid.shape[2]), tuple(image.grid.spacing[[0, 2]].tolist()))
            image, inside = Image(image.data[:, :, :, at].contiguous(), grid), inside[:, :, :, at]
        truth = reached(possible(shrinking(inside), image.grid), 100)
        image = replace(image, data=gaussian(image.data, 1.0))  # or interpolation alone would tell what did not move
        shrunk = pull(image, inverted(truth), onto=image)
        fixed, moving = (
            replace(one, data=one.data + NOISE * _noise(one.data, n)) for n, one in enumerate((image, shrunk))
        )
        marked = Labels(inside.to(torch.uint8), image.grid)
        return Pair(fixed, moving, fixed_labels=marked, truth=truth, name=self.name)


def shrinking(inside: Tensor) -> Tensor:
    """Return a determinant of 0.8 where `inside` is True, with a smooth collar, and 1 elsewhere."""
    soft = 1 - (1 - SHRUNK) * gaussian(inside.float(), 1.0)
    return torch.where(inside, torch.full_like(soft, SHRUNK), soft)


def _noise(like: Tensor, number: int) -> Tensor:
    return torch.randn(like.shape, generator=make_generator(31, number), dtype=like.dtype)
