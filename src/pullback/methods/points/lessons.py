"""What features of clouds are learned from: labels, synthetic deformations, or a metric of the clouds themselves.

The strategies that section 3.2.2 of Bigalke et al. 2023 compares, on the one model of `geometric`. Of rigid and
random-field deformations and of the weights of the metric it gives no numbers; those here are ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pullback.methods.points.geometric import Match, overlaid
from pullback.methods.points.learn import Affines, Cloud
from pullback.numerics.graph import gathered, laplacian, nearest, neighbours
from pullback.numerics.rotation import nearby
from pullback.numerics.spline import spline
from pullback.solvers import Propagate

QUICK = Match(Propagate(candidates=32, iterations=5))


@dataclass(frozen=True)
class Rigid:
    """A cloud turned about all axes by up to `degrees`, and shifted by up to `shift` mm along each."""

    degrees: float = 10.0
    shift: float = 10.0

    def __call__(self, points: Tensor, chance: torch.Generator) -> Tensor:
        turn = nearby(torch.eye(3, dtype=torch.float64)[None], 1, self.degrees, chance)[0].to(points)
        shift = self.shift * (2 * torch.rand(3, generator=chance) - 1)
        return (points - points.mean(0)) @ turn + points.mean(0) + shift


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

    def __call__(self, points: Tensor, chance: torch.Generator) -> Tensor:
        centres = points[_some(len(points), self.centres, chance)]
        vectors = torch.randn(len(centres), 3, generator=chance)
        field = (-torch.cdist(points, centres).square() / (2 * self.width**2)).exp() @ vectors
        return points + self.size * field / field.square().mean().sqrt()


@dataclass(frozen=True, eq=False)
class Labelled:
    """The mean distance in mm of the displacements found to the labels: the paper's TRE, eq. 2.

    Attributes:
        clouds: the pairs.
        labels: of each the displacement of every fixed point, `(N, 3)` in mm: pseudo labels, or what experts marked.
        match: the optimiser while learning.
        points: fixed points in an update, drawn anew each time.
        affines: both clouds are turned and stretched by these, and the displacements back.
        placing: how far from their labels the fixed points begin, so that the labels are within the candidates' reach;
            None begins as at test time, with the overlay.
    """

    clouds: Sequence[Cloud]
    labels: Sequence[Tensor]
    match: Match = QUICK
    points: int = 400
    affines: Affines = Affines()
    placing: RandomField | None = RandomField(6.0)

    def __call__(self, network: nn.Module, index: int, chance: torch.Generator) -> Tensor:
        cloud, label = self.clouds[index], self.labels[index]
        chosen, affine = _some(len(cloud.fixed), self.points, chance), self.affines.draw(chance)
        fixed, moving = cloud.fixed @ affine, cloud.moving @ affine
        placed = overlaid(fixed, moving) if self.placing is None else self.placing(fixed + label @ affine, chance)
        found = self.match.onward(network, fixed, placed, moving, chosen)
        return (found @ affine.inverse() - label[chosen]).norm(dim=1).mean()


@dataclass(frozen=True, eq=False)
class Synthetic:
    """The mean distance in mm to a deformation that is known, since it was applied to one cloud of the pair.

    Either cloud in turn. Points are left out of each copy by chance and jittered, for the points of two scans are never
    all the same.

    Attributes:
        deformation: `Rigid` or `RandomField`.
        kept: part of the points that each copy keeps.
        jitter: deviation in mm.
    """

    clouds: Sequence[Cloud]
    deformation: Rigid | RandomField
    kept: float = 0.8
    jitter: float = 1.0
    match: Match = QUICK
    points: int = 400

    def __call__(self, network: nn.Module, index: int, chance: torch.Generator) -> Tensor:
        cloud = self.clouds[index]
        whole = cloud.fixed if float(torch.rand((), generator=chance)) < 0.5 else cloud.moving
        moved = self.deformation(whole, chance)
        one, two = (_some(len(whole), round(self.kept * len(whole)), chance) for _ in range(2))
        moving = moved[two] + self.jitter * torch.randn(len(two), 3, generator=chance)
        chosen = _some(len(one), self.points, chance)
        found = self.match(network, whole[one], moving, chosen)
        return (found - (moved - whole)[one][chosen]).norm(dim=1).mean()


@dataclass(frozen=True, eq=False)
class ByMetric:
    """Chamfer distance, smoothness and the Laplacian of the clouds: PointPWC-Net's (Wu et al., ECCV 2020).

    Squared distances of each moved fixed point to the nearest moving one and back; squared differences of neighbours'
    displacements; and squared differences of the Laplacian coordinates of the moved cloud to those of the moving cloud,
    interpolated there. Its weights are 1, 1 and 0.3. The displacements of the fixed points that take no part in the
    update are those of the nearest that does.

    Attributes:
        smooth, bend: weights of the second and third.
        neighbours: of a Laplacian.
    """

    clouds: Sequence[Cloud]
    match: Match = QUICK
    points: int = 400
    affines: Affines = Affines()
    smooth: float = 1.0
    bend: float = 0.3
    neighbours: int = 10

    def __call__(self, network: nn.Module, index: int, chance: torch.Generator) -> Tensor:
        cloud, affine = self.clouds[index], self.affines.draw(chance)
        fixed, moving = cloud.fixed @ affine, cloud.moving @ affine
        chosen = _some(len(fixed), self.points, chance)
        found = self.match(network, fixed, moving, chosen)
        placed = overlaid(fixed, moving)
        extra = found - (placed - fixed)[chosen]  # beyond what the overlay does, which is not smooth's to judge
        moved = placed + gathered(extra, nearest(placed, placed[chosen], 1)[1])[:, 0]
        there, back = (_to_nearest(*ends) for ends in ((moved, moving), (moving, moved)))
        graph = neighbours(placed[chosen], self.neighbours)
        uneven = (gathered(extra, graph) - extra[:, None]).square().sum(2).mean()
        return there + back + self.smooth * uneven + self.bend * self._bent(moved, placed, moving)

    def _bent(self, moved: Tensor, placed: Tensor, moving: Tensor) -> Tensor:
        shape = laplacian(moved, neighbours(placed, self.neighbours))
        wanted = laplacian(moving, neighbours(moving, self.neighbours))
        distance, index = nearest(moved, moving, 5)
        weight = 1 / (distance + 1e-3)
        there = (gathered(wanted, index) * (weight / weight.sum(1, keepdim=True))[..., None]).sum(1)
        return (shape - there).square().sum(1).mean()


def from_landmarks(cloud: Cloud, fixed: Tensor, moving: Tensor) -> Tensor:
    """What experts marked, as the displacement of the fixed points, `(N, 3)`: the spline through the landmarks.

    Args:
        fixed, moving: landmarks `(L, 3)`, one to one, in mm.
    """
    return spline(fixed, moving - fixed, smoothing=1.0)(cloud.fixed.double()).float()


def _to_nearest(points: Tensor, others: Tensor) -> Tensor:
    with torch.no_grad():
        index = nearest(points, others, 1)[1]
    return (gathered(others, index)[:, 0] - points).square().sum(1).mean()


def _some(count: int, wanted: int, chance: torch.Generator) -> Tensor:
    return torch.randperm(count, generator=chance)[:wanted]
