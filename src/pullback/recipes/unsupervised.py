"""Networks that answer with a field, and learn by the energy of their answers.

Numbers that all networks of one data set share, whatever supervises them; `ofg` changes the supervision alone.

| | paper (Xin et al. 2024) | here | why |
|---|---|---|---|
| updates on its sets | 500 epochs | as many | of `oasis` and `abdomen` two updates a subject, as its code |
| batch | 1 | 1 | |
| learning rate | 1e-4, falling | 1e-4, `Poly` | as its code |
| optimiser | Adam | Adam; its code: with AMSGrad | |
| energy | NCC + diffusion | LNCC(9) + 1 diffusion | |
| updates on other sets | | 600 to 5,000, 1e-3 | two cores; too few for the rate to decay |
| `hippocampus` | | 5e-4 | VoxelMorph diverges at 1e-3 |
| transformers | | at most 3e-4 | they diverge at rates at which a small U-Net learns fastest |
| VoxelMorph | 274,387 parameters, in its code | `voxelmorph-light`; `voxelmorph` has 300,547 | VoxelMorph's paper |
| augmentation | flips on IXI, in its code | the same | |
| `superwarp` | not in it | four levels, 331,988 parameters | about as many as VoxelMorph |
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from pullback.energies import LNCC, Diffusion
from pullback.methods.pair.superwarp import SuperWarp
from pullback.methods.pair.transmorph import TransMorph
from pullback.methods.pair.vit_v_net import ViTVNet
from pullback.methods.pair.voxelmorph import LIGHT, LIGHT_ENCODER, VoxelMorph
from pullback.recipes.datasets import DATASETS
from pullback.recipes.lookup import Key, plainly
from pullback.study.recipe import Recipe
from pullback.training import Poly, RandomFlips, Training, Unsupervised

ENERGY = LNCC(9) + 1.0 * Diffusion()
EPOCHS = 500
FULL = Training(lr=1e-4, schedule=Poly(), log_every=100, validate_every=2000, save_every=500)
TRAINING: Mapping[str, Training] = MappingProxyType(
    {
        "phantom": Training(updates=1000, lr=1e-3),
        "folder": Training(updates=5000, lr=1e-3),
        "hippocampus": Training(updates=2000, lr=5e-4),
        "brains": Training(updates=600, lr=1e-3, validate_every=100),
        "slices": Training(updates=2000, lr=1e-3),
        "ixi": replace(FULL, updates=EPOCHS * 200, augment=RandomFlips()),
        "oasis": replace(FULL, updates=EPOCHS * 200 * 2),
        "lpba40": replace(FULL, updates=EPOCHS * 30),
        "abdomen": replace(FULL, updates=EPOCHS * 30 * 2),
    }
)
"""Numbers of the loop, by data set."""

NETWORKS: Mapping[str, tuple[str, Callable[..., Any], float]] = MappingProxyType(
    {
        "voxelmorph": ("VoxelMorph", VoxelMorph, 1.0),
        "vit-v-net": ("ViT-V-Net", ViTVNet, 3e-4),
        "transmorph": ("TransMorph", TransMorph, 3e-4),
        "voxelmorph-light": (
            "VoxelMorph of On-the-Fly Guidance",
            partial(VoxelMorph, encoder=LIGHT_ENCODER, decoder=LIGHT, halves=1),
            1.0,
        ),
        "superwarp": ("SuperWarp", partial(SuperWarp, widths=(8, 16, 24, 32), wide=False), 1.0),
    }
)
"""Networks by name: what they are called, how they are made, and the highest learning rate that they bear."""


def unsupervised(network: str, data: str) -> Recipe:
    """Return the recipe of one of `NETWORKS` on one of the data sets in `TRAINING`."""
    (called, kind, highest), images, training = NETWORKS[network], DATASETS[data], TRAINING[data]
    return Recipe(
        about=f"{called}, unsupervised, {images.about}",
        data=images.data,
        network=partial(kind, ndim=images.ndim),
        supervision=Unsupervised(ENERGY),
        training=replace(training, lr=min(training.lr, highest)),
        metrics=images.metrics,
    )


TAUGHT = ("superwarp",)
"""Networks whose own methods teach them otherwise."""

recipes: Mapping[Key, Recipe] = MappingProxyType(
    {
        Key(plainly(network) if network in TAUGHT else network, network, data): unsupervised(network, data)
        for network in NETWORKS
        for data in TRAINING
    }
)
