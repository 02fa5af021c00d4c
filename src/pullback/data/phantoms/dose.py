"""A chest on several days, its true motion, and the dose of a proton field on each of them: accumulation with a truth.

A field is analytic: a box in depth and width whose ends fall off as error functions, in water-equivalent depth along
one axis. So what is known of it is exact: its 80–20 % falls, and where it ends in any tissue.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.data.case import Subject
from pullback.errors import InputError
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import stationary_noise
from pullback.space import Grid, Image, Labels, Velocity, pull

FALL = 2 * 0.8416212335729143  # of 80 to 20 %, in deviations of the error function
HU = (-1000.0, 0.0, 3000.0)
STOPPING = (0.001, 1.0, 2.5)
"""Relative stopping power of air, water and dense bone; between them it is linear."""
STRUCTURES = {1: "target", 2: "heart", 3: "cord", 4: "lung", 5: "body"}


def stopping_power(hu: Tensor) -> Tensor:
    """Return the stopping power relative to water of Hounsfield units, piecewise linear."""
    hu = hu.clamp(HU[0], HU[2])
    light = STOPPING[0] + (hu - HU[0]) / (HU[1] - HU[0]) * (STOPPING[1] - STOPPING[0])
    dense = STOPPING[1] + (hu - HU[1]) / (HU[2] - HU[1]) * (STOPPING[2] - STOPPING[1])
    return torch.where(hu < HU[1], light, dense)


def water_depth(ct: Image, axis: int, backwards: bool = False) -> Tensor:
    """Return the water-equivalent depth of each voxel's middle along a grid axis, `(1, 1, *spatial)` in mm.

    Args:
        ct: in Hounsfield units; the beam enters at the first voxel.
        axis: of the grid, along which it goes.
        backwards: whether it enters at the last voxel.
    """
    power = stopping_power(ct.data) * float(ct.grid.spacing[axis])
    power = power.flip(2 + axis) if backwards else power
    depth = power.cumsum(2 + axis) - power / 2
    return depth.flip(2 + axis) if backwards else depth


@dataclass(frozen=True)
class ProtonField:
    """A field of protons: a box of dose in water-equivalent depth and in width, as a spread-out Bragg peak has it.

    Attributes:
        axis: of the grid, along which the beam goes.
        depths: at which the box begins and ends, mm of water; there the dose is half.
        sides: where it begins and ends along each of the other axes, in mm of the world along that grid axis; half.
        dose: within, Gy.
        entrance: share of it before the box.
        fall: from 80 to 20 % at its distal end, mm of water.
        penumbra: from 80 to 20 % at its sides, mm.
        backwards: whether the beam enters at the last voxel.

    Raises:
        InputError: an end before its beginning, or a width that is not above 0.
    """

    axis: int
    depths: tuple[float, float]
    sides: tuple[tuple[float, float], ...]
    dose: float = 2.0
    entrance: float = 0.3
    fall: float = 4.0
    penumbra: float = 6.0
    backwards: bool = False

    def __post_init__(self) -> None:
        turned = any(low >= high for low, high in (self.depths, *self.sides))
        if turned or min(self.fall, self.penumbra, self.dose) <= 0:
            got = f"depths {self.depths}, sides {self.sides}, fall {self.fall:g}, penumbra {self.penumbra:g}"
            raise InputError(
                f"ProtonField: a box with ends after its beginnings, and widths and a dose above 0 expected, got "
                f"{got}, dose {self.dose:g}"
            )

    @classmethod
    def covering(cls, ct: Image, target: Tensor, margin: float, axis: int) -> "ProtonField":
        """Return the field that covers a target, `(1, 1, *spatial)` bool, and `margin` mm around it, in a plan's CT.

        Raises:
            InputError: the target is empty.
        """
        if not bool(target.any()):
            raise InputError("ProtonField: the target is empty")
        depth = water_depth(ct, axis)[target]
        where = _along_axes(ct.grid)
        ends = [
            (
                float(where[a].expand(ct.grid.shape)[target[0, 0]].min()) - margin,
                float(where[a].expand(ct.grid.shape)[target[0, 0]].max()) + margin,
            )
            for a in range(ct.grid.ndim)
            if a != axis
        ]
        return cls(axis, (float(depth.min()) - margin, float(depth.max()) + margin), tuple(ends))

    def __call__(self, ct: Image) -> Image:
        """Return the dose in an anatomy, Gy, on the grid of its CT."""
        depth = water_depth(ct, self.axis, self.backwards)
        distal = _rise(self.depths[1] - depth, self.fall)
        proximal = self.entrance + (1 - self.entrance) * _rise(depth - self.depths[0], self.fall)
        total = self.dose * distal * proximal
        where = _along_axes(ct.grid)
        for axis, (low, high) in zip(self._across(ct.grid.ndim), self.sides, strict=True):
            total = total * _rise(where[axis] - low, self.penumbra) * _rise(high - where[axis], self.penumbra)
        return Image(total, ct.grid)

    def _across(self, ndim: int) -> list[int]:
        return [axis for axis in range(ndim) if axis != self.axis]


def _rise(distance: Tensor, width: float) -> Tensor:
    """Return the error function that rises from 20 to 80 % within `width`, and is 1/2 at 0."""
    return (1 + torch.erf(distance * (FALL / width / math.sqrt(2)))) / 2


def _along_axes(grid: Grid) -> list[Tensor]:
    """Return the place of each voxel along each grid axis, in mm from the world's origin, each to be broadcast."""
    origin = torch.linalg.solve(grid.affine[:-1, :-1] / grid.spacing, grid.affine[:-1, -1])
    shapes = [[-1 if a == axis else 1 for a in range(grid.ndim)] for axis in range(grid.ndim)]
    return [(origin[a] + torch.arange(n) * grid.spacing[a]).view(shapes[a]).float() for a, n in enumerate(grid.shape)]


