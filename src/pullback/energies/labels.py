"""Differences of labels, voxel by voxel: energies for segmentation guidance."""

from dataclasses import dataclass

from torch import Tensor

from pullback.alignment import Alignment
from pullback.energies.energy import Energy
from pullback.energies.overlap import soft_labels


@dataclass(frozen=True)
class LabelMSE(Energy):
    """The mean squared difference of labels, of each as an image of 0 and 1: over the pair's labels and all voxels.

    Chen et al. 2022 (TM-TVF), eq. 2. Labels are pulled linearly, as in `SoftDice`, and background is no label. A large
    label weighs more than a small one, by its surface.
    """

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        fixed, moved = soft_labels(alignment)
        return {"label mse": (moved - fixed).square().mean()}
