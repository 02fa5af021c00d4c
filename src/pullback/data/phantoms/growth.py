"""Children who grow: each person of another data set is scanned at several visits, between which the truth is known.

It stands in for longitudinal sets of growing brains, such as the Calgary Preschool set (Reynolds et al. 2020), and is
made out of single brains with labels. Intervals between visits are those of Dimitrijevic et al. 2022; all other numbers
are ours.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from pullback.data.case import (
    Case,
    Subject,
    subject_of,
)
from pullback.data.normalise import normalised
from pullback.errors import InputError
from pullback.numerics.difference import curl_of
from pullback.numerics.random import drawn_number, make_generator
from pullback.numerics.rotation import nearby
from pullback.numerics.smooth import gaussian, smooth_noise
from pullback.space import (
    Affine,
    Displacement,
    Grid,
    Image,
    Labels,
    Transform,
    Velocity,
    around,
    cropped,
    inverted,
    pull,
    resample,
)
from pullback.space.resample import smoothed

GREY, WHITE, FLUID = 1, 2, 3
FREESURFER_TISSUES = (
    (3, 42, 8, 47, *range(10, 14), 17, 18, 26, *range(49, 55), 58),
    (2, 41, 7, 46, 16, 28, 60),
    (4, 5, 43, 44, 14, 15),
)
"""FreeSurfer's labels of grey matter, white matter and cerebrospinal fluid."""
LATTICE = 4.0  # mm, of the velocities
BEYOND = 24.0  # mm, about the brain, within which velocities fade to nothing
SOFT = 6.0  # mm, sigma of the tissue that grows


@dataclass(frozen=True)
class GrowthLaw:
    """A law by which one person grows, and how their visits are imaged.

    From the first visit on, a point of the person's anatomy moves by exp(v), and all lengths grow by the person's rate.
    The velocity v is of two parts. One has a prescribed divergence: years × `white` in white matter, less its mean over
    the brain. The other has none: its changes add up from visit to visit. So the volume of the whole grows as the cube
    of the lengths, and white matter gains on grey.

    Attributes:
        visits: the least and the greatest number of visits.
        first: the least and the greatest age at the first, years.
        interval: mean and standard deviation of the years between two; a quarter is the least.
        rate: the least and the greatest growth of all lengths in a year, as a share.
        white: how much more of its volume white matter gains in a year, as a share.
        change: smoothness (sigma, mm) and size (standard deviation, mm, of a year) of the part without divergence.
        degrees, translation: the largest rotation about each axis and the longest shift of a visit's pose, mm.
        contrast: by how much white matter is nearer to grey at two years, as a share of their difference; it falls
            to 0 at eight.
        bias: standard deviation of the logarithm of a multiplicative field, smooth at 40 mm.
        noise: standard deviation of Gaussian noise, as a share of the range.

    Raises:
        InputError: fewer than two visits, or limits out of order.
    """

    visits: tuple[int, int] = (3, 5)
    first: tuple[float, float] = (2.0, 4.0)
    interval: tuple[float, float] = (1.15, 0.68)
    rate: tuple[float, float] = (0.01, 0.02)
    white: float = 0.02
    change: tuple[float, float] = (14.0, 0.8)
    degrees: float = 15.0
    translation: float = 10.0
    contrast: float = 0.5
    bias: float = 0.1
    noise: float = 0.02

    def __post_init__(self) -> None:
        if not 2 <= self.visits[0] <= self.visits[1] or self.first[0] > self.first[1] or self.rate[0] > self.rate[1]:
            raise InputError(
                f"growth: two visits or more, and limits in order expected, got visits={self.visits}, "
                f"first={self.first}, rate={self.rate}"
            )

    def ages(self, chance: torch.Generator) -> list[float]:
        """Draw the ages at the visits of one person, in years."""
        low, high = self.visits
        count = int(torch.randint(low, high + 1, (), generator=chance))
        mean, deviation = self.interval
        steps = mean + deviation * torch.randn(count - 1, generator=chance, dtype=torch.float64)
        first = _between(self.first, chance)
        return [first, *(first + steps.clamp(min=0.25).cumsum(0)).tolist()]


