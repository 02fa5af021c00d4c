"""Quality control: whether a result looks failed, judged by the images alone and whatever their contrast."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair
from pullback.data import normalised
from pullback.energies import NMI
from pullback.metrics import Dice, foreground
from pullback.numerics.random import make_generator
from pullback.numerics.rotation import uniform
from pullback.solvers import Levels, within_view
from pullback.space import Affine, Image, Transform, pull

STANDS_OUT = 8.0
"""Standard deviations above chance: 20 right results on brains, heads, hippocampi, slices and a kidney had 9 to 167, 12
wrong ones (upside down, mirrored, noise, brain against histology) at most 7. A right one of another stain, white
around the tissue, had 4: rather one alarm too many."""
MAY_FALL = 0.3
"""Share of the similarity that may be lost: an affine stage cost one good pair a fifth, what loses more did harm."""
MAY_FOLD = 0.05
"""Share of the foreground: networks without any care for folding leave 3 to 4 %, solvers none."""
IN_VIEW = 0.5
"""Share of the smaller of fixed foreground and moving view: below it most was matched with nothing."""
MAY_MISS = 0.05
"""Of Dice: labels that overlap less by more were led astray, whatever the images say."""
SIMILARITY = NMI()
RESOLUTION = Levels(coarsest=32, most=60_000)
RANDOM = 24  # rotations


@dataclass(frozen=True)
class Verdict:
    """The judgement of a result.

    Attributes:
        score: 0 … 1, the worst of all criteria; below 0.5 the result looks failed.
        reasons: in words, why it looks failed; empty where it does not.
        numbers: the criteria, by name.
    """

    score: float
    reasons: tuple[str, ...]
    numbers: Mapping[str, float]

    @property
    def passed(self) -> bool:
        return not self.reasons


def verdict(before: Alignment, after: Alignment) -> Verdict:
    """Judge the alignment `after` of one pair by the images, whatever their contrast.

    The criteria are the similarity against chance and against `before`, folding, the view, and the overlap of labels
    where the pair has them. Chance is the normalised mutual information that random rotations about the middle of the
    foreground leave of the linear part of the transform. A deformation can make any images alike, so the linear part
    has to stand out by itself.
    """
    pair, inside = _seen(after.pair)
    points = inside.grid.to_world(inside.data[0, 0].nonzero().T.double().cpu()[None])
    linear = _linear(after.transform, points)
    chance = torch.tensor([_similarity(pair, linear @ turn) for turn in _turns(points)], dtype=torch.float64)
    sigma = max(float(chance.std()), 1e-6)
    was, now = _similarity(pair, before.transform), _similarity(pair, after.transform)
    lit = foreground(after) & (after.pair.fixed.data > after.pair.fixed.data.min()).any(1, keepdim=True)
    folded = float(((after.jacobian <= 0) & lit).sum()) / max(float(lit.sum()), 1)
    numbers = {
        "above chance": (_similarity(pair, linear) - float(chance.mean())) / sigma,
        "similarity before": was,
        "similarity after": now,
        "folded share": folded,
        "share in view": _in_view(after, lit),
    }
    dice = [Dice()(alignment).get("dice") for alignment in (before, after)]
    numbers |= {f"dice {side}": n for side, n in zip(("before", "after"), dice, strict=True) if n is not None}
    return _judged(numbers)


def _judged(numbers: Mapping[str, float]) -> Verdict:
    above, seen, folded = numbers["above chance"], numbers["share in view"], numbers["folded share"]
    was, now = numbers["similarity before"], numbers["similarity after"]
    meant, met = (numbers.get(f"dice {side}", 0.0) for side in ("before", "after"))
    lost = max(0.0, 1 - now / was) if was > 0 else 0.0
    looks = {  # 0.5 is where each fails
        f"the images match little better than by chance: {above:.1f} σ above it, {STANDS_OUT:g} are expected": (
            above / STANDS_OUT / 2
        ),
        f"the images are less alike than before, by {100 * lost:.0f} %": 1 - lost / MAY_FALL / 2,
        f"{100 * folded:.1f} % of the foreground folds, {100 * MAY_FOLD:g} % are allowed": 1 - folded / MAY_FOLD / 2,
        f"the labels overlap less than before: Dice {met:.3f}, it was {meant:.3f}": 1 - (meant - met) / MAY_MISS / 2,
        f"only {100 * seen:.0f} % of what both images could share is in view": seen / IN_VIEW / 2,
    }
    reasons = tuple(reason for reason, score in looks.items() if score < 0.5)
    score = min(max(0.0, min(1.0, score)) for score in looks.values())
    return Verdict(round(score, 3), reasons, {name: round(value, 4) for name, value in numbers.items()})


def _seen(pair: Pair) -> tuple[Pair, Image]:
    """Return both images, coarse, with the fixed foreground as the fixed mask, and that foreground as an image."""
    images = Pair(normalised(pair.fixed), normalised(pair.moving))
    lit = (images.fixed.data > 0).any(1, keepdim=True)
    lit = lit if pair.fixed.mask is None else lit & pair.fixed.mask
    coarse = list(RESOLUTION(images))[-1]
    still = Affine.identity(pair.fixed.grid.ndim)
    near = pull(Image(lit.to(pair.fixed.data), pair.fixed.grid), still, onto=coarse.fixed)
    mask = near.data > 0.5 * near.data.max()
    fixed = replace(coarse.fixed, mask=mask)
    return Pair(fixed, within_view(coarse.moving)), Image(mask.float(), fixed.grid)


def _similarity(pair: Pair, transform: Transform) -> float:
    return 1 - float(SIMILARITY(Alignment(pair, transform)))


def _linear(transform: Transform, points: Tensor) -> Affine:
    """Return the affine map nearest to `transform` at `points` `(1, d, N)`."""
    there = transform.at(points)[0].double()
    known = torch.cat([points[0], torch.ones_like(points[0, :1])])
    matrix = torch.eye(len(known), dtype=torch.float64)
    matrix[:-1] = torch.linalg.lstsq(known.T, there.T, driver="gelsd").solution.T
    return Affine(matrix)


def _turns(points: Tensor) -> list[Affine]:
    """Return random rotations about the middle of `points` `(1, d, N)`."""
    return [
        Affine.about(rotation, points[0].mean(-1)) for rotation in uniform(points.shape[1], RANDOM, make_generator(0))
    ]


def _in_view(after: Alignment, lit: Tensor) -> float:
    """Return the share of the smaller of fixed foreground and moving view that the transform brings together."""
    moving = after.pair.moving
    everywhere = Image(torch.ones_like(moving.data[:, :1]), moving.grid)
    seen = pull(everywhere, after.transform, onto=after.pair.fixed).data > 0.5
    voxels = [float(torch.linalg.det(grid.affine).abs()) for grid in (after.pair.fixed.grid, moving.grid)]
    smaller = min(float(lit.sum()) * voxels[0], moving.data[:, :1].numel() * voxels[1])
    return min(1.0, float((seen & lit).sum()) * voxels[0] / max(smaller, 1e-12))
