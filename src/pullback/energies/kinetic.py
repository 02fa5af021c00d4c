"""Kinetic energy: how far a motion goes."""

from dataclasses import dataclass

from torch import Tensor

from pullback.alignment import Alignment
from pullback.energies.regularity import Regularity
from pullback.numerics.kernel import Kernel


@dataclass(frozen=True)
class Kinetic(Regularity):
    """The kinetic energy ½ ⟨v, K⁻¹ v⟩, a mean over time, voxels and batch, and a sum over channels.

    Beg et al. 2005 (LDDMM). v is in the kernel's unit per unit of time, so that its square is a squared length in
    voxels, mm or sides. A `Velocity` or `Geodesic` has one velocity for all time, a `Flow` of N pieces N times each of
    them. Other fields count as a motion at an even pace along their displacement, and other transforms along theirs on
    the fixed grid.
    """

    kernel: Kernel

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        fixed = alignment.pair.fixed
        velocities, grid = alignment.transform.motion_on(fixed.grid)
        v = velocities.flatten(0, 1).to(fixed.data.device)  # (T·B, d, …)
        momentum = self.kernel.sharpen(v, grid.spacing.tolist())
        return {"kinetic": (v * momentum).sum(1).mean() / 2}
