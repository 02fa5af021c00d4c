"""Pairs of clouds seen otherwise than they are stored, and what is known of them.

Of rigid and random-field deformations Bigalke et al. 2023 (section 3.2.2) give no numbers; those here are ours.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.example import PointPair
from pullback.numerics.rotation import nearby
from pullback.numerics.spline import spline
from pullback.space import Points


@dataclass(frozen=True)
class Affines:
    """Both clouds alike under a random linear map: turned about all three axes, stretched by one factor.

    The authors' augmentation for lungs (Bigalke et al., MICCAI 2022, has these numbers).

    Attributes:
        degrees: up to which they turn about each axis.
        stretch: the part by which they make longer or shorter.
    """

    degrees: float = 10.0
    stretch: float = 0.1

    def __call__(self, pair: PointPair, generator: torch.Generator) -> PointPair:
        """All that the pair knows, under one map."""
        linear = self.draw(generator)
        return pair.each(lambda points: points @ linear.to(points))

    def draw(self, generator: torch.Generator) -> Tensor:
        """`(3, 3)`, float64: for rows of points from the right."""
        turn = nearby(torch.eye(3, dtype=torch.float64)[None], 1, self.degrees, generator)[0]
        return (1 + self.stretch * (2 * torch.rand((), generator=generator, dtype=torch.float64) - 1)) * turn


@dataclass(frozen=True)
class Rigid:
    """A cloud turned about all axes by up to `degrees`, and shifted by up to `shift` mm along each."""

    degrees: float = 10.0
    shift: float = 10.0

    def __call__(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """`(N, 3)` to where they go."""
        turn = nearby(torch.eye(3, dtype=torch.float64)[None], 1, self.degrees, generator)[0].to(points)
        shift = self.shift * (2 * torch.rand(3, generator=generator) - 1)
        return (points - points.mean(0)) @ turn + points.mean(0) + shift.to(points)


@dataclass(frozen=True)
class RandomField:
    """A cloud moved by a smooth random field: normal vectors at some of its points, spread by Gaussians of `width` mm.

    Attributes:
        size: deviation of the displacement, in mm, along each axis.
        width: of the Gaussians, in mm.
        centres: how many.
    """

    size: float = 8.0
    width: float = 40.0
    centres: int = 60

    def __call__(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """`(N, 3)` to where they go."""
        centres = points[some(len(points), self.centres, generator).to(points.device)]
        vectors = torch.randn(len(centres), 3, generator=generator).to(points)
        field = (-torch.cdist(points, centres).square() / (2 * self.width**2)).exp() @ vectors
        return points + self.size * field / field.square().mean().sqrt()


@dataclass(frozen=True)
class Synthetic:
    """A pair made of one cloud, either in turn, by a deformation that is known.

    Points are left out of each copy by chance and jittered, for the points of two scans are never all the same.

    Attributes:
        deformation: `Rigid` or `RandomField`.
        kept: part of the points that each copy keeps.
        jitter: deviation in mm.
    """

    deformation: Rigid | RandomField
    kept: float = 0.8
    jitter: float = 1.0

    def __call__(self, pair: PointPair, generator: torch.Generator) -> PointPair:
        """Two copies, and where the points of the fixed one are led; of surfaces and landmarks nothing is left."""
        whole = (pair.fixed if float(torch.rand((), generator=generator)) < 0.5 else pair.moving).data[0]
        moved = self.deformation(whole, generator)
        one, two = (some(len(whole), round(self.kept * len(whole)), generator).to(whole.device) for _ in range(2))
        off = self.jitter * torch.randn(len(two), 3, generator=generator).to(whole)
        fixed, moving, truth = (Points(each[None]) for each in (whole[one], moved[two] + off, moved[one]))
        return PointPair(fixed, moving, truth=truth, name=pair.name)


@dataclass(frozen=True)
class NearTruth:
    """The fixed points begin near where they belong, so that this is within reach of a solver's candidates.

    Attributes:
        field: how far.
    """

    field: RandomField = RandomField(6.0)

    def __call__(self, pair: PointPair, generator: torch.Generator) -> PointPair:
        """The pair with a `start`.

        Raises:
            InputError: its truth is not known.
        """
        if pair.truth is None:
            raise InputError(f"{pair.name or 'a pair of clouds'}: where its fixed points belong is not known")
        return replace(pair, start=Points(self.field(pair.truth.data[0], generator)[None]))


@dataclass(frozen=True)
class FromLandmarks:
    """What experts marked, told of every fixed point: the spline through the landmarks. Nothing is random."""

    def __call__(self, pair: PointPair, generator: torch.Generator) -> PointPair:
        """The pair with a `truth`.

        Raises:
            InputError: it has no landmarks.
        """
        if pair.fixed_landmarks is None or pair.moving_landmarks is None:
            raise InputError(f"{pair.name or 'a pair of clouds'}: has no landmarks to learn from")
        here, there = (points.data[0].double() for points in (pair.fixed_landmarks, pair.moving_landmarks))
        fixed = pair.fixed.data
        led = spline(here, there - here, smoothing=1.0)(fixed[0].double())
        return replace(pair, truth=Points(fixed + led[None].to(fixed)))


@dataclass(frozen=True)
class Chosen:
    """Some of the fixed points, drawn anew each time: those that a loss is of.

    Attributes:
        points: how many, where there are so many.
    """

    points: int = 400

    def __call__(self, pair: PointPair, generator: torch.Generator) -> PointPair:
        """The pair with some `chosen`."""
        data = pair.fixed.data
        return replace(pair, chosen=some(data.shape[1], self.points, generator).to(data.device))


def some(count: int, wanted: int, generator: torch.Generator) -> Tensor:
    """So many of the numbers below `count`, or all, in random order, on the CPU."""
    return torch.randperm(count, generator=generator)[:wanted]
