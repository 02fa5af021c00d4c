"""Losses of metric learning: what shows one thing shall lie together, all else apart.

Each is called with embeddings `(B, k)` of length 1 and the numbers `(B,)` of what they show, and answers with a scalar.
Distances are Euclidean, d = ‖a − b‖, at most 2.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.errors import InputError

TINY = 1e-12  # the root of 0 has no slope


def distances(one: Tensor, other: Tensor) -> Tensor:
    """Return the distances of embeddings `(B, k)` and `(P, k)`, `(B, P)`, with a slope also where they are equal."""
    return ((one[:, None] - other[None]).square().sum(-1) + TINY).sqrt()


def same(numbers: Tensor) -> Tensor:
    """Return which two of a batch are different images of one number, `(B, B)` bool."""
    return (numbers[:, None] == numbers[None]) & ~torch.eye(len(numbers), dtype=torch.bool, device=numbers.device)


@dataclass(frozen=True)
class Margin:
    """A margin between what is of one number and what is of another.

    Attributes:
        size: of distances; 1 is an angle of 60°.
        reach: of numbers that are in order, the difference from which on the margin is whole; below it the margin is as
            large as the difference is; 0 leaves it whole for all.

    Raises:
        InputError: a margin of 2 or more, which no embeddings of length 1 keep, or a number below 0.
    """

    size: float = 1.0
    reach: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.size < 2 or self.reach < 0:
            raise InputError(f"Margin: a size in [0, 2) and a reach of 0 or more, got {self.size}, {self.reach}")

    def between(self, numbers: Tensor) -> Tensor:
        """Return the margins of all pairs of a batch, `(B, B)`."""
        apart = (numbers[:, None] - numbers[None]).abs().double()
        share = (apart / self.reach).clamp(max=1) if self.reach else torch.ones_like(apart)
        return self.size * share


@dataclass(frozen=True)
class SemiHard:
    """The triplet loss (eq. 2) of semi-hard negatives (Schroff et al. 2015), as TensorFlow Addons mines them.

    Of every two of one number the negative is the nearest that is farther than the positive; where there is none, the
    farthest there is. The loss is the mean over all these.

    Attributes:
        margin: m.
    """

    margin: Margin = Margin()

    def __call__(self, embeddings: Tensor, numbers: Tensor) -> Tensor:
        apart, alike = distances(embeddings, embeddings), same(numbers)
        negative = numbers[:, None] != numbers[None]
        has = alike & negative.any(1, keepdim=True)  # (A, P)
        if not bool(has.any()):
            return 0 * embeddings.sum()
        farther = negative[:, None] & (apart[:, None] > apart[:, :, None])  # (A, P, N)
        every = apart[:, None].expand_as(farther)
        near = every.masked_fill(~farther, torch.inf).min(2).indices
        far = every.masked_fill(~negative[:, None].expand_as(farther), -torch.inf).max(2).indices
        chosen = torch.where(farther.any(2), near, far)  # (A, P)
        margins = self.margin.between(numbers).to(apart).gather(1, chosen)
        return (apart - apart.gather(1, chosen) + margins).clamp(min=0)[has].mean()


@dataclass(frozen=True)
class Hard:
    """The triplet loss (eq. 2) of the farthest positive and the nearest negative of each image, a mean over images.

    Attributes:
        margin: m.
    """

    margin: Margin = Margin()

    def __call__(self, embeddings: Tensor, numbers: Tensor) -> Tensor:
        apart, alike = distances(embeddings, embeddings), same(numbers)
        negative = numbers[:, None] != numbers[None]
        has = alike.any(1) & negative.any(1)
        if not bool(has.any()):
            return 0 * embeddings.sum()
        positive = apart.masked_fill(~alike, -torch.inf).max(1).values
        nearest, which = apart.masked_fill(~negative, torch.inf).min(1)
        margins = self.margin.between(numbers).to(apart).gather(1, which[:, None])[:, 0]
        return (positive - nearest + margins).clamp(min=0)[has].mean()


@dataclass(frozen=True)
class Contrastive:
    """The contrastive loss (eq. 1): ½ d² of two of one number, ½ max(0, m − d)² of two others.

    It is the mean of both kinds' means, for there are many more pairs of the second; where one kind is missing, of the
    other.

    Attributes:
        margin: m.
    """

    margin: Margin = Margin()

    def __call__(self, embeddings: Tensor, numbers: Tensor) -> Tensor:
        apart, alike = distances(embeddings, embeddings), same(numbers)
        negative = numbers[:, None] != numbers[None]
        short = (self.margin.between(numbers).to(apart) - apart).clamp(min=0)
        terms = [apart[alike].square() / 2, short[negative].square() / 2]
        means = [term.mean() for term in terms if len(term)]
        return torch.stack(means).mean() if means else 0 * embeddings.sum()


@dataclass(frozen=True)
class SoftContrast:
    """The cross-entropy of whom an image is most like, where neighbours in the order of numbers count as well.

    Of each image all others of the batch are asked for, by the softmax of their cosines; the answer to learn is a
    Gaussian of the difference of numbers (a soft InfoNCE, not of the paper, which has neighbours for negatives).

    Attributes:
        temperature: of the softmax.
        spread: deviation of the Gaussian, in numbers; 0 for the same number alone.

    Raises:
        InputError: no temperature above 0, or a spread below 0.
    """

    temperature: float = 0.1
    spread: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0 or self.spread < 0:
            raise InputError(f"SoftContrast: {self.temperature}, {self.spread}: above 0, and 0 or more, expected")

    def __call__(self, embeddings: Tensor, numbers: Tensor) -> Tensor:
        itself = torch.eye(len(numbers), dtype=torch.bool, device=numbers.device)
        scores = (embeddings @ embeddings.mT / self.temperature).masked_fill(itself, -torch.inf)
        apart = (numbers[:, None] - numbers[None]).to(embeddings)
        wanted = torch.exp(-((apart / self.spread) ** 2) / 2) if self.spread else (apart == 0).to(embeddings)
        wanted = wanted.masked_fill(itself, 0)
        has = wanted.sum(1) > 0
        if not bool(has.any()):
            return 0 * embeddings.sum()
        share = wanted[has] / wanted[has].sum(1, keepdim=True)
        logs = scores.log_softmax(1)[has].masked_fill(itself[has], 0)
        return -(share * logs).sum(1).mean()
