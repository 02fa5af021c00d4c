"""DIRAC's criterion: no counterpart is where the ways there and back disagree.

Mok & Chung, "Unsupervised deformable image registration with absent correspondences in pre-operative and
post-recurrence brain tumor MRI scans", MICCAI 2022: a voxel is left out where the smoothed distance of x from itself
after both ways exceeds its mean over the foreground by a margin. There it is of a network of its own; here of any that
is trained both ways, so that it needs no second decoder. The weight of the inverse and the margin were decided here.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair, Register
from pullback.energies import Diffusion
from pullback.methods.pair.non_correspondence import squared
from pullback.metrics import foreground
from pullback.numerics.smooth import box_sum
from pullback.space import Image, Transform
from pullback.studies._lesions import MAP


@dataclass(frozen=True)
class Disagreement:
    """The criterion.

    Attributes:
        margin: above the mean, in voxels.
        window: odd edge of the mean filter, in voxels.
    """

    margin: float = 1.0
    window: int = 7

    def distance(self, there: Transform, back: Transform, alignment: Alignment) -> Tensor:
        """Return how far voxels are from home after there and back, `(B, 1, *spatial)` in voxels."""
        round_trip = (back @ there).displacement(alignment.pair.fixed.grid)
        return round_trip.to(alignment.pair.fixed.data).square().sum(1, keepdim=True).clamp(min=1e-12).sqrt()

    @torch.no_grad()
    def __call__(self, off: Tensor, inside: Tensor) -> Tensor:
        """Return where the ways disagree, `(B, 1, *spatial)` bool, by the distances and the foreground."""
        smooth = box_sum(off, self.window) / box_sum(torch.ones_like(off), self.window)
        mean = (off * inside).sum() / inside.sum().clamp(min=1)
        return smooth > mean + self.margin


@dataclass(frozen=True)
class BothWays:
    """The supervision both ways, and by what comes back; from `begin` on without the voxels that disagree.

    Attributes:
        regularity: α, of the velocities.
        inverse: weight of the distance from home.
        criterion: says which voxels disagree.
        begin: as of `Corresponding`.
    """

    regularity: float = 0.05
    inverse: float = 0.002
    criterion: Disagreement = Disagreement()
    begin: float = 0.4

    def __call__(self, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]:
        ways = [Alignment(p, register(*p.images).transform) for p in (pair, Pair(pair.moving, pair.fixed))]
        losses: dict[str, Tensor] = {}
        for one, other in (ways, ways[::-1]):
            off = self.criterion.distance(one.transform, other.transform, one)
            inside = foreground(one)
            kept = torch.ones_like(inside) if progress < self.begin else ~self.criterion(off, inside)
            distance = squared(one.pair.fixed.data, one.moved.data)
            terms = {
                "image": (kept * distance).mean() / 2,
                "inverse": self.inverse * (kept * inside * off).mean() / 2,
                "diffusion": (self.regularity / 2 * Diffusion())(one),
            }
            losses = {name: losses.get(name, 0) + value for name, value in terms.items()}
        return losses


@dataclass(frozen=True)
class ByDisagreement:
    """A register that marks where another one, asked both ways, disagrees with itself.

    Attributes:
        register: the other.
        criterion: says where.
    """

    register: Any
    criterion: Disagreement = Disagreement()

    def __call__(self, fixed: Image, moving: Image) -> Alignment:
        there, back = (self.register(*ways).transform for ways in ((fixed, moving), (moving, fixed)))
        alignment = Alignment(Pair(fixed, moving), there)
        marked = self.criterion(self.criterion.distance(there, back, alignment), foreground(alignment))
        return Alignment(alignment.pair, there, {MAP: Image(marked.to(fixed.data), fixed.grid)})
