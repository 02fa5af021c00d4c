"""NCR-Net (Andresen et al. 2022): recipes by whose images make a pair.

`ncr-net` learns from pairs of two people, `ncr-net-within` from images of one, whose usual residual is smaller. β is
measured after the first phase, so both are one recipe but for the pairs.

| | paper | here | why |
|---|---|---|---|
| network | U-Net with two decoders | n = 8; 6 or 4 on small sets | two cores |
| optimiser | not given; Adam 1e-4, × 0.8 at each tenth, batch 5 of its successor | Adam 1e-3, one pair | small sets |
| epochs | not given; 200 + 400 of its successor | 600 to 5,000 updates in all | small sets |
| phases | the first, then both | 40 % of the updates | a third in its successor |
| α, β, γ | not given | 0.05, measured, from the smallest lesion | |
| weights kept | not given | the last | as its successor: neither labels nor lesions choose |
| lesions | four simulated strokes | painted in anew at each update (`PaintedLesion`) | |
| L | Dice of brain masks, optional | none; `--set supervision.guide={part: pullback.energies.overlap.SoftDice}` | |
"""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from pullback.data import PaintedLesion
from pullback.methods.pair.ncr_net import NCRNet
from pullback.methods.pair.non_correspondence import Corresponding, InTwoPhases
from pullback.metrics import LesionDice
from pullback.recipes.datasets import DATASETS
from pullback.recipes.lookup import Key
from pullback.study.recipe import Recipe
from pullback.training import Training

NAME, WITHIN, NETWORK = "ncr-net", "ncr-net-within", "y-unet"
LAST = 1.0  # share of the updates: the last weights are kept
SMALLEST = 1.5  # voxels, at which a lesion of D = 2 β is just marked
TRAINING: Mapping[str, tuple[int, Training]] = MappingProxyType(
    {
        "lesions": (4, Training(updates=600, lr=1e-3, augment=PaintedLesion(), choose_from=LAST)),
        "stroke-slices": (6, Training(updates=2000, lr=1e-3, augment=PaintedLesion(), choose_from=LAST)),
        "stroke-brains": (4, Training(updates=1500, lr=1e-3, augment=PaintedLesion(), choose_from=LAST)),
        "slices": (6, Training(updates=2000, lr=1e-3, choose_from=LAST)),
        "brains": (4, Training(updates=3000, lr=1e-3, choose_from=LAST)),
        "folder": (8, Training(updates=5000, lr=1e-3, choose_from=LAST)),
    }
)
"""Width of the network and numbers of the loop, by data set."""


def marking(method: str, data: str) -> Recipe:
    """Return the recipe of `NAME` on one of the data sets in `TRAINING`, or of `WITHIN` on `follow-ups`."""
    images, (width, training) = DATASETS[data], TRAINING["folder" if method == WITHIN else data]
    metrics = images.metrics if LesionDice() in images.metrics else (*images.metrics, LesionDice())
    return Recipe(
        about=f"NCR-Net, aligns and marks what has no counterpart, {images.about}: Andresen et al. 2022",
        data=images.data,
        network=partial(NCRNet, ndim=images.ndim, width=width),
        supervision=Corresponding(),
        training=training,
        metrics=metrics,
        procedure=InTwoPhases(radius=SMALLEST),
    )


recipes: Mapping[Key, Recipe] = MappingProxyType(
    {
        **{Key(NAME, NETWORK, data): marking(NAME, data) for data in TRAINING},
        Key(WITHIN, NETWORK, "follow-ups"): marking(WITHIN, "follow-ups"),
    }
)
