"""Decomposition with attention (Zou et al. 2022): recipes by what bends the way.

`decomposed` has attention on fields and on features of the image along them, `decomposed-fields` on fields alone, as
the paper's figure has it; `decomposed-linear` has none; `decomposed-velocity` has none and cuts a velocity.

| | paper | here | why |
|---|---|---|---|
| backbone | 3-D U-Net | VoxelMorph's; of slices a quarter of its channels | two cores |
| ℓ, R, λ | not named | LNCC(9), diffusion, 1 | as all recipes; density differs |
| optimiser, rate, updates | not given | Adam, 1e-3; 5e-4 on CT | |
| images | ten phases | five of each half of a breath | two samples of one person |
| `dirlab` | 4-D CT, cross-validation | the same, voxels of 2 mm | |
"""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from pullback.methods.pair.decomposed import AlongTheWay, Decomposed
from pullback.metrics import BetweenError
from pullback.recipes.datasets import DATASETS
from pullback.recipes.lookup import Key
from pullback.recipes.unsupervised import ENERGY
from pullback.space import Velocity
from pullback.study.recipe import Recipe
from pullback.training import Training

NETWORK = "unet"
NARROW = {"encoder": (8, 16, 16, 16), "decoder": (16, 16, 16, 16, 8, 8)}
TRAINING: Mapping[str, Training] = MappingProxyType(
    {
        "breathing-slices": Training(updates=600, lr=1e-3, validate_every=200),
        "breathing": Training(updates=1000, lr=1e-3, validate_every=100),
        "series": Training(updates=5000, lr=5e-4),
        "dirlab": Training(updates=2000, lr=5e-4, validate_every=200),
    }
)
"""Numbers of the loop, by data set."""
VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "decomposed": ("attention on features along the way", {}),
        "decomposed-fields": ("attention on fields", {"features": 0}),
        "decomposed-linear": ("straight", {"heads": 0}),
        "decomposed-velocity": ("by a velocity", {"heads": 0, "transform": Velocity}),
    }
)
"""Variants by their names as methods: what they are called, and what differs in the network."""


def decomposed(variant: str, data: str) -> Recipe:
    """Return the recipe of one of `VARIANTS` on one of the data sets in `TRAINING`."""
    (called, differs), images = VARIANTS[variant], DATASETS[data]
    size: Mapping[str, Any] = NARROW if images.ndim == 2 else {}
    return Recipe(
        about=f"A motion in the phases of a series, {called}, {images.about}",
        data=images.data,
        network=partial(Decomposed, ndim=images.ndim, **size, **differs),
        supervision=AlongTheWay(ENERGY, frugal=data == "dirlab"),
        training=TRAINING[data],
        metrics=(*images.metrics, BetweenError()),
    )


recipes: Mapping[Key, Recipe] = MappingProxyType(
    {Key(variant, NETWORK, data): decomposed(variant, data) for variant in VARIANTS for data in TRAINING}
)
