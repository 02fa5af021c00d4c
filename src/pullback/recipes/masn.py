"""Multi-magnification networks of stained sections (WBIR 2022): one view of a patch or two, of either network.

| | paper | here | why |
|---|---|---|---|
| images | 36 slides, 3,000 to 7,000 pixels | your own; on `sections` single ones, stained anew | not public |
| pre-alignment | DeepHistReg's, rigid | the rigid stage of `fast`; none on `sections` | |
| patches | 224, of 448 | the same; on `sections` 16, of 32, of every 14th pixel | minutes of one core |
| widths | not in the text | 32 to 256; 8 to 32 on `sections` | |
| overlap | not said | half a patch | |
| loss | one less NCC over pixels above 0 | the same over the foreground (Otsu) | glass is not quite 0 |
| images in the loss | as they are | the same; on `sections` through a Gaussian of a pixel | see `OfPatches` |
| regularity | 60 times curvature | 26.7 times bending, which is that | see `OfPatches` |
| optimiser | Adam, 1e-3, decays by 0.95 | the same, 50 times; 3e-3 on `sections` | epochs are not said |
| batch | 4 | four patches of one pair; eight on `sections` | |
| training | one network after the other | both in each update, apart | |
| updates | not said | 3,000; 1,500 on `sections` | minutes of one core |
| checkpoint | not said | the last | no labels to choose by |
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from pullback.data import Prealigned, Restaining
from pullback.methods.pair.classical import FAST
from pullback.methods.pair.masn import MASN, NARROW, WIDE, OfPatches
from pullback.recipes.datasets import DATASETS
from pullback.recipes.lookup import Key
from pullback.study.recipe import Recipe
from pullback.training import Decay, InTurn, RandomPatches, Training

RIGID = replace(FAST, linear=FAST.linear[:1], deformable=None)
KEPT = "prealigned"
"""Folder of the transforms, where no other is named."""
VARIANTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "masn": {"affine": WIDE, "field": NARROW},
        "sasn": {"affine": NARROW, "field": NARROW},
        "samn": {"affine": NARROW, "field": WIDE},
        "mamn": {"affine": WIDE, "field": WIDE},
    }
)
"""Views of the affine and of the field network, by name."""
PATCHES = 4
TRAINING = Training(3000, lr=1e-3, schedule=Decay(), choose_from=1.0, log_every=50, validate_every=1000)
SMALL: Mapping[str, Any] = MappingProxyType({"widths": (8, 16, 32), "size": 16})


def by_patches(variant: str, data: str) -> Recipe:
    """Return the recipe of one of `VARIANTS` on pairs of sections, after a rigid alignment."""
    images = DATASETS[data]
    return Recipe(
        about=f"{variant.upper()} after a rigid alignment, {images.about}",
        data=Prealigned(images.data, RIGID, KEPT),
        network=partial(MASN, ndim=2, **VARIANTS[variant]),
        supervision=OfPatches(),
        training=replace(TRAINING, augment=RandomPatches(448, 224, PATCHES)),
        metrics=images.metrics,
    )


def restained(variant: str, making: Restaining = Restaining()) -> Recipe:
    """Return the recipe of one of `VARIANTS`, small, on single sections that are bent and stained anew."""
    images, augment = DATASETS["sections"], InTurn((making, RandomPatches(32, 16, 2 * PATCHES)))
    return Recipe(
        about=f"{variant.upper()}, small, {images.about}",
        data=replace(images.data, making=making),  # type: ignore[type-var]
        network=partial(MASN, ndim=2, **VARIANTS[variant], **SMALL),
        supervision=OfPatches(smoothing=1.0),
        training=replace(TRAINING, updates=1500, lr=3e-3, augment=augment, validate_every=500),
        metrics=images.metrics,
    )


recipes: Mapping[Key, Recipe] = MappingProxyType(
    {Key(variant, "masn", "sections"): restained(variant) for variant in VARIANTS}
    | {Key(variant, "masn", data): by_patches(variant, data) for variant in VARIANTS for data in ("stains", "birl")}
)
