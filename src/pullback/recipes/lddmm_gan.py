"""LDDMM-GAN (Ramon et al. 2022): a stationary velocity or the initial one of a geodesic, two streams or a U-Net.

Without a discriminator, with β = 0 and with a fast discriminator they are arms of the study.

| | paper | here | why |
|---|---|---|---|
| λ, σ², α, s, β | 1000, 1, 0.0025, 4, 0.2 | the same | |
| squaring, Euler's steps | 8, 10 | the same | |
| learning rates of network and discriminator | 5e-5, 1e-6 of Adam | the same on `tori` and `folder` | |
| `tori` | 1000 epochs of 2560, 64 at once | 40,000 updates of 64 pairs | |
| `folder` | 50 epochs of 2113 brains | as many updates: 105,650 | |
| U-Net of the ablation | "a simple U-net" | its widths, one stream: half the weights | |
| `hippocampus`, `brains` | | fewer updates at ten times the rates, coarser fields | for two cores |
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from pullback.data import Tori
from pullback.energies import MSE, Kinetic
from pullback.methods.pair.lddmm_gan import Adversarial, Coarser, TwoStream, adversary
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.numerics.integrate import euler
from pullback.numerics.kernel import Sobolev
from pullback.recipes.datasets import DATASETS
from pullback.recipes.lookup import Key
from pullback.space import Dense, Geodesic, Grid, Velocity
from pullback.study.recipe import Recipe
from pullback.training import Training

KERNEL = Sobolev(alpha=0.0025, power=4.0, unit="side")
ENERGY = MSE() + 1.0 * Kinetic(KERNEL)
KINDS: Mapping[str, tuple[str, Callable[..., Dense]]] = MappingProxyType(
    {
        "svf-gan": ("SVF-GAN", partial(Velocity, squarings=8)),
        "epdiff-gan": ("EPDiff-GAN", partial(Geodesic, kernel=KERNEL, steps=10, scheme=euler)),
    }
)
"""Methods by name: what they are called, and the kind of field that they predict."""

NETWORKS: Mapping[str, tuple[str, partial[Any]]] = MappingProxyType(
    {
        "two-stream": ("two streams", partial(TwoStream)),
        "unet": ("a U-Net", partial(VoxelMorph, encoder=(32, 64, 64), decoder=(64, 64, 32, 16, 16))),
    }
)
"""Networks by name: what they are called, and how they are made."""

FULL = Training(updates=40_000, lr=5e-5, players=(adversary(1e-6),), log_every=100, validate_every=2000, save_every=500)
FAST = replace(FULL, lr=5e-4, players=(adversary(1e-5),), log_every=10, validate_every=250, save_every=100)
TRAINING: Mapping[str, Training] = MappingProxyType(
    {
        "tori": FULL,
        "hippocampus": replace(FAST, updates=2000),
        "brains": replace(FAST, updates=600, validate_every=100),
        "folder": replace(FULL, updates=50 * 2113),
    }
)
"""Numbers of the loop, by data set."""

COARSER = ("hippocampus", "brains")  # sets of which a field has half as many voxels along each axis as the images


def kind_of(method: str, data: str) -> Callable[[Any, Grid], Dense]:
    """Return the kind of field that a method predicts on a data set."""
    kind = KINDS[method][1]
    return Coarser(kind) if data in COARSER else kind


def adversarial(method: str, network: str, data: str) -> Recipe:
    """Return the recipe of one of `KINDS` by one of `NETWORKS` on one of the data sets in `TRAINING`."""
    (name, make), images = NETWORKS[network], DATASETS[data]
    return Recipe(
        about=f"{KINDS[method][0]} by {name}, {images.about}: Ramon et al. 2022",
        data=Tori(at_once=64) if data == "tori" else images.data,
        network=partial(make, ndim=images.ndim, transform=kind_of(method, data)),
        supervision=partial(Adversarial, ndim=images.ndim, energy=ENERGY),
        training=TRAINING[data],
        metrics=images.metrics,
    )


recipes: Mapping[Key, Recipe] = MappingProxyType(
    {
        Key(method, network, data): adversarial(method, network, data)
        for method in KINDS
        for network in NETWORKS
        for data in TRAINING
    }
)
