"""DeepSTAPLE: how far each registered atlas can be trusted, learned while a segmentation network trains.

Weihsbach, Bigalke, Kruse, Hempe & Heinrich, WBIR 2022. The image of a target with the labels of one atlas is a sample.
It has a data parameter, a number whose sigmoid weighs the sample's cost. Where the paper differs from its authors'
code, or is silent, it is decided here:

- As printed (eq. 2), all data parameters fall without end, for costs are positive. The code divides the weights by
  their mean over the batch, so that a sample rises where its cost is below the batch's; so it is here (`balanced`).
- The risk (eq. 3) moves data parameters alone, and is weighed as the cost is; eq. 4 has the natural logarithm.
- Out of line, data parameters learn from the network's answer before its step, not after it, which saves the second of
  two passes.
- Labels of several structures are voted on with background among them; of one label this is eq. 5.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.optim import SparseAdam

from pullback.data.candidates import Candidates
from pullback.energies import class_weights
from pullback.errors import InputError
from pullback.methods.labels.consensus import Consensus, dice_with, weighted
from pullback.methods.method import Method, Paper
from pullback.networks import Network, SegmentationUNet, Segmenter
from pullback.space import pull
from pullback.training import Player, RandomAffine
from pullback.training.segmenting import one_hot

TRUST = Player("trust", ("network.trust.",), lr=0.1, optimiser=SparseAdam)
"""Moves the data parameters of a batch, and no others."""


class TrustedSegmenter(Network):
    """A segmenter, and a data parameter for each label map that it learns from.

    Args:
        ndim: 2 or 3.
        labels: that the segmenter knows; all others are background to it.
        channels: of the image.
        backbone: of the segmenter.
        count: of data parameters; as many as there are label maps, or more.

    Raises:
        InputError: labels as of `Segmenter`.
    """

    def __init__(
        self,
        ndim: int,
        labels: tuple[int, ...],
        channels: int = 1,
        backbone: Callable[[int, int], Any] = SegmentationUNet,
        count: int = 4096,
    ) -> None:
        super().__init__()
        self.segmenter = Segmenter(backbone, labels, ndim, channels)
        self.trust = nn.Embedding(count, 1, sparse=True)
        nn.init.zeros_(self.trust.weight)

    def forward(self, image: Any, numbers: Tensor | None = None) -> Any:
        """Return scores as of `Segmenter`, and with `numbers` of label maps their data parameters too, `(B,)`.

        Raises:
            InputError: a number beyond those there are.
        """
        scores = self.segmenter(image)
        return scores if numbers is None else (scores, self.data_parameters(numbers))

    def data_parameters(self, numbers: Tensor) -> Tensor:
        """Return the data parameters of label maps, `(B,)`.

        Raises:
            InputError: a number beyond those there are.
        """
        count = self.trust.num_embeddings
        if len(numbers) and int(numbers.max()) >= count:
            raise InputError(
                f"label map {int(numbers.max())} of {count} that can be trusted or not; set network.count to "
                f"{int(numbers.max()) + 1} or more"
            )
        return self.trust(numbers)[:, 0]

    @torch.no_grad()
    def consensus(self, candidates: Candidates) -> Consensus:
        """Return the vote of the label maps of one image, by the softmax of their data parameters (eq. 5)."""
        return weighted(candidates.labels, self.data_parameters(candidates.numbers).double().softmax(0).cpu())


@dataclass(frozen=True)
class LearnedTrust:
    """The supervision of a `TrustedSegmenter` by label maps that may be wrong.

    Attributes:
        labels: those of the network.
        inline: one loss for both, the costs by trust. Else the network learns from the cross-entropy of all samples
            alike, and trust from the costs, neither seeing the other.
        balanced: weights are divided by their mean over the batch; else they are as eq. 2 has them.
        risk: less cost where the network marks more (eq. 3), for trust alone.
        size: costs are divided by ln(n + e) + e for n marked voxels (eq. 4).
        rare: a class that fills the share f of the batch weighs f^−rare in what the network learns from, with a mean of
            1 over classes; 0 for none.
        begins: progress at which trust begins to learn.
    """

    labels: tuple[int, ...]
    inline: bool = False
    balanced: bool = True
    risk: bool = True
    size: bool = True
    rare: float = 0.35
    begins: float = 0.0

    @property
    def paced(self) -> bool:
        """Whether it changes with progress."""
        return self.begins > 0

    def __call__(self, network: Callable[..., Any], example: Candidates, progress: float) -> dict[str, Tensor]:
        """Return the weighted costs as `trust`, and out of line the network's `cross-entropy`.

        Raises:
            InputError: as of the network.
        """
        scores, parameters = network(example.image, example.numbers)
        scores = scores.repeat_interleave(example.labels.batch // example.image.batch, 0)
        known = one_hot(example.labels, self.labels)  # (B, 1 + labels, *spatial)
        target, voxels = known.long().argmax(1), tuple(range(1, known.ndim - 1))
        classes = class_weights(known.sum((0, *range(2, known.ndim))).double(), self.rare).to(scores)[target]
        logs = F.cross_entropy(scores, target, reduction="none")  # (B, *spatial)
        weighed = classes * logs
        terms = {} if self.inline else {"cross-entropy": weighed.sum() / classes.sum()}
        if progress < self.begins:
            return terms or {"cross-entropy": weighed.mean()}
        cost = weighed.mean(voxels) if self.inline else logs.detach().mean(voxels)
        if self.risk:
            cost = cost - (scores.detach().argmax(1) > 0).to(cost).mean(voxels)
        if self.size:
            cost = cost / ((known[:, 1:].flatten(1).sum(1) + math.e).log() + math.e).to(cost)
        return terms | {"trust": trust_loss(parameters, cost, self.balanced)}


def trust_loss(parameters: Tensor, cost: Tensor, balanced: bool = True) -> Tensor:
    """Return Σ w c of the samples of a batch, w = σ(data parameter), divided by its mean over the batch (eq. 1 and 2).

    A sample's parameter then rises where its cost is below the mean of all, each by its weight; scaling all σ changes
    nothing.

    Args:
        parameters, cost: `(B,)`.
        balanced: whether weights are divided by their mean.
    """
    weights = parameters.sigmoid()
    return ((weights / weights.mean() if balanced else weights) * cost).sum()


@dataclass(frozen=True)
class CandidateAffine:
    """Augmentation of candidates by noise, and a random affine map of each image and its label maps.

    Attributes:
        affine: the generator of the maps.
        noise: standard deviation of what is added to intensities.
    """

    affine: RandomAffine = RandomAffine()
    noise: float = 0.05

    def __call__(self, example: Candidates, generator: torch.Generator) -> Candidates:
        count, grid = example.image.batch, example.image.grid
        each = example.labels.batch // count
        maps = [self.affine(grid, generator) for _ in range(count)]
        first, every = maps[0].stack(maps[1:]), [one for one in maps for _ in range(each)]
        noise = torch.randn(example.image.data.shape, generator=generator).to(example.image.data)
        image = pull(example.image, first, onto=grid)
        labels = pull(example.labels, every[0].stack(every[1:]), onto=grid)
        return replace(
            example,
            image=replace(image, data=image.data + self.noise * noise),
            labels=labels,
            truth=example.truth and pull(example.truth, first, onto=grid),
        )


def consensus_quality(fuse: Callable[[Candidates], Consensus], candidates: Candidates) -> dict[str, float]:
    """Measure a consensus of the label maps of one image against its true labels.

    These are the Dice of each label that the truth has, and their mean; and the rank correlation (Spearman) of the
    weights with the Dice of the label maps, where weights differ.

    Raises:
        InputError: the truth is not known.
    """
    if candidates.truth is None:
        raise InputError(f"{candidates.name}: the true labels are what a consensus is measured by, and are not known")
    found, truth = fuse(candidates), candidates.truth.data
    each = {}
    for value in truth.unique().tolist():
        if value:
            one, two = found.labels.data == value, truth == value
            each[f"dice/{value}"] = 2 * int((one & two).sum()) / int(one.sum() + two.sum())
    answer = {"dice": sum(each.values()) / max(len(each), 1), **each}
    right = dice_with(candidates.labels, candidates.truth).cpu()
    if len(found.weights) == len(right) and float(found.weights.std()) > 0 and float(right.std()) > 0:
        answer["rank"] = float(spearmanr(found.weights, right).statistic)
    return answer


def trusted_quality(network: TrustedSegmenter, candidates: Candidates) -> dict[str, float]:
    """Measure the consensus by what a network has learned to trust, as `consensus_quality`."""
    return consensus_quality(network.consensus, candidates)


METHOD = Method(
    about="labels of many atlases on one image: how far each can be trusted is learned while a network segments",
    aligns=("labels",),
    trained=True,
    papers=(
        Paper(
            "weihsbach2022deepstaple",
            "Weihsbach, Christian and Bigalke, Alexander and Kruse, Christian N. and Hempe, Hellena and "
            "Heinrich, Mattias P.",
            "DeepSTAPLE: Learning to Predict Multimodal Registration Quality for Unsupervised Domain Adaptation",
            "Biomedical Image Registration (WBIR)",
            2022,
            "10.1007/978-3-031-11203-4_5",
        ),
        Paper(
            "warfield2004staple",
            "Warfield, Simon K. and Zou, Kelly H. and Wells, William M.",
            "Simultaneous Truth and Performance Level Estimation (STAPLE): An Algorithm for the Validation of Image "
            "Segmentation",
            "IEEE Transactions on Medical Imaging",
            2004,
            "10.1109/TMI.2004.828354",
            "article",
            "23",
            "903--921",
        ),
        Paper(
            "langerak2010simple",
            "Langerak, Thomas Robin and van der Heide, Uulke A. and Kotte, Alexis N. T. J. and Viergever, Max A. and "
            "van Vulpen, Marco and Pluim, Josien P. W.",
            "Label Fusion in Atlas-Based Segmentation Using a Selective and Iterative Method for Performance Level "
            "Estimation (SIMPLE)",
            "IEEE Transactions on Medical Imaging",
            2010,
            "10.1109/TMI.2010.2057442",
            "article",
            "29",
            "2000--2008",
        ),
    ),
)
