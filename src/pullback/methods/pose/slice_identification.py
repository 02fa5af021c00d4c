"""Slice identification: which plate of an atlas does a slice show? By a network that lays both into one space.

Antanavicius, Leiras, Selvan: Identifying partial mouse brain microscopy images from the Allen reference atlas using a
contrastively learned semantic space, WBIR 2022. One network, the two or three of a Siamese configuration, embeds slices
and plates; the nearest plates are the candidates.

Where the paper is silent it is decided here, after its authors' code: embeddings have length 1, the margin is 1, and a
batch is of pairs of a slice with its plate and of plates with themselves. Contrast is equalised within the network, by
local mean and deviation in place of CLAHE, so that a slice is seen as it was learned from. What the paper calls a mean
absolute error is the mean rank of the true plate, from 0, and is called so.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from pullback.data import Test, Validation
from pullback.data.slice_views import RandomViews
from pullback.data.slices import LabelledSlices, Plates
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.methods.pose.embedding_losses import SemiHard, distances
from pullback.networks import EmbeddingHead, Network, ResidualNet
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import box_sum
from pullback.space import Image
from pullback.training import Row
from pullback.training.measure import evaluating

FLAT = 0.05  # local deviation, of intensities 0 … 1, below which contrast is not raised further
FIRSTS = (1, 3, 5, 10)


class SliceEmbedding(Network):
    """An embedding of slices and plates as vectors of length 1, by a residual network.

    Args:
        size: pixels along each edge of what the network sees.
        widths, blocks, bottleneck, first, kernel, pooled: as of `ResidualNet`; by default a small one.
        length: of the vectors.
        hidden, dropout: as of `EmbeddingHead`.
    """

    def __init__(
        self,
        size: int = 64,
        widths: Sequence[int] = (32, 64, 96, 128),
        blocks: Sequence[int] = (1, 1, 1, 1),
        bottleneck: bool = False,
        first: int = 32,
        kernel: int = 5,
        pooled: bool = False,
        length: int = 64,
        hidden: int = 256,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.size = size
        self.features = ResidualNet(2, 1, widths, blocks, bottleneck, first, kernel, pooled)
        self.head = EmbeddingHead(2, self.features.channels_out, length, hidden, dropout)

    def forward(self, image: Image) -> Tensor:
        """Return the embeddings `(B, length)` of square images `(B, 1, S, S)`, as of `data.slices.as_square`.

        Raises:
            InputError: other images.
        """
        return self.head(self.features(equalised(image.data, self.size)))

    def described(self, plates: Image) -> Tensor:
        """Return what slices are compared with: the embeddings of plates."""
        return self(plates)

    def distances(self, image: Image, plates: Tensor) -> Tensor:
        """Return how far slices are from `described` plates, `(B, P)`."""
        return distances(self(image), plates)


def equalised(data: Tensor, size: int) -> Tensor:
    """Return square images at a size, each pixel by the mean and the deviation of those around.

    The window is a quarter of the size; beyond the image nothing is counted.

    Raises:
        InputError: images that are not square, or of several channels.
    """
    if data.ndim != 4 or data.shape[1] != 1 or data.shape[2] != data.shape[3]:
        raise InputError(f"square slices of one channel expected, got {tuple(data.shape[1:])}; see `as_square`")
    if data.shape[-1] != size:
        data = F.interpolate(data, (size, size), mode="bilinear", antialias=data.shape[-1] > size)
    window = 2 * (size // 8) + 1
    count = box_sum(torch.ones_like(data[:1]), window)
    mean = box_sum(data, window) / count
    deviation = (box_sum(data * data, window) / count - mean * mean).clamp(min=0).sqrt()
    return (data - mean) / (deviation + FLAT)


@dataclass(frozen=True)
class MetricLearning:
    """The supervision of an embedding by which plates the slices of a batch show.

    Attributes:
        loss: of embeddings and numbers, one of `embedding_losses`.
    """

    loss: Callable[[Tensor, Tensor], Tensor] = SemiHard()

    def __call__(
        self, network: Callable[[Image], Tensor], example: LabelledSlices, progress: float
    ) -> dict[str, Tensor]:
        """Return the loss as `contrast`."""
        return {"contrast": self.loss(network(example.image), example.plates)}


class Identifier(Protocol):
    """A comparison of slices with plates: an embedding, or a search."""

    def described(self, plates: Image, /) -> Any:
        """Return what plates are compared by, made once for all slices."""
        ...

    def distances(self, image: Image, plates: Any, /) -> Tensor:
        """Return how unlike slices and `described` plates are, `(B, P)`."""
        ...


@dataclass(frozen=True)
class WithViews:
    """An identifier that looks at each slice several times, slightly changed, and takes the mean.

    Attributes:
        identifier: what is asked.
        views: how the slice is changed.
        count: how often; the first is the slice as it is.
        seed: of the views.
    """

    identifier: Any
    views: RandomViews = RandomViews(0.85, 4.0, 0.02, 0.05, 0.02, 0.005, 0.1, False, 0.2, 0.05, 0.02, 0.01)
    count: int = 16
    seed: int = 0

    def described(self, plates: Image) -> Any:
        """Return what the identifier compares with."""
        return self.identifier.described(plates)

    def distances(self, image: Image, plates: Any) -> Tensor:
        """Return the mean over views, `(B, P)`."""
        return self.each(image, plates).mean(0)

    def each(self, image: Image, plates: Any) -> Tensor:
        """Return the distances of each view, `(count, B, P)`."""
        generator, found = make_generator(self.seed, 11), []
        for n in range(self.count):
            seen = self.views(image, generator) if n else image
            found.append(self.identifier.distances(seen, plates))
        return torch.stack(found)


@dataclass(frozen=True, eq=False)
class Ranking:
    """The plates of an atlas as candidates for one slice, the likeliest first.

    Attributes:
        numbers: `(P,)` of the plates.
        distances: `(P,)`, rising.
        votes: `(P,)`, the share of views of which each plate is the nearest.
    """

    numbers: Tensor
    distances: Tensor
    votes: Tensor

    def sure(self, near: int = 2) -> float:
        """Return the share of views whose nearest plate is the first, or at most `near` plates off."""
        close = (self.numbers - self.numbers[0]).abs() <= near
        return float(self.votes[close].sum())


@torch.no_grad()
def ranked(identifier: WithViews, image: Image, plates: Plates, described: Any) -> Ranking:
    """Return the plates by their distance from one slice as it is, `(1, 1, S, S)`, with the votes of its views."""
    each = identifier.each(image, described)[:, 0]  # (views, P), the first as it is
    order = each[0].argsort(stable=True)
    votes = torch.bincount(each.argmin(1), minlength=each.shape[1]) / len(each)
    return Ranking(plates.numbers[order], each[0][order], votes[order])


def place_of(far: Tensor, plate: int) -> Tensor:
    """Return how many of the distances `(…, P)` are below that of one plate, by its index: its rank, from 0."""
    return (far < far[..., plate : plate + 1]).sum(-1)


@dataclass(frozen=True)
class SliceEvaluation:
    """The evaluation of an identifier on the slices of a split.

    A row has the `rank` of the true plate, from 0, whether it is among the first 1, 3, 5, 10 (`top 5`), how many plates
    the nearest one is off, and the seconds of the slice; the plates are described once before.

    Attributes:
        split: slices, each with its atlas.
    """

    split: Validation | Test
    aligns: ClassVar[str] = "slice"

    def __len__(self) -> int:
        return len(self.split)

    @property
    def names(self) -> tuple[str, ...]:
        return self.split.names

    def rows(self, network: Any, device: torch.device) -> Iterator[Row]:
        """Yield one row per slice.

        Raises:
            InputError: a slice of a plate that is not in its atlas.
        """
        known: Plates | None = None
        described: Any = None
        for example in self.split:
            with evaluating(network):
                if known is None or example.atlas is not known:
                    known = example.atlas
                    described = network.described(known.to(device).image)
                begin = time.perf_counter()
                far = network.distances(example.to(device).image, described)[0].cpu()
                seconds = time.perf_counter() - begin
            yield {"example": example.name, **numbers_of(far, known, int(example.plates)), "seconds": seconds}

    def score(self, means: dict[str, float]) -> float:
        """Return the mean rank, negated."""
        return -means["rank"]


def numbers_of(far: Tensor, plates: Plates, plate: int) -> dict[str, float]:
    """Return what is told of one slice's distances `(P,)`, where it shows the plate of this number.

    Raises:
        InputError: there is no such plate.
    """
    where = (plates.numbers == plate).nonzero()
    if not len(where):
        raise InputError(
            f"plate {plate} is not in the atlas, which has {int(plates.numbers[0])} to {int(plates.numbers[-1])}"
        )
    rank = float(place_of(far, int(where[0, 0])))
    off = abs(int(plates.numbers[far.argmin()]) - plate)
    return {"rank": rank, **{f"top {n}": float(rank < n) for n in FIRSTS}, "plates off": float(off)}


METHOD = Method(
    about="which plate of an atlas a slice shows, also a partial one: the nearest plates in a space that is learned",
    aligns=("slice",),
    trained=True,
    papers=(
        Paper(
            "antanavicius2022identifying",
            "Antanavicius, Justinas and Leiras, Roberto and Selvan, Raghavendra",
            "Identifying Partial Mouse Brain Microscopy Images from the Allen Reference Atlas Using a Contrastively "
            "Learned Semantic Space",
            "Biomedical Image Registration (WBIR)",
            2022,
        ),
    ),
    commands=("locate SLICE --in RUN",),
)
