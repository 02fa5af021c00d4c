"""Learning to segment: the supervision of a network by labelled images, and what is measured of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pullback.data import Subject
from pullback.errors import InputError
from pullback.space import Labels


@dataclass(frozen=True)
class Segmenting:
    """The supervision of a `Segmenter` by the labels of a `Subject`: cross-entropy, and the soft Dice loss.

    The two of nnU-Net (Isensee et al. 2021), with equal weight.

    Attributes:
        labels: those of the segmenter, in its order; all others count as background.
    """

    labels: tuple[int, ...]

    def __call__(self, network: Callable[..., Tensor], subject: Subject, progress: float) -> dict[str, Tensor]:
        """Return the mean over voxels of −log p of each one's own class, and 1 less the mean soft Dice.

        That is 2 Σ p q / (Σ p + Σ q) of the classes that the image has, background among them.

        Raises:
            InputError: the subject has no labels.
        """
        scores = network(subject.image)
        known = one_hot(_labels_of(subject), self.labels).to(scores)
        sure = scores.softmax(1)
        voxels = tuple(range(2, scores.ndim))
        size = known.sum(voxels)
        dice = 2 * (sure * known).sum(voxels) / (sure.sum(voxels) + size).clamp(min=1e-6)
        there = (size > 0).to(dice)
        return {
            "cross-entropy": F.cross_entropy(scores, known),
            "soft dice": 1 - (dice * there).sum() / there.sum().clamp(min=1),
        }


def one_hot(labels: Labels, values: tuple[int, ...]) -> Tensor:
    """Return each class as an image of 0 and 1, `(B, 1 + values, *spatial)` bool: all else first, then `values`."""
    which = labels.data == torch.tensor(values, device=labels.data.device).view(1, -1, *[1] * labels.grid.ndim)
    return torch.cat([~which.any(1, keepdim=True), which], 1)


@torch.no_grad()
def segmentation_dice(network: Any, subject: Subject, labels: tuple[int, ...]) -> dict[str, float]:
    """Return Dice of the most sure class with the labels of a subject, of each that it has, and their mean.

    Raises:
        InputError: the subject has no labels.
    """
    known = one_hot(_labels_of(subject), labels)
    scores = network(subject.image)
    found = F.one_hot(scores.argmax(1), scores.shape[1]).movedim(-1, 1).bool()
    each = {}
    for n, value in enumerate(labels, start=1):
        size = int(known[:, n].sum())
        if size:
            both = int((known[:, n] & found[:, n]).sum())
            each[f"dice/{value}"] = 2 * both / (size + int(found[:, n].sum()))
    return {"dice": sum(each.values()) / len(each), **each} if each else {}


def _labels_of(subject: Subject) -> Labels:
    if subject.labels is None:
        raise InputError(f"{subject.name or 'an image'}: labels are expected, to learn to segment by")
    return subject.labels
