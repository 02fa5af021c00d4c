"""Consensus of label maps of one image: majority, STAPLE, SIMPLE, and votes with weights.

STAPLE: Warfield, Zou & Wells 2004, by expectation maximisation, one label at a time. SIMPLE: Langerak et al. 2010, with
weights that fall with the distance to the consensus in place of raters that are dropped.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.space import Labels, around

ROUNDING = 9  # decimals of a share of votes: what is equal but for rounding is a tie
SURE = 0.99999  # sensitivity of a rater that was never wrong, less than 1 so that it can be overruled


@dataclass(frozen=True, eq=False)
class Consensus:
    """Label map that is made of several.

    Attributes:
        labels: `(1, 1, *spatial)`.
        weights: of the label maps that it was made of, `(A,)` float64: shares of the vote, 1 in sum, or of STAPLE their
            sensitivities, means over labels.
        probability: of the label at each voxel, background too, `(1, 1, *spatial)` float32: the share of its votes.
    """

    labels: Labels
    weights: Tensor
    probability: Tensor


def majority(candidates: Labels) -> Consensus:
    """Return the label of most of the label maps `(A, 1, *spatial)` at each voxel; background where it is a tie.

    Raises:
        InputError: there are none.
    """
    return weighted(candidates, torch.ones(candidates.batch))


def weighted(candidates: Labels, weights: Tensor) -> Consensus:
    """Return the label with the largest share of weighted votes, background among them (DeepSTAPLE's eq. 5).

    Of one label this is its share of the votes above ½. A tie is background, or else the lowest label.

    Args:
        candidates: `(A, 1, *spatial)`.
        weights: `(A,)`, 0 or more, of any sum above 0.

    Raises:
        InputError: no label maps, or not as many weights of this kind.
    """
    if candidates.batch < 1 or weights.shape != (candidates.batch,) or not (weights >= 0).all() or weights.sum() <= 0:
        raise InputError(
            f"consensus: a weight of 0 or more for each label map, and one above 0, expected, got {weights.tolist()} "
            f"for {candidates.batch}"
        )
    known = values_of(candidates)
    shares = (weights.double() / weights.double().sum()).to(candidates.data.device)
    votes = torch.stack([torch.tensordot(shares, (candidates.data == v).double(), 1) for v in [0, *known.tolist()]])
    best, which = votes.round(decimals=ROUNDING).max(0)  # the first of equals: background, then the lowest
    values = torch.cat([known.new_zeros(1), known])
    found = values[which].to(candidates.data.dtype)[None]
    return Consensus(Labels(found, candidates.grid), shares.cpu(), best.float()[None])


def simple(candidates: Labels, sharpness: float = 8.0, rounds: int = 5) -> Consensus:
    """Return the vote in which each label map weighs by its Dice with the vote before, which began as the majority.

    Args:
        candidates: `(A, 1, *spatial)`.
        sharpness: weights are exp(sharpness · Dice), the mean over labels.
        rounds: of weighing anew.

    Raises:
        InputError: there are none.
    """
    found = majority(candidates)
    for _ in range(rounds):
        found = weighted(candidates, (sharpness * dice_with(candidates, found.labels)).softmax(0))
    return found


def staple(candidates: Labels, cropped: bool = False, steps: int = 200) -> Consensus:
    """Return the labels that are more probable than ½, by the performance of each rater that explains all best.

    Warfield et al. 2004, with a rater's sensitivity and specificity for each label by itself, and the share of all
    raters' voxels that have it as its prior. Where several labels are above ½, the most probable one; a tie is the
    lowest.

    Args:
        candidates: `(A, 1, *spatial)`.
        cropped: look only at the box around all that any rater marked. On large backgrounds raters agree about most
            voxels, are all called specific, and STAPLE marks too much.
        steps: of expectation maximisation, at most.

    Raises:
        InputError: there are none.
    """
    if candidates.batch < 1:
        raise InputError("consensus: one label map or more expected, got none")
    marked, values = candidates.data != 0, values_of(candidates)
    found, sure = torch.zeros_like(candidates.data[:1]), torch.full_like(candidates.data[:1], 0.5, dtype=torch.double)
    everywhere = tuple(slice(0, n) for n in candidates.grid.shape)
    box = (..., *(around(marked, candidates.grid) if cropped and marked.any() else everywhere))
    inside, best, none = candidates.data[box], sure[box], torch.ones_like(sure)
    sensitivities = []
    for value in values.tolist():
        probable, sensitivity, _ = performance(inside == value, steps)
        sensitivities.append(sensitivity)
        none[box] = torch.minimum(none[box], 1 - probable)
        found[box] = torch.where(probable > best, value, found[box])
        best.copy_(torch.maximum(best, probable))
    weights = torch.stack(sensitivities).mean(0) if sensitivities else torch.ones(candidates.batch).double()
    probability = torch.where(found == 0, none, sure).float()
    return Consensus(Labels(found, candidates.grid), weights.cpu(), probability)


def performance(marked: Tensor, steps: int = 200, least: float = 1e-12) -> tuple[Tensor, Tensor, Tensor]:
    """Return how probably each voxel is of a label, and the sensitivity and specificity of each rater.

    Args:
        marked: by each rater, `(A, 1, *spatial)` bool.
        steps: of expectation maximisation, at most.
        least: change of any sensitivity or specificity at which it ends.

    Returns:
        `(1, 1, *spatial)` and `(A,)` twice, float64.
    """
    said = marked.flatten(1).double()
    prior = said.mean()
    probable = said.mean(0)
    p = q = said.new_full((len(said),), SURE)
    for _ in range(steps):
        before = p, q
        p = said @ probable / probable.sum().clamp(min=1e-300)
        q = (1 - said) @ (1 - probable) / (1 - probable).sum().clamp(min=1e-300)
        yes = prior * torch.where(marked.flatten(1), p[:, None], 1 - p[:, None]).prod(0)
        no = (1 - prior) * torch.where(marked.flatten(1), 1 - q[:, None], q[:, None]).prod(0)
        probable = yes / (yes + no).clamp(min=1e-300)
        if max(float((p - before[0]).abs().max()), float((q - before[1]).abs().max())) < least:
            break
    return probable.view(1, *marked.shape[1:]), p, q


def dice_with(candidates: Labels, labels: Labels) -> Tensor:
    """Return the Dice of each label map `(A, 1, *spatial)` with one, `(A,)` float64: the mean over all labels met.

    A label that both lack counts as 1. Without any label all are alike, 1.
    """
    values = torch.cat([candidates.data.unique(), labels.data.unique()]).unique()
    each = []
    for value in values[values != 0].tolist():
        one, two = (candidates.data == value).flatten(1), (labels.data == value).flatten(1)
        sizes = (one.sum(1) + two.sum(1)).double()
        each.append(torch.where(sizes > 0, 2 * (one & two).sum(1).double() / sizes.clamp(min=1), 1.0))
    return torch.stack(each).mean(0) if each else candidates.data.new_ones(candidates.batch, dtype=torch.double)


def values_of(candidates: Labels) -> Tensor:
    """Return the labels that any of the label maps has, without background, sorted, `(K,)` int64."""
    values = candidates.data.unique().long()
    return values[values != 0]
