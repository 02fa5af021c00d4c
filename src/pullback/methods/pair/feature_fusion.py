"""Learning to fuse features: hand-crafted ones and a segmentation, mixed voxel by voxel for a discrete search.

Siebert & Heinrich: Learn to fuse input features for large-deformation registration with differentiable convex-discrete
optimisation, WBIR 2022. The paper is silent on, and here it is decided:

- temperature of the softmin: 1, on squared differences summed over channels; the last convolution is free in scale;
- couplings while learning: three, with one averaging of the costs; in use the hard search of ConvexAdam, both ways;
- semantic features are probabilities, means over the blocks, not 0 and 1;
- how a segmenter's knowledge of its own training images is kept from the mixer: see `cross_fitting`.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pullback.alignment import Alignment, Pair
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.methods.pair.convex_adam import self_similar
from pullback.networks import (
    Convolved,
    Network,
    SegmentationUNet,
    Segmenter,
    convolution,
    instance_norm_relu,
    together,
)
from pullback.numerics.cost_volume import pooled, unpooled
from pullback.solvers import CoupledConvex, consistent
from pullback.space import Displacement, Image
from pullback.stats import Stats

MIXED = (32, 32, 15)
LEARNING = CoupledConvex(couplings=(0.003, 0.03, 0.3), temperature=1.0, blur=1)
SILENT = 1e-3  # of the voxels: fewer that are sure to be of some label, and nothing was found


class FeatureFusion(Network):
    """A register of two images by a mixture of self-similarity (MIND) and of the memberships of a segmenter.

    Only the mixer learns. In training the search is differentiable; in evaluation it is that of ConvexAdam, whose
    descent can follow (`--refine`). An image may bring its memberships along, as channels after its own: then the
    segmenter is not asked.

    Args:
        ndim: 2 or 3.
        labels: that the segmenter knows; all others are background to it.
        channels: of one image.
        backbone: of the segmenter.
        mixed: channels of the mixer's convolutions; with the defaults, 13 labels and 3-D it has 2,415 weights.
        every: voxels along each axis whose mean features are mixed; no more than the motion that is common.
        learning: the search in training; it must have a temperature.
        search: the search in evaluation.
        both_ways: make its answer consistent with that of the reverse pair.

    Raises:
        InputError: labels as of `Segmenter`, or a search to learn through that has no gradient.
    """

    def __init__(
        self,
        ndim: int,
        labels: tuple[int, ...],
        channels: int = 1,
        backbone: Callable[[int, int], Any] = SegmentationUNet,
        mixed: tuple[int, ...] = MIXED,
        every: int = 4,
        learning: CoupledConvex = LEARNING,
        search: CoupledConvex = CoupledConvex(),
        both_ways: bool = True,
    ) -> None:
        super().__init__()
        if learning.temperature is None:
            raise InputError("FeatureFusion: learning.temperature: a number expected; without, no gradient passes")
        self.segmenter = Segmenter(backbone, labels, ndim, channels).requires_grad_(False)
        self.mixer = mixer(ndim, (12 if ndim == 3 else 4) * channels + 1 + len(labels), mixed)
        self.channels, self.every, self.both_ways = channels, every, both_ways
        self.learning, self.search = learning, search

    def train(self, mode: bool = True) -> "FeatureFusion":
        """Set the mode of all parts but the segmenter, which does not learn."""
        super().train(mode)
        self.segmenter.eval()
        return self

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        """Return the alignment of two images.

        Raises:
            InputError: the fixed image has fewer than two blocks of `every` voxels along an axis, or other channels.
        """
        seen = [Image(values, fixed.grid) for values in together(fixed, moving).chunk(2, 1)]
        features = [self.unmixed(image) for image in seen]
        with torch.autocast(fixed.data.device.type, enabled=False):  # costs are compared to their last bit
            one, two = (self.mixer(pooled(torch.cat(each, 1), self.every)) for each in features)
            answer = self.between(one, two, Pair(fixed, moving), self.training)
        if self.training:
            return answer
        sure = {name: 1 - float(each[1][:, 0].mean()) for name, each in zip(("fixed", "moving"), features, strict=True)}
        for name, share in sure.items():
            if share < SILENT:
                warnings.warn(f"semantic features are silent on the {name} image; MIND alone decides", stacklevel=2)
        return replace(answer, stats=Stats(numbers={f"foreground of {name}": share for name, share in sure.items()}))

    @torch.no_grad()
    def unmixed(self, image: Image) -> tuple[Tensor, Tensor]:
        """Return the hand-crafted features, `(B, 12 C or 4 C, *spatial)`, and memberships `(B, 1 + labels, …)`.

        Raises:
            InputError: the image has fewer than two blocks along an axis, or other channels than the network.
        """
        shape, own = image.grid.shape, self.channels
        if min(shape) < 2 * self.every:
            raise InputError(
                f"FeatureFusion mixes means of blocks of {self.every} voxels, two along each axis at least; the image "
                f"has {'×'.join(map(str, shape))}: network.every must be smaller"
            )
        found, semantic = image.data.shape[1], 1 + len(self.segmenter.labels)
        if found not in (own, own + semantic):
            raise InputError(f"FeatureFusion: images of {own} channels expected (or {own + semantic}), got {found}")
        grey = replace(image, data=image.data[:, :own])
        known = image.data[:, own:] if found > own else self.segmenter.memberships(grey)
        return self_similar(grey), known

    def between(self, fixed: Tensor, moving: Tensor, pair: Pair, soft: bool = False) -> Alignment:
        """Return the alignment of a pair by features of blocks of both images, `(B, C, *spatial // every)`.

        Args:
            fixed, moving: the features, both on the fixed grid.
            pair: the images.
            soft: search as in training.
        """
        if soft:
            field = self.learning(fixed, moving)
        else:
            field = self.search(fixed, moving)
            field = consistent(field, self.search(moving, fixed))[0] if self.both_ways else field
        grid = pair.fixed.grid
        return Alignment(pair, Displacement(unpooled(field, self.every, grid.shape), grid))


def mixer(ndim: int, channels: int, widths: Sequence[int] = MIXED) -> nn.Sequential:
    """Return convolutions of kernel 1, each but the last followed by instance normalisation and ReLU (section 2.2)."""
    before = (channels, *widths[:-1])
    finish = instance_norm_relu(ndim)
    inner = [Convolved(ndim, a, b, finish, True, kernel=1) for a, b in zip(before, widths[:-1], strict=False)]
    return nn.Sequential(*inner, convolution(ndim, before[-1], widths[-1], 1))


# ---- features of a run for ConvexAdam


class _Holding(Protocol):
    """A run that knows its network."""

    @property
    def network(self) -> Any: ...


@dataclass(frozen=True)
class RunFeatures:
    """Features of a trained `FeatureFusion` as ConvexAdam takes them, at full size.

    Attributes:
        run: a `study.run.Run`.
        use: `"semantic"` for memberships alone, `"concatenated"` for MIND before them, `"fused"` for the mixture.
        weight: of memberships in the concatenation, beside MIND.

    Raises:
        InputError: another use.
    """

    run: _Holding
    use: str = "concatenated"
    weight: float = 3.0

    def __post_init__(self) -> None:
        if self.use not in ("semantic", "concatenated", "fused"):
            raise InputError(f"RunFeatures: use: semantic, concatenated or fused expected, got {self.use!r}")

    def __call__(self, image: Image) -> Tensor:
        """Return features `(B, C, *spatial)` of an image with voxels as large as in the training of the run.

        Raises:
            InputError: the run is of another method.
        """
        network = self.run.network
        if not isinstance(network, FeatureFusion):
            raise InputError(f"RunFeatures: a run of feature-fusion expected, this one is of {type(network).__name__}")
        with torch.no_grad():
            network.to(image.data.device)
            return chosen(network, replace(image, data=image.data.float()), self.use, self.weight).to(image.data)


def chosen(network: FeatureFusion, image: Image, use: str, weight: float = 1.0, every: int = 1) -> Tensor:
    """Return the features of one use, `(B, C, *spatial // every)`: `"hand-crafted"`, or one of `RunFeatures`."""
    hand, semantic = (pooled(each, every) for each in network.unmixed(image))
    if use == "hand-crafted":
        return hand
    if use == "semantic":
        return semantic
    return (
        torch.cat([hand, weight * semantic], 1)
        if use == "concatenated"
        else network.mixer(torch.cat([hand, semantic], 1))
    )


METHOD = Method(
    about="self-similarity and a segmentation, mixed by what aligns labels; a discrete search between them",
    aligns=("pair",),
    trained=True,
    papers=(
        Paper(
            "siebert2022learn",
            "Siebert, Hanna and Heinrich, Mattias P.",
            "Learn to Fuse Input Features for Large-Deformation Registration with Differentiable Convex-Discrete "
            "Optimisation",
            "Biomedical Image Registration (WBIR)",
            2022,
            "10.1007/978-3-031-11203-4_13",
        ),
    ),
)
