"""PWC-Net (Sun et al. 2018), told by the true motion of pairs that are made.

| | paper | here | why |
|---|---|---|---|
| pairs | rendered chairs and things, then films | one image each, moved by `Synthesis` | |
| loss | distances of the flow on each level, weighed | the same | |
| widths | as published | as published on `folder`, half as many elsewhere | for two cores |
| features | compared as they are | so on `folder`, elsewhere standardised | few updates learn nothing else |
| updates | 1.2 million, batches of 8 | 3,000 pairs | for two cores |
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from pullback.data import Synthesis, Synthetic
from pullback.methods.pair.pwc_net import CONTEXT, DENSE, WIDTHS, FlowDistance, PWCNet
from pullback.metrics import Dice, EndPointError, Folding
from pullback.recipes.datasets import DATASETS
from pullback.recipes.lookup import Key
from pullback.study.recipe import Recipe
from pullback.training import Training

NAME, NETWORK = "pwc-net", "pwc"
NARROW: Mapping[str, Any] = MappingProxyType(
    {
        name: tuple(n // 2 for n in widths)
        for name, widths in (("widths", WIDTHS), ("dense", DENSE), ("context", CONTEXT))
    }
    | {"normalised": True}
)
"""Half the channels, a quarter of the work; and features that few updates can learn from."""
TRAINING = Training(updates=3000, lr=3e-4, log_every=50, validate_every=250)
SETS: Mapping[str, tuple[Synthesis, Mapping[str, Any], Training]] = MappingProxyType(
    {
        "compressions": (Synthesis(2.5, 6, 5.0, 3.0, 1.2, 0.1), NARROW, TRAINING),
        "slices": (Synthesis(8.0, 6, 5.0, 8.0, 1.2, 0.1), NARROW, TRAINING),
        "folder": (Synthesis(), MappingProxyType({}), replace(TRAINING, updates=50_000, batch=8)),
    }
)
"""By data set: how moving images are made, the network's widths, and the numbers of the loop."""


def told(data: str) -> Recipe:
    """Return the recipe on one of the data sets in `SETS`."""
    images, (synthesis, widths, training) = DATASETS[data], SETS[data]
    return Recipe(
        about=f"PWC-Net, told by the motion of pairs that are made, {images.about}",
        data=replace(images.data, synthetic=Synthetic(synthesis)),  # type: ignore[type-var]
        network=partial(PWCNet, ndim=2, **widths),
        supervision=FlowDistance(),
        training=replace(training, augment=synthesis),
        metrics=(EndPointError(), Dice(), Folding()),
    )


recipes: Mapping[Key, Recipe] = MappingProxyType({Key(NAME, NETWORK, data): told(data) for data in SETS})
