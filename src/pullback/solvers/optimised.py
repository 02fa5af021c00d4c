"""A solver as a register."""

from dataclasses import dataclass

from pullback.alignment import Alignment, Pair
from pullback.energies import Energy
from pullback.solvers.descend import Descend
from pullback.space import Displacement, Image


@dataclass(frozen=True)
class Optimised:
    """Instance optimisation: the register that descends `energy` from no motion, by a field on the fixed grid."""

    energy: Energy
    solver: Descend

    def __call__(self, fixed: Image, moving: Image) -> Alignment:
        pair = Pair(fixed, moving)
        return Alignment(pair, self.solver(self.energy.on(pair), start=Displacement.identity(fixed.grid, fixed.data)))
