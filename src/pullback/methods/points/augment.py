"""Augmentation of pairs of clouds, and what their supervision needs to know.

Bigalke et al. 2023 (section 3.2.2) give no numbers for rigid and random-field deformations; those here are ours.
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
    """Augmentation of both clouds by one random linear map: rotation about all three axes, and a common scale.

    The authors' augmentation for lungs (Bigalke et al., MICCAI 2022, has these numbers).

    Attributes:
        degrees: largest rotation about each axis.
        stretch: largest relative change of scale.
    """

    degrees: float = 10.0
    stretch: float = 0.1

    def __call__(self, pair: PointPair, generator: torch.Generator) -> PointPair:
        """Return the pair with all its points under one map."""
        linear = self.draw(generator)
        return pair.each(lambda points: points @ linear.to(points))

    def draw(self, generator: torch.Generator) -> Tensor:
        """Draw a matrix `(3, 3)`, float64, which multiplies rows of points from the right."""
        turn = nearby(torch.eye(3, dtype=torch.float64)[None], 1, self.degrees, generator)[0]
        return (1 + self.stretch * (2 * torch.rand((), generator=generator, dtype=torch.float64) - 1)) * turn


@dataclass(frozen=True)
class Rigid:
    """A random rotation of a cloud about all axes, up to `degrees`, and a shift along each, up to `shift` mm."""

    degrees: float = 10.0
    shift: float = 10.0

    def __call__(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """Move points `(N, 3)`."""
        turn = nearby(torch.eye(3, dtype=torch.float64)[None], 1, self.degrees, generator)[0].to(points)
        shift = self.shift * (2 * torch.rand(3, generator=generator) - 1)
        return (points - points.mean(0)) @ turn + points.mean(0) + shift.to(points)


@dataclass(frozen=True)
class RandomField:
    """A smooth random displacement of a cloud: normal vectors at some of its points, spread by Gaussians of `width` mm.

    Attributes:
        size: deviation of the displacement, in mm, along each axis.
        width: of the Gaussians, in mm.
        centres: number of Gaussians.
    """

    size: float = 8.0
    width: float = 40.0
    centres: int = 60

    def __call__(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """Move points `(N, 3)`."""
        centres = points[some(len(points), self.centres, generator).to(points.device)]
        vectors = torch.randn(len(centres), 3, generator=generator).to(points)
        field = (-torch.cdist(points, centres).square() / (2 * self.width**2)).exp() @ vectors
        return points + self.size * field / field.square().mean().sqrt()


@dataclass(frozen=True)
class SyntheticClouds:
    """A generator of pairs made from one cloud, either in turn, by a known deformation.

    Each copy loses random points and is jittered, for the points of two scans are never all the same.

    Attributes:
        deformation: `Rigid` or `RandomField`.
        kept: share of the points that each copy keeps.
        jitter: deviation in mm.
    """

    deformation: Rigid | RandomField
    kept: float = 0.8
    jitter: float = 1.0

    def __call__(self, pair: PointPair, generator: torch.Generator) -> PointPair:
        """Return two copies, with the true places of the fixed one's points; surfaces and landmarks are dropped."""
        whole = (pair.fixed if float(torch.rand((), generator=generator)) < 0.5 else pair.moving).data[0]
        moved = self.deformation(whole, generator)
        one, two = (some(len(whole), round(self.kept * len(whole)), generator).to(whole.device) for _ in range(2))
        off = self.jitter * torch.randn(len(two), 3, generator=generator).to(whole)
        fixed, moving, truth = (Points(each[None]) for each in (whole[one], moved[two] + off, moved[one]))
        return PointPair(fixed, moving, truth=truth, name=pair.name)


@dataclass(frozen=True)
class NearTruth:
    """Starts of the fixed points near their true places, within reach of a solver's candidates.

    Attributes:
        field: the random displacement from the truth.
    """

    field: RandomField = RandomField(6.0)

    def __call__(self, pair: PointPair, generator: torch.Generator) -> PointPair:
        """Return the pair with a `start`.

        Raises:
            InputError: its truth is not known.
        """
        if pair.truth is None:
            raise InputError(f"{pair.name or 'a pair of clouds'}: where its fixed points belong is not known")
        return replace(pair, start=Points(self.field(pair.truth.data[0], generator)[None]))


def from_landmarks(pair: PointPair, generator: torch.Generator) -> PointPair:
    """Return a pair with the `truth` of every fixed point by the spline through experts' landmarks; nothing is random.

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
    """A random choice of the fixed points at which a loss is computed, drawn anew each time.

    Attributes:
        points: number of points, where there are so many.
    """

    points: int = 400

    def __call__(self, pair: PointPair, generator: torch.Generator) -> PointPair:
        """Return the pair with some points `chosen`."""
        data = pair.fixed.data
        return replace(pair, chosen=some(data.shape[1], self.points, generator).to(data.device))


def some(count: int, wanted: int, generator: torch.Generator) -> Tensor:
    """Draw `wanted` of the numbers below `count`, or all, in random order, on the CPU."""
    return torch.randperm(count, generator=generator)[:wanted]