@dataclass(frozen=True)
class Child:
    """A person who grows, with all that is drawn for them.

    Attributes:
        anatomy: the case whose image and labels are the first visit's shape.
        growth: the law.
        tissues: labels of grey matter, white matter and fluid in the anatomy.
        spacing: of the visits' images, mm.
        seed: of all draws; they depend on the anatomy's name, too.
    """

    anatomy: Case
    growth: GrowthLaw
    tissues: tuple[tuple[int, ...], ...]
    spacing: float
    seed: int

    def chance(self, part: int) -> torch.Generator:
        """Return the generator of a part of the draws."""
        return make_generator(self.seed, round(drawn_number(0, self.anatomy.name) * 2**48), part)

    @cached_property
    def ages(self) -> list[float]:
        """Ages at the visits, in years."""
        return self.growth.ages(self.chance(0))

    @cached_property
    def rate(self) -> float:
        """Growth of all lengths in a year, as a share."""
        return _between(self.growth.rate, self.chance(1))

    def load(self, number: int) -> Subject:
        """Return a visit; `to_template` leads to the anatomy, so that the truth between two visits is known."""
        known = self.anatomy.load()
        image, tissue = self._anatomy(known)
        back = self.to_anatomy(number, image, tissue)
        grid = _about(image.grid, self.spacing, self.growth.translation)
        white = Image((tissue.data == WHITE).to(image.data), image.grid)
        both = smoothed(replace(image, data=torch.cat([image.data, gaussian(white.data, 0.7)], 1)), grid.spacing)
        seen = pull(both, back, onto=grid)
        shown = normalised(Image(self._contrasted(seen.data, image, tissue, number), grid))
        name = f"{subject_of(self.anatomy)}/{number + 1}"
        about = {"visit": float(number + 1), "age": self.ages[number]}
        return Subject(shown, pull(tissue, back, onto=grid), back, about, name)

    def to_anatomy(self, number: int, image: Image, tissue: Labels) -> Transform:
        """Return the map from the world of a visit to that of the anatomy: posed, grown, and changed in shape."""
        years = self.ages[number] - self.ages[0]
        centre, d = image.grid.centre, image.grid.ndim
        chance = self.chance(2 + number)
        turn = nearby(torch.eye(d, dtype=torch.float64)[None], 1, self.growth.degrees, chance)[0]
        way = torch.nn.functional.normalize(torch.randn(d, generator=chance, dtype=torch.float64), dim=0)
        shift = way * self.growth.translation * torch.rand((), generator=chance, dtype=torch.float64)
        posed = Affine.about((1 + self.rate) ** years * turn, centre, centre + shift)
        return inverted(self._changed(number, tissue)) @ posed.inverse()

    def _changed(self, number: int, tissue: Labels) -> Displacement:
        """Return exp(v), which takes the anatomy to the shape that it has at a visit."""
        grid = _lattice(tissue.grid)
        years = torch.tensor(self.ages).diff().tolist()[:number]
        dense = Image(torch.cat([tissue.data == WHITE, tissue.data > 0], 1).float(), tissue.grid)
        white, brain = resample(dense, grid).data.split(1, 1)
        sigma = (SOFT / grid.spacing).tolist()
        white, brain = gaussian(white, sigma), gaussian(brain, sigma)
        gain = self.growth.white * sum(years) * (white - brain * white.sum() / brain.sum())
        field = with_divergence(gain, grid.spacing.tolist()) * _inside(grid)
        smoothness, size = self.growth.change
        for step, length in enumerate(years):
            draw = self.chance(100 + step)
            channels = 3 if grid.ndim == 3 else 1
            potential = smooth_noise((1, channels, *grid.shape), (smoothness / grid.spacing).tolist(), draw, gain)
            turned = curl_of(potential * _inside(grid), grid.spacing.tolist())
            field = field + size * math.sqrt(length) * turned / turned.square().mean().sqrt()
        velocity = Velocity(field / grid.spacing.to(field).view(-1, *[1] * grid.ndim), grid)
        return Displacement(velocity.own_displacement, grid)

    def _anatomy(self, known: Subject) -> tuple[Image, Labels]:
        """Return the image and the tissues of the anatomy, cropped about the brain."""
        if known.labels is None:
            raise InputError(
                f"{known.name}: labels expected, of the tissues that grow; name their files by data.labels"
            )
        data = torch.zeros_like(known.labels.data)
        for value, labels in zip((GREY, WHITE, FLUID), self.tissues, strict=True):
            data[torch.isin(known.labels.data, torch.tensor(labels).to(data))] = value
        if not (data == WHITE).any():
            raise InputError(f"{known.name}: no white matter among its labels; name those of the tissues, data.tissues")
        part = around(data > 0, known.image.grid)
        return cropped(known.image, part), cropped(replace(known.labels, data=data), part)

    def _contrasted(self, seen: Tensor, image: Image, tissue: Labels, number: int) -> Tensor:
        """Return the intensities of a visit from those of the anatomy and its white matter: contrast, bias, noise."""
        shown, white = seen[:, :1], seen[:, 1:]
        grey, bright = (image.data[tissue.data == value].mean() for value in (GREY, WHITE))
        young = self.growth.contrast * min(max(8 - self.ages[number], 0.0), 6.0) / 6
        chance, edge = self.chance(50 + number), self.spacing
        shown = shown - young * (bright - grey) * white
        shown = shown * torch.exp(self.growth.bias * smooth_noise(shown.shape, 40 / edge, chance, shown))
        noise = torch.randn(shown.shape, generator=chance, dtype=shown.dtype)
        return (shown + self.growth.noise * noise).clamp(min=0) * (seen[:, :1] > 0.02)


