"""Cyclical self-training of networks that align images: their labels.

Bigalke, Hansen, Mok, Heinrich: Unsupervised 3D registration through optimization-guided cyclical self-training, MICCAI
2023, section 2.2; the rounds are `training.Cyclical`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from pullback.alignment import Pair, Registered
from pullback.methods.method import Method, Paper
from pullback.networks import Network
from pullback.solvers import InstanceOptimisation
from pullback.space import Affine, Displacement, Image
from pullback.training import (
    Cyclical,
    Examples,
    IndependentAffines,
    RandomAffine,
    device_of,
    draw,
    seeded,
    seen_through,
)

AUGMENT = IndependentAffines(RandomAffine(5.0, 0.05, 0.03, 0.03))
LOOKS = 8  # pairs that an untrained network sees before it labels any


class WithRefinement(Network):
    """A network whose labels are refined by descent, so that VoxelMorph and others can learn by cyclical self-training.

    It answers as the network does, in training and in evaluation; only labels are refined. The paper of On-the-Fly
    Guidance (table 3) compares with such a network.

    Args:
        network: makes it.
        refine: refines its answer.
    """

    def __init__(self, network: Callable[[], nn.Module], refine: InstanceOptimisation) -> None:
        super().__init__()
        self.network = network()
        self.refine = refine

    def forward(self, fixed: Image, moving: Image) -> Registered:
        return self.network(fixed, moving)

    def guess(self, fixed: Image, moving: Image) -> Registered:
        """Return the network's answer."""
        return self.network(fixed, moving)

    def refined(self, fixed: Image, moving: Image) -> Registered:
        """Return the network's answer after the descent."""
        return self.refine(fixed, moving, self.network(fixed, moving).transform)


@dataclass(frozen=True)
class FieldLabels:
    """Labels of pairs of images: displacements on the fixed grids, `(d, *spatial)` in voxels, half precision.

    The network is a `FeatureRegistration`, a `WithRefinement`, or any that can give its `guess` and that `refined`.

    Attributes:
        accustom: whether the untrained network, which makes the first labels, has the statistics of `accustomed`; else
            it has those of torch, 0 and 1, as in the authors' code.
    """

    accustom: bool = True

    def untrained(self, network: nn.Module, examples: Examples, seed: int) -> nn.Module:
        """Return the network ready to make the first labels."""
        return accustomed(network, examples, seed) if self.accustom else network

    def label(self, network: Any, pair: Pair, how: Cyclical, generator: torch.Generator) -> tuple[Tensor, float]:
        """Return the displacement of a pair, and the mean square by which refinement changed it, voxels²."""
        grid, still = pair.fixed.grid, Affine.identity(pair.fixed.grid.ndim)
        maps = (still, still) if how.augment is None else how.augment.maps(pair, generator)
        seen = (pair if how.augment is None else seen_through(pair, *maps)).to(device_of())
        guess = network.guess(seen.fixed, seen.moving).transform.displacement(grid)
        found = network.refined(seen.fixed, seen.moving).transform.displacement(grid) if how.refined else guess
        whole = _everywhere(Displacement(found, grid))
        label = (maps[1] @ (whole @ maps[0].inverse())).displacement(grid)
        return label[0].half().cpu(), float((found - guess).square().mean())

    def told(self, pair: Pair, label: Tensor) -> Pair:
        """Return the pair with the label, continued beyond the image, as its truth."""
        return replace(pair, truth=_everywhere(Displacement(label[None].float(), pair.fixed.grid)))


def _everywhere(label: Displacement) -> Displacement:
    """Continue a label beyond the image, by a quarter along each axis, where the affine maps of others look.

    Rotations of slabs some eight times as wide as thick look farther than that.
    """
    return label.continued([math.ceil(n / 4) for n in label.grid.shape])


def accustomed(network: Any, pairs: Examples, seed: int) -> Any:
    """Give an untrained network's batch normalisation, if it has any, the statistics of some pairs.

    Otherwise activations would shrink from layer to layer, and with them the differences between voxels: the labels by
    random features, with which the paper begins, would be worthless. A seed gives the same statistics also with
    dropout.
    """
    device = device_of()
    with seeded(seed, 1):
        update_bn((draw(pairs, seed, n).to(device) for n in range(LOOKS)), _Guessing(network.to(device)))
    return network


class _Guessing(nn.Module):
    """A network's guess as a function of a pair."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, pair: Pair) -> Registered:
        return self.network.guess(pair.fixed, pair.moving)


METHOD = Method(
    about="features learn in rounds, from labels that an optimiser makes out of them",
    aligns=("pair", "points"),
    trained=True,
    papers=(
        Paper(
            "bigalke2023cyclical",
            "Bigalke, Alexander and Hansen, Lasse and Mok, Tony C. W. and Heinrich, Mattias P.",
            "Unsupervised 3D Registration Through Optimization-Guided Cyclical Self-training",
            "Medical Image Computing and Computer Assisted Intervention (MICCAI)",
            2023,
            "10.1007/978-3-031-43999-5_64",
            pages="677--687",
        ),
    ),
)
