"""Instance optimisation: a solver as a register."""

from dataclasses import dataclass

from pullback.alignment import Alignment, Pair, one_by_one
from pullback.energies import Energy
from pullback.solvers.descend import Descend
from pullback.space import Displacement, Image, Transform


@dataclass(frozen=True)
class InstanceOptimisation:
    """A register that descends `energy` by the parameters of a transform, such as a field."""

    energy: Energy
    solver: Descend

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
        """Align two images from `start`, or from no motion, by a displacement; each pair of a batch by itself."""
        return one_by_one(self._one, fixed, moving, start)

    def _one(self, fixed: Image, moving: Image, start: Transform | None) -> Alignment:
        pair = Pair(fixed, moving)
        begin = Displacement.identity(fixed.grid, fixed.data) if start is None else start
        found, stats = self.solver(self.energy.on(pair), start=begin)
        return Alignment(pair, found, stats=stats)
