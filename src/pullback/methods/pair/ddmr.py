"""DDMR: a deeper U-Net, and its transfer from one anatomy to another.

Pérez de Frutos, Pedersen, Pelanis, Bouget, Survarachakan, Langø, Elle, Lindseth: Learning deep abdominal CT
registration through adaptive loss weighting and synthetic data generation, PLOS ONE 2023. Its losses are energies, its
weighting is `UncertaintyWeighted`, its augmentation `Synthesis`. Where the authors' code differs from these, it is
`SoftmaxWeighted`, `GeneralisedDice` and `PatchSSIM`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pullback.alignment import Alignment, Pair, Register
from pullback.energies import Diffusion, Energy
from pullback.energies.overlap import soft_labels
from pullback.energies.similarity import intensity_range, masked_mean
from pullback.energies.ssim import CONTRAST, LEVEL
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.networks import Convolved, FieldHead, Network, channels_last, padded, together
from pullback.numerics.random import make_generator
from pullback.space import Dense, Displacement, Grid, Image
from pullback.training import Task, load_weights

LEAK = 0.2
WIDTHS = (32, 64, 128, 256, 512, 1024)


class PooledUNet(Network):
    """A register by the paper's U-Net of blocks with maximum pooling, and a head of two convolutions and the field.

    A block down is a convolution, leaky ReLU and pooling by two; a block up is a convolution, leaky ReLU and nearest
    upsampling by two, concatenated with what was pooled at that size. The six blocks of the paper have 85 million
    weights and pad images to multiples of 64 voxels. Where the paper is silent:

    - the leak is 0.2, as VoxelMorph's; - skips are concatenated as in U-Net (Ronneberger et al. 2015); - weights begin
    as He et al. 2015 draw them for such a leak, so that each block keeps the strength of its input. By torch's own a
    block passes on less than half, and after six blocks, which together see how far whole organs are apart, next to
    nothing is left.

    Args:
        ndim: 2 or 3.
        widths: channels of the blocks, down and, reversed, up.
        head: channels of the convolutions before the last.
        transform: the kind whose `field` is predicted.
        channels: of one image.

    Raises:
        InputError: no blocks, or channels below 1.
    """

    def __init__(
        self,
        ndim: int,
        widths: tuple[int, ...] = WIDTHS,
        head: tuple[int, ...] = (16, 16),
        transform: Callable[[Tensor, Grid], Dense] = Displacement,
        channels: int = 1,
    ) -> None:
        super().__init__()
        if not widths or min(*widths, *head, channels) < 1:
            raise InputError(
                f"PooledUNet: one block or more expected, and channels of 1 or more, got widths {tuple(widths)} and "
                f"head {tuple(head)}"
            )
        self.pool = F.max_pool2d if ndim == 2 else F.max_pool3d
        down = (2 * channels, *widths)
        self.encoder = nn.ModuleList(Convolved(ndim, a, b, _leaky, bias=True) for a, b in pairwise(down))
        up = widths[::-1]
        before = (up[0], *(2 * width for width in up[:-1]))
        self.decoder = nn.ModuleList(Convolved(ndim, a, b, _leaky, bias=True) for a, b in zip(before, up, strict=True))
        last = (2 * widths[0], *head)
        self.mix = nn.Sequential(*(Convolved(ndim, a, b, _leaky, bias=True) for a, b in pairwise(last)))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_normal_(layer.weight, LEAK)
        self.head = FieldHead(ndim, last[-1], transform)

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        features = padded(self._features, together(fixed, moving), 2 ** len(self.encoder))
        return self.head(features, fixed, moving)

    def _features(self, values: Tensor) -> Tensor:
        skips, values = [], channels_last(values)
        for block in self.encoder:
            skips.append(block(values))
            values = self.pool(skips[-1], 2)
        for block in self.decoder:
            values = F.interpolate(block(values), scale_factor=2, mode="nearest")
            values = torch.cat([values, skips.pop()], 1)
        return self.mix(values)


@dataclass(frozen=True)
class Transferred:
    """The procedure of transfer: weights of another run are trained on, all at once or the decoder alone first.

    Head and channels are kept. The paper gives no lengths of its two steps: here each has half of the updates, so that
    one step and two are as long, and pairs of its own.

    Attributes:
        source: the folder of the run that the weights come from.
        frozen: prefixes of the names of weights that are fixed in the first half: `("encoder.",)`; none trains all at
            once.
        elsewhere: attributes that name another run, which may move until this one is resumed.
    """

    source: str = ""
    frozen: tuple[str, ...] = ()
    elsewhere: ClassVar[tuple[str, ...]] = ("source",)

    def __call__(self, task: Task) -> nn.Module:
        """Train a network on from the weights of `source`; a first half is kept in the task's folder as `first`.

        Raises:
            InputError: no run is named to continue from, or no weight has a prefix of `frozen`.
        """
        if not self.source:
            raise InputError("no run is named to go on from; say which: --set procedure.source=RUN")
        network = task.make(0)
        load_weights(network, Path(self.source) / "best.safetensors")
        if not self.frozen:
            return task.trained(network)
        updates, seed = max(task.training.updates // 2, 1), task.training.seed
        first, second = (
            replace(task.training, updates=updates, seed=make_generator(seed, half).initial_seed()) for half in range(2)
        )
        resting = replace(first, frozen=tuple(f"network.{name}" for name in self.frozen))
        network = task.part("first", resting).trained(network)
        return replace(task, training=second).trained(network)


class SoftmaxWeighted(nn.Module):
    """The supervision by Σ softmax(s) L + Σ exp(r) R with s and r that learn: the weighting of the authors' code.

    Nothing balances the losses, as in `UncertaintyWeighted`: the least of them is given ever more of the weight, and
    regularisers are given ever less. Weights are logged beside the losses, as `weight/…`.

    Args:
        losses: at least one, each of one term.
        regularisers: any number, as the losses.
        regularity: exp(r) at the beginning.

    Raises:
        InputError: no loss, or no regularity.
    """

    def __init__(
        self, losses: Sequence[Energy], regularisers: Sequence[Energy] = (Diffusion(),), regularity: float = 5e-3
    ) -> None:
        super().__init__()
        if not losses or not regularity > 0:
            raise InputError(
                f"SoftmaxWeighted: at least one loss and a regularity above 0 expected, got {len(losses)} and "
                f"{regularity}"
            )
        self.losses, self.regularisers = tuple(losses), tuple(regularisers)
        self.shares = nn.Parameter(torch.zeros(len(losses)))
        self.strengths = nn.Parameter(torch.full((len(regularisers),), math.log(regularity)))

    def forward(self, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]:
        """Return the weighted terms of the guess, and the weights to be logged."""
        alignment = Alignment(pair, register(pair.fixed, pair.moving).transform)
        found: dict[str, Tensor] = {}
        weights = torch.cat([self.shares.softmax(0), self.strengths.exp()])
        for energy, weight in zip((*self.losses, *self.regularisers), weights, strict=True):
            for name, value in energy.terms(alignment).items():
                found |= {name: weight * value, f"weight/{name}": weight.detach()}
        return found


@dataclass(frozen=True)
class GeneralisedDice(Energy):
    """The generalised Dice loss, 1 − 2 Σₗ wₗ Σ p q / Σₗ wₗ Σ (p + q) with wₗ = 1 / (volume of the fixed label)².

    Sudre et al. 2017. The background is a label like any other, but as large as it is it hardly counts: with one label
    the value is that of `SoftDice` but for its share of the image. Of several, a voxel of one with a thousandth of the
    volume counts 10⁶ times as much; in `SoftDice`, the mean over labels without background, 10³ times.
    """

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        fixed, moved = (
            torch.cat([1 - labels.sum(1, keepdim=True), labels], 1).flatten(2) for labels in soft_labels(alignment)
        )
        weight = fixed.sum(2).clamp(min=1).square().reciprocal()
        both, either = (fixed * moved).sum(2), (fixed + moved).sum(2)
        return {"generalised dice": (1 - 2 * (weight * both).sum(1) / (weight * either).sum(1)).mean()}


@dataclass(frozen=True)
class PatchSSIM(Energy):
    """The mean structural similarity over patches that do not overlap, taken off 1.

    As `SSIM` with a window of equal weights, but seen at every `edge`-th place along each axis alone. Patches begin at
    the first voxel; the last ones are cut off at the border, and all at masks.

    Attributes:
        edge: of a patch, in voxels.
    """

    edge: int = 5

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        fixed, moved, mask = alignment.pair.fixed, alignment.moved.data, alignment.mask
        low, high = intensity_range(fixed)
        extent = torch.where(high > low, high - low, 1)
        inside = moved.new_ones(1, 1, *moved.shape[2:]) if mask is None else mask.to(moved.dtype)
        count = self._pooled(inside)
        i, j = (self._pooled(data * inside) / count.clamp(min=1) for data in (fixed.data, moved))
        v, w, c = (
            self._pooled(a * b * inside) / count.clamp(min=1) - x * y
            for a, b, x, y in (
                (fixed.data, fixed.data, i, i),
                (moved, moved, j, j),
                (fixed.data, moved, i, j),
            )
        )
        c1, c2 = (LEVEL * extent).square(), (CONTRAST * extent).square()
        similarity = (2 * i * j + c1) * (2 * c + c2) / ((i * i + j * j + c1) * (v + w + c2))
        return {"ssim": 1 - masked_mean(similarity, count > 0)}

    def _pooled(self, values: Tensor) -> Tensor:
        """Return sums over patches."""
        short = [-n % self.edge for n in values.shape[2:]]
        values = F.pad(values, [pad for n in reversed(short) for pad in (0, n)])
        pool = F.avg_pool2d if values.ndim == 4 else F.avg_pool3d
        return pool(values, self.edge) * self.edge ** (values.ndim - 2)


def _leaky(channels: int) -> nn.Module:
    return nn.LeakyReLU(LEAK, inplace=True)


METHOD = Method(
    about="a deeper U-Net that learns from labels on moving images that are made, by losses that weigh themselves",
    aligns=("pair",),
    trained=True,
    papers=(
        Paper(
            "perezdefrutos2023ddmr",
            "Pérez de Frutos, Javier and Pedersen, André and Pelanis, Egidijus and Bouget, David and "
            "Survarachakan, Shanmugapriya and Langø, Thomas and Elle, Ole-Jakob and Lindseth, Frank",
            "Learning Deep Abdominal CT Registration Through Adaptive Loss Weighting and Synthetic Data Generation",
            "PLOS ONE",
            2023,
            "10.1371/journal.pone.0282110",
            "article",
            "18",
            "e0282110",
        ),
    ),
    keys=("ddmr-uw-nsd", "ddmr-uw-nsdh", "ddmr-sg-nsd", "ddmr-sg-nd", "ddmr-bl-n", "ddmr-bl-ns"),
)
