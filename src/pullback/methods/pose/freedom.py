"""Freedom of a pose: directions that its energy does not determine."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.methods.pose.slice_likeness import Likeness, radius_of
from pullback.space import Affine, Grid, Motion

CONDITION = 1e3  # of the greatest curvature to one that determines nothing


@dataclass(frozen=True, eq=False)
class Freedom:
    """The curvature of an energy about a pose, by which each direction is determined, or free.

    Attributes:
        curvatures: `(6,)`, eigenvalues of the Hessian, ascending, per mm²: a unit of each direction moves the slices'
            rim by about 1 mm.
        directions: `(6, 6)`, a row each: a turn, as a vector, times the radius of the slices, and a shift, in RAS.
        centre: `(3,)` mm, about which they turn.
        radius: mm.
    """

    curvatures: Tensor
    directions: Tensor
    centre: Tensor
    radius: float

    @property
    def free(self) -> Tensor:
        """Directions that are not determined, `(6,)` bool: curved less than a thousandth of the most curved one."""
        return self.curvatures <= self.curvatures.max().clamp(min=0) / CONDITION

    @property
    def in_words(self) -> tuple[str, ...]:
        """The directions that are not determined, in words."""
        return tuple(self._said(direction) for direction in self.directions[self.free])

    def _said(self, direction: Tensor) -> str:
        turn, shift = direction[:3], direction[3:]
        if shift.norm() >= turn.norm():
            return f"a shift along {_vector(shift / shift.norm())}"
        about = self.centre + torch.linalg.cross(turn / self.radius, shift) / (turn / self.radius).square().sum()
        return f"a turn about {_vector(turn / turn.norm())} through {_vector(about, 1)} mm"


def _vector(values: Tensor, digits: int = 2) -> str:
    """Return a vector in words; of a direction, the sign with which its largest part is positive."""
    sign = 1.0 if digits == 1 else float(values[values.abs().argmax()].sign())
    return "(" + ", ".join(f"{round(sign * value, digits) + 0.0:.{digits}f}" for value in values.tolist()) + ")"


def freedom_of(likeness: Likeness, found: Affine, box: Grid, frame: Affine, step: float) -> Freedom:
    """Return how the energy curves about a pose, by differences of its slope over `step` mm to either side.

    Args:
        likeness: of the slices, in the frame.
        found: points of the frame → points of the volume.
        box: of which the generators of the pose are.
        frame: points of the frame → points of the slices' world.
        step: mm.
    """
    motion = Motion.rigid(found, box)
    at = (step * torch.cat([torch.eye(6), -torch.eye(6)]).double()).requires_grad_()
    with torch.enable_grad():
        (slopes,) = torch.autograd.grad(likeness.of(motion.with_params(at)).sum(), at)
    hessian = (slopes[:6] - slopes[6:]) / (2 * step)
    curvatures, vectors = torch.linalg.eigh((hessian + hessian.T) / 2)
    turns = torch.stack([vectors[2], -vectors[1], vectors[0]])  # the planes 01, 02, 12 of rotations, as axes
    turned = frame.matrix[:3, :3]
    return Freedom(curvatures, torch.cat([turned @ turns, turned @ vectors[3:]]).T, frame.matrix[:3, 3], radius_of(box))
