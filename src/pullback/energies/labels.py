"""Differences of labels, voxel by voxel: energies for segmentation guidance."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.alignment import Alignment
from pullback.energies.energy import Energy
from pullback.energies.overlap import soft_labels


@dataclass(frozen=True)
class LabelMSE(Energy):
    """The mean squared difference of labels, of each as an image of 0 and 1: over the pair's labels and all voxels.

    Chen et al. 2022 (TM-TVF), eq. 2. Labels are pulled linearly, as in `SoftDice`. A large label weighs more than a
    small one, by its surface, unless rare ones are given a greater weight.

    Attributes:
        rare: r, by which a label that fills the share f of the fixed images weighs f^−r, with a mean weight of 1.
        background: whether it counts as a label: what is left of 1, also beyond the moving image.
    """

    rare: float = 0.0
    background: bool = False

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        fixed, moved = soft_labels(alignment)
        if self.background:
            fixed, moved = with_background(fixed), with_background(moved)
        wrong = (moved - fixed).square()
        if self.rare:
            counts = fixed.sum((0, *range(2, fixed.ndim)))
            wrong = wrong * class_weights(counts, self.rare).view(1, -1, *[1] * (fixed.ndim - 2))
        return {"label mse": wrong.mean()}


def with_background(labels: Tensor) -> Tensor:
    """Return soft labels `(B, labels, *spatial)` with background, which is what is left of 1, before them."""
    return torch.cat([1 - labels.sum(1, keepdim=True), labels], 1)


def class_weights(counts: Tensor, power: float) -> Tensor:
    """Return weights of classes that fall with how often they are met, counts^−power, with a mean of 1.

    Args:
        counts: `(…, classes)`, of voxels or cases.
        power: 0 weighs all alike, 1 all voxels of a class together as those of any other.

    Returns:
        `(…, classes)`; a class that is never met weighs 0, and is not counted in the mean.
    """
    met = counts > 0
    weights = torch.where(met, counts.clamp(min=torch.finfo(counts.dtype).tiny), 1) ** -power * met
    mean = weights.sum(-1, keepdim=True) / met.sum(-1, keepdim=True).clamp(min=1)
    return weights / mean.where(mean > 0, 1)
