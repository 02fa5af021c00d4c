"""Pre-alignment as an arm of any study."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from rich.console import Console

from pullback.alignment import Register
from pullback.data import Prealigned
from pullback.study.arms import Arm, Trial, Unit, is_stored
from pullback.training import Row

FOLDER = "prealigned"
"""In a study's folder, where transforms of pre-alignments are kept."""


@dataclass(frozen=True)
class PrealignedArm:
    """Another arm, on pairs that a linear register has aligned before: a network also learns from such pairs.

    Arms of one study with one register share its transforms, each of which is computed once.

    Attributes:
        arm: on pairs of images.
        register: as of `Prealigned`.
    """

    arm: Arm
    register: Register

    def unit(self, trial: Trial) -> Unit:
        """Return the work of the other arm, on the trial's data pre-aligned."""
        root = trial.data.root if is_stored(trial.data) else ""
        data = replace(trial.data, root="") if root else trial.data
        return self.arm.unit(replace(trial, data=Prealigned(data, self.register, str(trial.out / FOLDER), root)))

    def rows(self, unit: Unit, console: Console) -> Iterable[Row]:
        """Make the rows of the other arm, whose work its units are."""
        return self.arm.rows(unit, console)
