"""Labels and landmarks as a part of what the stages of a registration descend."""

from dataclasses import dataclass, replace

from pullback.alignment import Objective, Pair
from pullback.energies import Energy
from pullback.space import Affine, Linear, pull, push


@dataclass(frozen=True, eq=False)
class Constraint:
    """An energy of labels and landmarks, and the pair that has these; its images are not looked at.

    Attributes:
        energy: of labels and points alone, such as `SoftDice() + 0.01 * LandmarkMSE()`.
        known: one pair, with all that the energy asks for.
    """

    energy: Energy
    known: Pair

    def on(self, level: Pair, begin: Linear) -> Pair:
        """Return a level of the images with labels and points, where `begin`, fixed → moving, puts the moving ones.

        Labels are taken at the voxels of the level, the nearest ones; points go to the world of the level's moving
        image.
        """
        known, still = self.known, Affine.identity(level.fixed.grid.ndim)
        return replace(
            level,
            fixed_labels=known.fixed_labels and pull(known.fixed_labels, still, onto=level.fixed.grid),
            moving_labels=known.moving_labels and pull(known.moving_labels, begin, onto=level.moving.grid),
            fixed_points=known.fixed_points,
            moving_points=known.moving_points and push(known.moving_points, begin.inverse()),
        )


def constrained(energy: Energy, level: Pair, begin: Linear, constraint: Constraint | None) -> Objective:
    """Return what a stage descends on a level, whose moving image `begin` has placed, under a constraint if any."""
    if constraint is None:
        return energy.on(level)
    return (energy + constraint.energy).on(constraint.on(level, begin))
