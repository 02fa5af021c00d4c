"""Overlap of labels: energies for segmentation guidance."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.alignment import Alignment
from pullback.energies.energy import Energy
from pullback.errors import InputError
from pullback.numerics.label_volumes import moved_volumes
from pullback.numerics.smooth import cross_mean
from pullback.space import Grid, around
from pullback.space.pull import coordinates


@dataclass(frozen=True)
class SoftDice(Energy):
    """The soft Dice loss: 1 − the mean of 2 Σ p q / (Σ p + Σ q) over the labels that both images have.

    Each label's voxels are pulled as an image of 0 and 1, linearly, so that gradients reach the transform (Milletari et
    al. 2016, with plain sums in the denominator, which make it the metric wherever a voxel is all one label). The sums
    are taken for all labels at once, and memory does not grow with their number.
    """

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        values, pair = shared_labels(alignment), alignment.pair
        assert pair.fixed_labels is not None
        assert pair.moving_labels is not None
        fixed, moving = (_numbered(labels.data, values) for labels in (pair.fixed_labels, pair.moving_labels))
        own = pair.moving_labels.grid
        where = coordinates(own, alignment.transform, pair.fixed.grid, pair.moving.data)
        moved, both = moved_volumes(fixed, moving, where, len(values))
        before, there = (_counts(numbers, len(values)) for numbers in (fixed, moving))
        dice = 2 * both / (before + moved).clamp(min=1e-6)
        known = ((before > 0) & (there > 0)).to(dice)  # a pair of a batch may lack some
        mean = ((dice * known).sum(1) / known.sum(1).clamp(min=1)).mean()
        return {"soft dice": (1 - mean).to(pair.moving.data.dtype)}


def _numbered(labels: Tensor, values: Tensor) -> Tensor:
    """Return labels `(B, 1, *spatial)` by their place among the sorted `values`, from 1; 0 for others."""
    place = torch.searchsorted(values, labels.contiguous()).clamp(max=len(values) - 1)
    return torch.where(values[place] == labels, place + 1, 0)


def _counts(numbers: Tensor, count: int) -> Tensor:
    """Return the numbers of voxels of labels 1 … count, `(B, count)` float64."""
    return torch.stack([each.flatten().bincount(minlength=count + 1)[1:] for each in numbers]).double()


@dataclass(frozen=True)
class SoftHausdorff(Energy):
    """The Hausdorff loss by erosions: how thick the errors of the labels are (Karimi & Salcudean 2019, eq. 8).

    The error (p − q)² is eroded again and again, and what the k-th erosion leaves counts kᵅ. An erosion is the mean
    over a voxel and its neighbours along the axes, of which all above a half is kept and stretched to 0 … 1 again, so
    that gradients pass. In 3D it takes half a voxel off a flat face, roughly, and in 2D 0.6, so k measures how thick an
    error is: a plate of 8 voxels is gone after 8 erosions, a strip in 2D after 7. Errors up to `erosions` voxels thick
    are told apart. The energy is a mean over labels and voxels. Each label is eroded within the box of its errors
    alone, beyond which nothing is left.

    Attributes:
        erosions: number of erosions.
        power: α; the authors' 2.

    Raises:
        InputError: less than one erosion.
    """

    erosions: int = 10
    power: float = 2.0

    def __post_init__(self) -> None:
        if self.erosions < 1:
            raise InputError(f"SoftHausdorff: at least one erosion expected, got {self.erosions}")

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        fixed, moved = soft_labels(alignment)
        wrong = (moved - fixed).square()
        grid = alignment.pair.fixed.grid
        depth = sum((self._depth(each, grid) for each in wrong.split(1, dim=1)), start=moved.new_zeros(()))
        return {"soft hausdorff": depth / wrong.numel()}

    def _depth(self, wrong: Tensor, grid: Grid) -> Tensor:
        """Return the sum over the voxels of one label, `(B, 1, *spatial)`."""
        depth, inside = wrong.new_zeros(()), wrong.detach() > 0
        if not inside.any():
            return depth
        wrong = wrong[(slice(None), slice(None), *around(inside, grid, float(grid.spacing.max())))]
        for k in range(1, self.erosions + 1):
            wrong = (2 * cross_mean(wrong) - 1).clamp(min=0)
            depth = depth + k**self.power * wrong.sum()
        return depth


def soft_labels(alignment: Alignment) -> tuple[Tensor, Tensor]:
    """Return the soft labels of an alignment, which all its energies share.

    Raises:
        InputError: as of `shared_labels`.
    """
    shared_labels(alignment)
    assert alignment.soft_labels is not None
    return alignment.soft_labels


def shared_labels(alignment: Alignment) -> Tensor:
    """Return the labels above background that both images have, `(labels,)` sorted.

    Raises:
        InputError: the pair has no labels on both sides, or none that both have.
    """
    name, found = alignment.pair.name or "a pair", alignment.shared_labels
    if found is None:
        raise InputError(
            f"{name}: labels of both images are needed to be guided by; give them, or take an energy of intensities "
            f"alone"
        )
    if not len(found):
        raise InputError(f"{name}: no label above background is in both images; nothing can be guided by them")
    return found
