"""Residual U-Nets for visits of one person, without pre-alignment, after a rigid one, and after a rigid and affine one.

| | paper (Dimitrijevic et al. 2022) | here | why |
|---|---|---|---|
| pre-alignment | ANTs, Mattes' MI, rigid or rigid + affine | the linear stages of `fast`, MI | |
| moving image | resampled, and once more by the network | pulled once | a softer image raises LNCC by itself |
| energy | LNCC + squared gradient, weights not given | LNCC(9) + 1 diffusion | VoxelMorph's, and the house's |
| optimiser | Adam, 1e-4 | Adam, 1e-4 on `visits`; 1e-3 elsewhere | few updates |
| updates, batch | not given | until Dice of validation pairs is flat, 1 | |
| intensities | 0 … 1, by minimum and maximum (DeepReg) | by percentiles | one bright vessel decides else |
| split | 85 to 15, pairs | 70, 15 and 15 to 100, children | a child would be on both sides |
| pairs | 434, unordered | earlier to later | as many |
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from pullback.alignment import Register
from pullback.data import Prealigned
from pullback.methods.pair.classical import FAST
from pullback.methods.pair.residual_unet import ResidualUNet
from pullback.recipes.datasets import DATASETS
from pullback.recipes.lookup import Key
from pullback.recipes.unsupervised import ENERGY
from pullback.study.recipe import Recipe
from pullback.training import Plateau, Training, Unsupervised

RIGID = replace(FAST, linear=FAST.linear[:1], deformable=None)
AFFINE = replace(FAST, deformable=None)
KEPT = "prealigned"
"""Folder of the transforms, where no other is named."""
PREALIGNED: Mapping[str, Register | None] = MappingProxyType(
    {"residual-unet": None, "residual-unet-rigid": RIGID, "residual-unet-affine": AFFINE}
)
"""What comes before the network, by the name of the variant."""
TRAINING: Mapping[str, Training] = MappingProxyType(
    {
        "phantom": Training(updates=1000, lr=1e-3),
        "folder": Training(updates=5000, lr=1e-3),
        "growth": Training(updates=400, lr=1e-3, validate_every=100),
        "growing-brains": Training(updates=2000, lr=1e-3, validate_every=100),
        "visits": Training(updates=40_000, lr=1e-4, plateau=Plateau(), log_every=100, validate_every=500),
    }
)
"""Numbers of the loop, by data set."""


def residual(variant: str, data: str) -> Recipe:
    """Return the recipe of one of the variants in `PREALIGNED`, on one of the data sets in `TRAINING`."""
    images, register = DATASETS[data], PREALIGNED[variant]
    before = "" if register is None else f", after a {variant.removeprefix('residual-unet-')} pre-alignment"
    return Recipe(
        about=f"residual U-Net{before}, {images.about}: Dimitrijevic et al. 2022, table 1",
        data=images.data if register is None else Prealigned(images.data, register, KEPT),
        network=partial(ResidualUNet, ndim=images.ndim),
        supervision=Unsupervised(ENERGY),
        training=TRAINING[data],
        metrics=images.metrics,
    )


recipes: Mapping[Key, Recipe] = MappingProxyType(
    {Key(variant, "residual-unet", data): residual(variant, data) for variant in PREALIGNED for data in TRAINING}
)
