"""PC-SwinMorph (Liu et al. 2022): recipes by data; the paper refers to its authors' earlier code, [L], for all numbers.

| | [L], Liu et al. 2020 | here | why |
|---|---|---|---|
| patches | not given | two along each axis | |
| channels | 16, 32, 64 | of `lpba40` and `folder`; else half of these | two cores |
| similarity, regularity | MSE; KL of a probabilistic field | LNCC(9) + 1 diffusion, both ways | as all recipes |
| contrast | NT-Xent, 0.5, weight 1e-4, of people | the same of places, weight 0.01 | 0.01 counts twice there |
| optimiser, rate | Adam, 3e-3, a tenth every ten epochs; batch 8 | Adam, 1e-3; batch 1 | one pair has its negatives |
| `lpba40` | pairs within 1 to 30, tested within 31 to 40 | the same; 29 and 30 validate | |
| | voxels of 2 mm, crops of 72×96×72, flips and turns | as distributed | patches fit |
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from pullback.data import Dataset, PairFolder
from pullback.methods.pair.patch_contrast import PatchContrastive
from pullback.methods.pair.pc_swinmorph import PCSwinMorph
from pullback.recipes.datasets import DATASETS
from pullback.recipes.lookup import Key
from pullback.recipes.unsupervised import ENERGY
from pullback.study.recipe import Recipe
from pullback.training import Training

NAME, NETWORK = "pc-swinmorph", "unet"
FULL: Mapping[str, Any] = MappingProxyType({})
NARROW: Mapping[str, Any] = MappingProxyType({"widths": (8, 16, 32), "embed": 24})
SETS: Mapping[str, tuple[Mapping[str, Any], Training]] = MappingProxyType(
    {
        "phantom": (NARROW, Training(updates=1000, lr=1e-3)),
        "folder": (FULL, Training(updates=5000, lr=1e-3)),
        "slices": (NARROW, Training(updates=2000, lr=1e-3)),
        "brains": (
            MappingProxyType({**NARROW, "window": (5, 6, 7)}),
            Training(updates=600, lr=1e-3, validate_every=100),
        ),
        "lpba40": (FULL, Training(updates=30 * 29 * 20, lr=1e-3, validate_every=500, save_every=500)),
    }
)
"""By data set: what differs in the network, and the numbers of the loop."""


def people(data: str) -> Dataset:
    """Return a data set; of LPBA40 as the paper's authors split it, pairs of any two people."""
    known = DATASETS[data].data
    if data != "lpba40":
        return known
    assert isinstance(known, PairFolder)
    return replace(known, atlas=None, validation_split=("S29", "S30"), test_split=tuple(f"S{n}" for n in range(31, 41)))


def patches(data: str) -> Recipe:
    """Return the recipe on one of the data sets in `SETS`."""
    images, (differs, training) = DATASETS[data], SETS[data]
    return Recipe(
        about=f"PC-SwinMorph, patches both ways, {images.about}: Liu et al. 2022",
        data=people(data),
        network=partial(PCSwinMorph, ndim=images.ndim, **differs),
        supervision=PatchContrastive(ENERGY),
        training=training,
        metrics=images.metrics,
    )


recipes: Mapping[Key, Recipe] = MappingProxyType({Key(NAME, NETWORK, data): patches(data) for data in SETS})
