"""How networks learn: the plain ways. A published way lives in its method's module."""

from dataclasses import dataclass

from torch import Tensor

from pullback.alignment import Alignment, Pair, Register
from pullback.energies import LNCC, Diffusion, Energy


@dataclass(frozen=True)
class Unsupervised:
    """The energy of the guess is the loss. VoxelMorph (Balakrishnan et al. 2019, eq. 4) with its default energy."""

    energy: Energy = LNCC(9) + 1.0 * Diffusion()

    def __call__(self, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]:
        return self.energy.terms(Alignment(pair, register(pair.fixed, pair.moving).transform))