@dataclass(frozen=True, eq=False)
class Day:
    """A day of treatment.

    Attributes:
        ct: of the day, in Hounsfield units.
        truth: reference → day, where each point of the plan's anatomy lies on that day; its inverse is exact.
        dose: of the day, Gy, on its CT.
    """

    ct: Image
    truth: Velocity
    dose: Image


@dataclass(frozen=True)
class TreatedChest:
    """A chest that is planned once and treated on several days, on each of which it lies otherwise.

    Ellipses, or ellipsoids: a body with two lungs, a heart, a spine with its cord, and a target in a lung; tissue has a
    texture that moves with it, and every CT noise of its own. Labels are `STRUCTURES`. On day n the anatomy is moved by
    exp of a smooth random velocity that vanishes at the border, so the truth and its inverse are both known.

    Attributes:
        shape: of the grid; two axes are an axial plane.
        spacing: mm.
        motion: deviation of the velocity along each axis, mm.
        smooth: sigma of the noise it is made of, mm.
        noise: of a CT, HU.
        texture: deviation of it, HU.
        margin: of the field about the target, mm.
        seed: of all that is drawn.
    """

    shape: tuple[int, ...] = (96, 80)
    spacing: float = 3.0
    motion: float = 4.0
    smooth: float = 24.0
    noise: float = 10.0
    texture: float = 30.0
    margin: float = 6.0
    seed: int = 0

    @property
    def grid(self) -> Grid:
        """The grid of all CTs."""
        return Grid.centred(self.shape, self.spacing)

    def reference(self) -> Subject:
        """Return the plan's CT and its structures."""
        values, labels = self._anatomy()
        return Subject(self._seen(values, 0), labels, name="plan")

    def field(self) -> ProtonField:
        """Return the field that treats the target of the plan, from the left."""
        plan = self.reference()
        assert plan.labels is not None
        return ProtonField.covering(plan.image, plan.labels.data == 1, self.margin, axis=0)

    def day(self, number: int) -> Day:
        """Return a day of treatment, from 1 on."""
        grid = self.grid
        draws = make_generator(self.seed, number, 1)
        sigma = self.smooth / self.spacing
        velocity = stationary_noise((1, grid.ndim, *grid.shape), sigma, round(2 * sigma), draws, torch.zeros(()))
        truth = Velocity(
            velocity * (self.motion / self.spacing) * _stillness(grid, min(2 * sigma, min(grid.shape) / 4)), grid
        )
        values, _ = self._anatomy()
        ct = self._seen(pull(values, truth.inverse(), onto=grid, outside=HU[0]), number)
        return Day(ct, truth, self.field()(ct))

    def _seen(self, values: Image, number: int) -> Image:
        """Return an anatomy as a CT shows it on a day; the plan is day 0."""
        draws = make_generator(self.seed, number, 2)
        noise = self.noise * torch.randn(values.data.shape, generator=draws)
        return Image((values.data + noise).clamp(min=HU[0]), values.grid)

    def _anatomy(self) -> tuple[Image, Labels]:
        """Return the plan's anatomy in Hounsfield units, and its structures."""
        grid = self.grid
        where = _along_axes(grid)
        extent = [float(n) * self.spacing / 2 for n in grid.shape]
        sigma = 4 / self.spacing
        grain = stationary_noise((1, 1, *grid.shape), sigma, round(2 * sigma), make_generator(self.seed, 3), where[0])
        values = torch.full((1, 1, *grid.shape), HU[0])
        labels = torch.zeros(1, 1, *grid.shape, dtype=torch.int16)
        for middle, radii, hu, label in ORGANS:
            apart: Tensor = torch.zeros(grid.shape)
            for axis, at in enumerate(where):  # organs are as long as the chest is, along a third axis
                centre, radius = (*middle, 0.0)[axis], (*radii, 0.85 if label in (3, 5, 0) else 0.6)[axis]
                apart = apart + ((at / extent[axis] - centre) / radius) ** 2
            inside = (apart <= 1)[None, None]
            values = torch.where(inside, torch.as_tensor(hu), values)
            labels = torch.where(inside & (label > 0), torch.as_tensor(label, dtype=torch.int16), labels)
        values = values + self.texture * grain * (labels > 0)
        return Image(values, grid), Labels(labels, grid)


ORGANS: Sequence[tuple[tuple[float, float], tuple[float, float], float, int]] = (
    ((0.0, 0.0), (0.86, 0.72), 0.0, 5),
    ((-0.40, 0.06), (0.34, 0.50), -750.0, 4),
    ((0.42, 0.06), (0.32, 0.48), -750.0, 4),
    ((0.10, 0.18), (0.22, 0.30), 45.0, 2),
    ((0.0, -0.46), (0.12, 0.17), 450.0, 5),
    ((0.0, -0.46), (0.045, 0.06), 30.0, 3),
    ((-0.42, 0.10), (0.11, 0.14), 30.0, 1),
)
"""Middle and radii in the plane as shares of the grid's half extent, HU and label; later ones lie over earlier ones."""


def _stillness(grid: Grid, width: float) -> Tensor:
    """Return a weight that is 0 on the border of the grid and rises to 1 within `width` voxels."""
    where = grid.voxels(torch.zeros(()))
    last = torch.tensor(grid.shape).view(-1, *[1] * grid.ndim) - 1
    depth = torch.minimum(where, last - where).amin(0)
    return torch.sin(depth.clamp(max=width) / width * torch.pi / 2) ** 2
