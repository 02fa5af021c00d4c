"""Quality control: whether a result looks failed, judged by the images alone and whatever their contrast."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair
from pullback.data import normalised
from pullback.energies import NMI
from pullback.errors import InputError
from pullback.metrics import Dice, foreground
from pullback.solvers import Levels, within_view
from pullback.solvers.initialise import foreground as standing_out
from pullback.solvers.rivals import Rivals
from pullback.space import Affine, Image, Transform, pull

LEADS = 0.25
"""Of the lead over the best rival. `benchmarks/verdict.py` chose it, and the next two, on one half of its pairs, and
counts on the other how often they are wrong."""
HELD = 0.33
"""Share of what the answer would gain on the nearest peak: below it, it lies on a slope, or beside."""
MIRRORED = 1.3
"""Share of the answer's gain that its mirror image may have: people are nearly symmetric, and differ."""
MAY_FALL = 0.3
"""Share of the similarity that may be lost: an affine stage cost one good pair a fifth, what loses more did harm."""
MAY_FOLD = 0.05
"""Share of the foreground: networks without any care for folding leave 3 to 4 %, solvers none."""
IN_VIEW = 0.5
"""Share of the smaller foreground: below it most was matched with nothing."""
CONTRAST = 0.05
"""Of intensities within a mask to those of its image, as standard deviations: below it there is nothing to align."""
MAY_LACK = 1 / 3
"""Share of the foreground that a map may mark as without a counterpart: above it, what is usual was marked."""
MAY_MISS = 0.05
"""Of Dice: labels that overlap less by more were led astray, whatever the images say."""
LACKING = "non_correspondence"
SIMILARITY = NMI()
RESOLUTION = Levels(coarsest=32, most=60_000)
RIVALS = Rivals()


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

    The criteria are the lead over rivals, whether the answer lies on a peak, its mirror image, the similarity against
    `before`, folding, the foreground in view, the contrast within masks, what a map marks as without a counterpart, and
    the overlap of labels where the pair has them. A deformation can make any images alike, so the rivals are those of
    its linear part (`Rivals`).
    """
    images = Pair(normalised(after.pair.fixed), normalised(after.pair.moving))
    coarse = list(RESOLUTION(images))[-1]
    pair, inside = _seen(images, coarse)
    points = inside.grid.to_world(inside.data[0, 0].nonzero().T.double().cpu()[None])
    standing = RIVALS(coarse, _linear(after.transform, points.to(after.pair.fixed.data.device)))
    was, now = _similarity(pair, before.transform), _similarity(pair, after.transform)
    lit = foreground(after) & (after.pair.fixed.data > after.pair.fixed.data.min()).any(1, keepdim=True)
    folded = float(((after.jacobian <= 0) & lit).sum()) / max(float(lit.sum()), 1)
    numbers = {
        "lead": standing.lead,
        "held": standing.held,
        "mirrored": standing.mirrored,
        "similarity before": was,
        "similarity after": now,
        "folded share": folded,
        "share in view": _in_view(coarse, after.transform),
        "contrast within masks": min(_contrast(image) for image in after.pair.images),
    }
    if LACKING in after.maps:
        marked = (after.maps[LACKING].data > 0.5) & lit
        numbers["share without counterpart"] = int(marked.sum()) / max(int(lit.sum()), 1)
    dice = [Dice()(alignment).get("dice") for alignment in (before, after)]
    numbers |= {f"dice {side}": n for side, n in zip(("before", "after"), dice, strict=True) if n is not None}
    return _judged(numbers)


def _judged(numbers: Mapping[str, float]) -> Verdict:
    lead, held, mirrored = (numbers[name] for name in ("lead", "held", "mirrored"))
    seen, folded, contrast = (numbers[name] for name in ("share in view", "folded share", "contrast within masks"))
    was, now = numbers["similarity before"], numbers["similarity after"]
    lacking = numbers.get("share without counterpart", 0.0)
    meant, met = (numbers.get(f"dice {side}", 0.0) for side in ("before", "after"))
    lost = max(0.0, 1 - now / was) if was > 0 else 0.0
    looks = {  # 0.5 is where each fails
        f"the images would lie on each other as well in another way: a lead of {lead:.2f}, {LEADS:g} is expected": (
            lead / LEADS / 2
        ),
        f"a small motion would make the images match much better: {100 * held:.0f} % of it is reached": held / HELD / 2,
        f"the mirror image matches better, by {100 * (mirrored - 1):.0f} %: flipped left to right?": (
            1 - (mirrored - 1) / (MIRRORED - 1) / 2
        ),
        f"within the masks there is nothing to align: {100 * contrast:.1g} % of the contrast of the image": (
            contrast / CONTRAST / 2
        ),
        f"the images are less alike than before, by {100 * lost:.0f} %": 1 - lost / MAY_FALL / 2,
        f"{100 * folded:.1f} % of the foreground folds, {100 * MAY_FOLD:g} % are allowed": 1 - folded / MAY_FOLD / 2,
        f"the labels overlap less than before: Dice {met:.3f}, it was {meant:.3f}": 1 - (meant - met) / MAY_MISS / 2,
        f"{100 * lacking:.0f} % of the foreground is marked as without a counterpart: β (chosen.json of the run) is "
        f"below the residual that is usual here; train with a larger one, or on such images": (
            1 - lacking / MAY_LACK / 2
        ),
        f"only {100 * seen:.0f} % of the foreground that both images could share is in view": seen / IN_VIEW / 2,
    }
    reasons = tuple(reason for reason, score in looks.items() if score < 0.5)
    score = min(max(0.0, min(1.0, score)) for score in looks.values())
    return Verdict(round(score, 3), reasons, {name: round(value, 4) for name, value in numbers.items()})


def _seen(images: Pair, coarse: Pair) -> tuple[Pair, Image]:
    """Return both coarse images with the fixed foreground as the fixed mask, and that foreground as an image."""
    lit = (images.fixed.data > 0).any(1, keepdim=True)
    lit = lit if images.fixed.mask is None else lit & images.fixed.mask
    still = Affine.identity(images.fixed.grid.ndim)
    near = pull(Image(lit.to(images.fixed.data), images.fixed.grid), still, onto=coarse.fixed)
    mask = near.data > 0.5 * near.data.max()
    fixed = replace(coarse.fixed, mask=mask)
    return Pair(fixed, within_view(coarse.moving)), Image(mask.float(), fixed.grid)


def _similarity(pair: Pair, transform: Transform) -> float:
    return 1 - float(SIMILARITY(Alignment(pair, transform)))


def _linear(transform: Transform, points: Tensor) -> Affine:
    """Return the affine map nearest to `transform` at `points` `(1, d, N)`."""
    there, points = transform.at(points)[0].double().cpu(), points.cpu()
    known = torch.cat([points[0], torch.ones_like(points[0, :1])])
    matrix = torch.eye(len(known), dtype=torch.float64)
    matrix[:-1] = torch.linalg.lstsq(known.T, there.T, driver="gelsd").solution.T
    return Affine(matrix)


def _in_view(pair: Pair, transform: Transform) -> float:
    """Return the share of the smaller foreground that the transform brings into the moving field of view."""
    lit, other = (_lit(image) for image in pair.images)
    everywhere = Image(torch.ones_like(pair.moving.data[:, :1]), pair.moving.grid)
    seen = pull(everywhere, transform, onto=pair.fixed).data[0, 0] > 0.5
    voxels = [float(torch.linalg.det(image.grid.affine).abs()) for image in pair.images]
    smaller = min(float(lit.sum()) * voxels[0], float(other.sum()) * voxels[1])
    return min(1.0, float((seen & lit).sum()) * voxels[0] / smaller) if smaller > 0 else 0.0


def _lit(image: Image) -> Tensor:
    """Return what stands out of the background, or all where nothing does: `(*spatial)` bool."""
    try:
        return standing_out(image) > 0
    except InputError:
        return torch.ones_like(image.data[0, 0], dtype=torch.bool)


def _contrast(image: Image) -> float:
    """Return the standard deviation within the mask as a share of that of the whole image; 1 without a mask."""
    if image.mask is None or not image.mask.any():
        return 1.0
    shares = [float(one[image.mask[0, 0]].std(correction=0) / one.std(correction=0)) for one in image.data[0].double()]
    return max(shares)
