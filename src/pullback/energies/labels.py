"""Differences of labels, or of their bounding boxes, voxel by voxel: energies for segmentation guidance."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair
from pullback.energies.energy import Energy
from pullback.energies.overlap import soft_labels
from pullback.errors import InputError
from pullback.numerics.boxes import extents, indicators, with_error
from pullback.space import Boxes, Image, Labels, pull


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


@dataclass(frozen=True)
class BoxMSE(Energy):
    """The mean squared difference of the bounding boxes of labels, each as an image of 0 and 1.

    A mean over labels and voxels, as `LabelMSE` is of the labels themselves (Schumacher et al. 2022). The boxes are
    those of the pair, where it has some, else the tight ones of its labels, made on each image's own grid; the moving
    ones are pulled linearly, so that gradients reach the transform. A label that one image lacks is left out.

    Attributes:
        error: of an annotator: each side of a box is moved by up to this share of the box's length, drawn once for each
            structure of an image.
        seed: of that.
        soft: a voxel gets the share of it that a box covers. Else voxels are in or out, and a side shorter than
            0.5 / `error` voxels never changes.

    Raises:
        InputError: an error below 0, or of 0.5 or more, by which sides would meet.
    """

    error: float = 0.0
    seed: int = 0
    soft: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.error < 0.5:
            raise InputError(f"BoxMSE: an error from 0, and less than 0.5 of a box, expected, got {self.error:g}")

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        """Return the mean as `box mse`.

        Raises:
            InputError: as of `ready`.
        """
        return self.ready(alignment.pair).terms(alignment)

    def ready(self, pair: Pair) -> "ReadyBoxMSE":
        """Return the energy with the boxes of this pair.

        Raises:
            InputError: a side has neither boxes nor labels, or no label has a box on both.
        """
        fixed_side = (pair.fixed, pair.fixed_boxes, pair.fixed_labels)
        sides = (fixed_side, (pair.moving, pair.moving_boxes, pair.moving_labels))
        one, two = (_boxed_values(boxes, labels) for _, boxes, labels in sides)
        if one is None or two is None:
            raise InputError(
                f"{pair.name or 'a pair'}: boxes or labels of both images are needed to be guided by; give them, or "
                f"take an energy of intensities alone"
            )
        values = one[torch.isin(one, two)]
        fixed, moving = (self._images(*side, values) for side in sides)
        known = (fixed.flatten(2).any(2) & moving.flatten(2).any(2)).to(moving)  # (B, L)
        if not known.any():
            raise InputError(
                f"{pair.name or 'a pair'}: no label has a box in both images; nothing can be guided by them"
            )
        weights = known * len(values) / known.sum(1, keepdim=True).clamp(min=1)
        return ReadyBoxMSE(fixed, Image(moving, pair.moving.grid), weights)

    def _images(self, image: Image, boxes: Boxes | None, labels: Labels | None, values: Tensor) -> Tensor:
        """Return the boxes of one side as images of its grid, `(B, L, *spatial)`."""
        if boxes is not None:
            faces = boxes.on(image.grid, values)
        else:
            assert labels is not None
            faces = extents(labels.data, values)
        if self.error:
            faces = with_error(faces, values, self.error, self.seed)
        return indicators(faces, image.grid.shape, self.soft).to(image.data)


@dataclass(frozen=True, eq=False)
class ReadyBoxMSE(Energy):
    """The energy `BoxMSE` of a pair whose boxes are known as images.

    Attributes:
        fixed: `(B, labels, *spatial)`.
        moving: the same of the moving image, on its grid.
        weights: of the labels, `(B, labels)`: their mean is 1, and 0 for those that one side lacks.
    """

    fixed: Tensor
    moving: Image
    weights: Tensor

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        moved = pull(self.moving, alignment.transform, onto=alignment.pair.fixed).data
        weights = self.weights.view(*self.weights.shape, *[1] * alignment.pair.fixed.grid.ndim)
        return {"box mse": ((moved - self.fixed).square() * weights).mean()}


def _boxed_values(boxes: Boxes | None, labels: Labels | None) -> Tensor | None:
    """Return the labels above background of which an image has boxes, sorted, or None of an image without any."""
    if boxes is not None:
        values = boxes.values
    elif labels is not None:
        values = labels.data.unique()
    else:
        return None
    return values[values > 0].long().sort().values


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
