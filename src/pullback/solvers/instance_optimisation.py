"""Instance optimisation: a solver as a register."""

from dataclasses import dataclass, replace

from pullback.alignment import Alignment, Pair, one_by_one
from pullback.energies import Energy
from pullback.solvers.descend import Descend
from pullback.space import Displacement, Image, Transform

REST = 1e-3  # of the way: what a descent would bring nearer than this is rounding


@dataclass(frozen=True)
class InstanceOptimisation:
    """A register that descends `energy` by the parameters of a transform, such as a field.

    Images that are aligned already, but for rounding, stay where they are (`Descend.rest`).
    """

    energy: Energy
    solver: Descend

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
        """Align two images from `start`, or from no motion, by a displacement; each pair of a batch by itself."""
        return one_by_one(self._one, fixed, moving, start)

    def _one(self, fixed: Image, moving: Image, start: Transform | None) -> Alignment:
        pair = Pair(fixed, moving)
        begin = Displacement.identity(fixed.grid, fixed.data) if start is None else start
        found, stats = replace(self.solver, rest=REST)(self.energy.on(pair), start=begin)
        return Alignment(pair, found, stats=stats)
