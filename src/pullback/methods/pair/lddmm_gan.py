"""LDDMM-GAN: networks that answer with the velocity of a diffeomorphism, and learn by LDDMM's energy and an adversary.

Ramon, Hernandez, Mayordomo: LDDMM meets GANs: Generative Adversarial Networks for diffeomorphic registration, 2022
(arXiv:2111.12544). SVF-GAN answers with a stationary velocity, EPDiff-GAN with the initial velocity of a geodesic.
The velocity is made into a map by the network's last layer: `transform=partial(Geodesic, kernel=…)`, of any network.

Equations 1 and 3 are the energy `MSE() + Kinetic(kernel)` with σ = 1, the kernel being measured in sides of the image,
as the paper's is on the unit domain. Equation 2 as printed holds for stationary velocities only, and equation 4 has
eight derivatives more than the velocity: `Geodesic` solves both by carrying the initial momentum along the flow.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from pullback.alignment import Alignment, Pair, Register, seen
from pullback.energies import Energy
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.networks import Convolved, FieldHead, Network, channels_last, padded, together
from pullback.numerics.separable import apply_along, linear_weights
from pullback.space import Dense, Displacement, Grid, Image
from pullback.training import Player

LEAK = 0.2
FULL = (16, 32, 64, 64)
HALF = (16, 32, 64)
DISCRIMINATOR = (8, 16, 32, 32, 32)
CELLS = 2  # along each axis, of what the discriminator's last layers see of images of any size


class TwoStream(Network):
    """A register by an encoder of two streams, of both images at full and at half size, and a decoder that joins them.

    Section 3.1, after Duan et al. 2019; upsampling is by transposed convolutions of kernel 4 and stride 2, which leave
    no checkerboard. The paper gives no numbers: widths, convolutions of 3ᵈ, leak and means of two voxels along each
    axis as images of half size were decided here. Images may have any size.

    Args:
        ndim: 2 or 3.
        full: channels of the stream at full size, the first stage at its size and each following one at half of that.
        half: channels of the stream at half size, whose first stage is as large as the second one of `full`.
        transform: the kind whose `field` is predicted: `Velocity`, or `partial(Geodesic, kernel=…)`.
        channels: of one image.

    Raises:
        InputError: fewer than two stages, another number of them at half size, or channels below 1.
    """

    def __init__(
        self,
        ndim: int,
        full: tuple[int, ...] = FULL,
        half: tuple[int, ...] = HALF,
        transform: Callable[[Tensor, Grid], Dense] = Displacement,
        channels: int = 1,
    ) -> None:
        super().__init__()
        if len(full) < 2 or len(half) != len(full) - 1 or min(*full, *half, channels) < 1:
            raise InputError(
                f"TwoStream: two stages or more at full size, one fewer at half size and channels of 1 or more "
                f"expected, got {tuple(full)} and {tuple(half)} of {channels}"
            )
        self.pool = F.avg_pool2d if ndim == 2 else F.avg_pool3d
        self.at_full, self.at_half = (_stream(ndim, 2 * channels, widths) for widths in (full, half))
        transposed = nn.ConvTranspose2d if ndim == 2 else nn.ConvTranspose3d
        up, skips = full[-2::-1], [a + b for a, b in zip(full[:-1], (0, *half[:-1]), strict=True)][::-1]
        before = (full[-1] + half[-1], *up)
        self.grow = nn.ModuleList(transposed(a, b, 4, stride=2, padding=1) for a, b in pairwise(before))
        self.join = nn.ModuleList(
            Convolved(ndim, a + skip, a, _leaky, bias=True) for a, skip in zip(up, skips, strict=True)
        )
        self.head = FieldHead(ndim, up[-1], transform)

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        features = padded(self._features, together(fixed, moving), 2 ** len(self.grow))
        return self.head(features, fixed, moving)

    def _features(self, values: Tensor) -> Tensor:
        fine, coarse = _stages(self.at_full, values), _stages(self.at_half, self.pool(values, 2))
        skips = [fine[0], *(torch.cat(both, 1) for both in zip(fine[1:-1], coarse[:-1], strict=True))]
        values = torch.cat([fine[-1], coarse[-1]], 1)
        for grow, join in zip(self.grow, self.join, strict=True):
            values = join(torch.cat([F.leaky_relu(grow(values), LEAK), skips.pop()], 1))
        return values


class Discriminator(nn.Module):
    """A network that tells whether two images are plausibly registered: the logit of that probability.

    Section 3.1: both images as channels, five blocks of a convolution, ReLU and maximum pooling by two, three fully
    connected layers. The paper gives no widths; a mean over 2ᵈ cells before the connected layers, decided here, lets
    images have any size.

    Args:
        ndim: 2 or 3.
        channels: of one image.
        widths: channels of the blocks.
        hidden: of the connected layers before the last.

    Raises:
        InputError: no blocks, or channels below 1.
    """

    def __init__(
        self,
        ndim: int,
        channels: int = 1,
        widths: tuple[int, ...] = DISCRIMINATOR,
        hidden: tuple[int, ...] = (64, 32),
    ) -> None:
        super().__init__()
        if not widths or min(*widths, *hidden, channels) < 1:
            raise InputError(
                f"Discriminator: one block or more and channels of 1 or more expected, got {tuple(widths)} and "
                f"{tuple(hidden)} of {channels}"
            )
        self.channels, self.ndim = channels, ndim
        self.pool = F.max_pool2d if ndim == 2 else F.max_pool3d
        self.mean = F.adaptive_avg_pool2d if ndim == 2 else F.adaptive_avg_pool3d
        self.blocks = nn.ModuleList(
            Convolved(ndim, a, b, _relu, bias=True) for a, b in pairwise((2 * channels, *widths))
        )
        sizes = (CELLS**ndim * widths[-1], *hidden, 1)
        self.linear = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, fixed: Tensor, other: Tensor) -> Tensor:
        """Return logits `(B,)` of two images `(B, C, *spatial)`; one serves all of the other's batch.

        Raises:
            InputError: images of other dimensions or channels than it was made for.
        """
        if fixed.ndim != self.ndim + 2 or fixed.shape[1] != self.channels:
            raise InputError(
                f"the discriminator is for {self.ndim}-D images of {self.channels} channels, and these are "
                f"{fixed.ndim - 2}-D with {fixed.shape[1]}: set supervision.ndim={fixed.ndim - 2} and "
                f"supervision.channels={fixed.shape[1]}"
            )
        batch = max(len(fixed), len(other))
        values = torch.cat([data.expand(batch, *data.shape[1:]) for data in (fixed, other)], 1).float()
        values = channels_last(values)
        for block in self.blocks:
            values = self.pool(block(values), 2, ceil_mode=True)
        values = self.mean(values, CELLS).flatten(1)
        *hidden, last = self.linear
        for layer in hidden:
            values = F.relu(layer(values))
        return last(values)[:, 0]


class Adversarial(Network):
    """The supervision by LDDMM's energy, and by a discriminator that is to take the moved image for a registered one.

    The loss of the network is −log p + λ E (eq. 7). That of the discriminator, which has a turn of its own
    (`discriminating`), is −log p of a plausible pair and −log(1 − p) of the moved image (eq. 6). A plausible pair is
    the fixed image and β × the moving one + (1 − β) × the fixed one: with β = 0 the discriminator soon outruns the
    network. No gradient of either loss reaches the other's weights, whichever way they are called.

    The paper trains on one kind after the other, and the network last; here both kinds make one step, after the
    network's. The paper feeds the network with moved images in one sentence, which are its output.

    Args:
        ndim: 2 or 3.
        energy: E, such as `MSE() + Kinetic(kernel)`.
        weight: λ.
        mix: β.
        channels: of one image.

    Raises:
        InputError: a mix that is not of 0 … 1, or a weight below 0.
    """

    def __init__(self, ndim: int, energy: Energy, weight: float = 1000.0, mix: float = 0.2, channels: int = 1) -> None:
        super().__init__()
        if not 0 <= mix < 1 or weight < 0:
            raise InputError(f"Adversarial: a mix from 0 to below 1 and a weight of 0 or more, got {mix} and {weight}")
        self.energy, self.mix = weight * energy, mix
        self.discriminator = Discriminator(ndim, channels)

    def forward(self, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]:
        """Return the losses of the network: `adversarial`, and the terms of the energy times its weight."""
        alignment = seen(pair, register(pair.fixed, pair.moving))
        still = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        logit = functional_call(self.discriminator, still, (pair.fixed.data, alignment.moved.data))
        return {"adversarial": F.softplus(-logit).mean(), **self.energy.terms(alignment)}

    def plausible(self, pair: Pair) -> Tensor:
        """Return β × the moving image, where the headers put it, + (1 − β) × the fixed one: `(B, C, *spatial)`."""
        fixed, moving = together(*pair.images).chunk(2, 1)
        return self.mix * moving + (1 - self.mix) * fixed


def discriminating(supervision: Adversarial, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]:
    """Return the losses of the discriminator: of `mixed` and of `moved` images, and the mean p of each, for the log."""
    with torch.no_grad():
        moved = seen(pair, register(pair.fixed, pair.moving)).moved.data
        mixed = supervision.plausible(pair)
    positive, negative = (supervision.discriminator(pair.fixed.data, other) for other in (mixed, moved))
    return {
        "mixed": F.softplus(-positive).mean(),
        "moved": F.softplus(negative).mean(),
        "p/mixed": positive.sigmoid().mean(),
        "p/moved": negative.sigmoid().mean(),
    }


def adversary(lr: float = 1e-6) -> Player:
    """Return the discriminator as a player, which learns at a rate of its own."""
    return Player("discriminator", ("supervision.discriminator.",), discriminating, lr=lr)


@dataclass(frozen=True)
class Coarser:
    """A kind of field on a coarser grid than the network's answer, between the same outermost voxel centres.

    A geodesic is as smooth as its kernel, so that fewer voxels hold it, and shooting it in 3-D takes an eighth. Each
    voxel is the mean of the answer around it, with weights that fall linearly to 0 at its neighbours.

    Attributes:
        kind: of the field.
        factor: voxels of the answer along an axis for each of the field's.

    Raises:
        InputError: a factor below 1.
    """

    kind: Callable[[Tensor, Grid], Dense]
    factor: float = 2.0

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise InputError(f"Coarser: a factor of 1 or more expected, got {self.factor}")

    def __call__(self, field: Tensor, grid: Grid) -> Dense:
        """Return the field, `(B, d, *grid.shape)` in voxels of `grid`, on fewer voxels and in their unit."""
        coarse = grid.between_ends(tuple(max(round((n - 1) / self.factor) + 1, 3) for n in grid.shape))
        for axis, (n, m) in enumerate(zip(grid.shape, coarse.shape, strict=True)):
            near = linear_weights(torch.linspace(0, m - 1, n, dtype=torch.float64), m).mT  # (m, n)
            field = apply_along((near / near.sum(1, keepdim=True)).to(field), field, axis)
        per_voxel = (grid.spacing / coarse.spacing).to(field)
        return self.kind(field * per_voxel.view(-1, *[1] * grid.ndim), coarse)


def _stream(ndim: int, channels: int, widths: Sequence[int]) -> nn.ModuleList:
    """Return the stages of an encoder, each of which but the first halves the size."""
    before = (channels, *widths)
    return nn.ModuleList(
        Convolved(ndim, a, b, _leaky, bias=True, stride=min(n, 1) + 1) for n, (a, b) in enumerate(pairwise(before))
    )


def _stages(stream: nn.ModuleList, values: Tensor) -> list[Tensor]:
    """Return the features of each stage of an encoder."""
    features, values = [], channels_last(values)
    for stage in stream:
        values = stage(values)
        features.append(values)
    return features


def _leaky(channels: int) -> nn.Module:
    return nn.LeakyReLU(LEAK, inplace=True)


def _relu(channels: int) -> nn.Module:
    return nn.ReLU(inplace=True)


METHOD = Method(
    about="networks that answer with the velocity of a diffeomorphism, and learn by LDDMM's energy and an adversary",
    aligns=("pair",),
    trained=True,
    papers=(
        Paper(
            "ramon2022lddmm",
            "Ramon, Ubaldo and Hernandez, Monica and Mayordomo, Elvira",
            "LDDMM Meets GANs: Generative Adversarial Networks for Diffeomorphic Registration",
            "Biomedical Image Registration (WBIR)",
            2022,
            "10.1007/978-3-031-11203-4_3",
        ),
    ),
    keys=("svf-gan", "epdiff-gan"),
)