def with_divergence(values: Tensor, edges: Sequence[float]) -> Tensor:
    """Return the field ∇ψ, `(1, d, *spatial)`, without curl, whose divergence `values` `(1, 1, *spatial)` is.

    Δψ = values is solved by FFT, as if all repeated itself; the mean of values, which no such field can have, is left
    out. `edges` are those of a voxel in mm, and components are in mm along the axes.
    """
    axes = tuple(range(2, values.ndim))
    waves = []
    for n, edge in zip(values.shape[2:], edges, strict=True):
        wave = 2 * math.pi * torch.fft.fftfreq(n, edge, dtype=torch.float64)
        waves.append(torch.where(torch.arange(n) * 2 == n, 0.0, wave))  # the highest frequency has no derivative
    frequencies = torch.stack(torch.meshgrid(*waves, indexing="ij"))
    squared = frequencies.square().sum(0)
    spectrum = torch.fft.fftn(values.double(), dim=axes) / squared.clamp(min=1e-30)
    slope = torch.where(squared > 0, -1j * frequencies * spectrum, 0)
    return torch.fft.ifftn(slope, dim=axes).real.to(values)


def _between(limits: tuple[float, float], chance: torch.Generator) -> float:
    """Draw a number between two, uniformly."""
    low, high = limits
    return low + (high - low) * float(torch.rand((), generator=chance, dtype=torch.float64))


def _lattice(grid: Grid) -> Grid:
    """Return the grid of the velocities, about another one, that reaches `BEYOND` mm further on each side."""
    coarse = grid.at_spacing((LATTICE,) * grid.ndim)
    return coarse.padded((math.ceil(BEYOND / LATTICE),) * grid.ndim)


def _about(grid: Grid, spacing: float, margin: float) -> Grid:
    """Return the grid of the visits' images: that of the cropped anatomy and a margin for poses and growth, mm."""
    return grid.at_spacing((spacing,) * grid.ndim).padded((math.ceil((margin + 8) / spacing),) * grid.ndim)


def _inside(grid: Grid) -> Tensor:
    """Return a weight of 0 at the border of a grid that rises to 1 within `BEYOND` mm, `(1, 1, …)`."""
    where = grid.voxels(torch.zeros(()))
    last = torch.tensor(grid.shape).view(-1, *[1] * grid.ndim) - 1
    width = BEYOND / LATTICE
    depth = torch.minimum(where, last - where).amin(0)
    return (torch.sin(depth.clamp(max=width) / width * torch.pi / 2) ** 2)[None, None]
