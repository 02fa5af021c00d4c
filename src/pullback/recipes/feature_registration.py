"""Features between which an optimiser finds the displacement (Bigalke et al. 2023), learned by a metric.

The twins of `cyclical` in the paper's table 2, and the sizes of the network that both have.

| | paper | here | why |
|---|---|---|---|
| updates, batch | 8,000 of two | as many on `abdomen`, fewer elsewhere | two cores |
| learning rate | 1e-3, one cosine a round | 1e-3, one cosine | no rounds |
| augmentation | affine | the same as in the rounds | |
| strides | features of an eighth of the size | an eighth on `abdomen`, else a quarter | images of half that length |
| channels | 32, 64, 128 | half on the sets of two cores | |
| regularity of the refinement | not given | 3.5; on `hippocampus` 1.5 | crops deform more within their few voxels |
| metric | MIND; NCC | MIND + 0.1 diffusion; LNCC(9) + 1 diffusion | weights are not given |
| `abdomen` | 190 pairs of 20 scans, 45 for testing | 136 of 17; each test pair one way | three scans validate |
| checkpoint | | the best of every 250 updates | |
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from pullback.energies import LNCC, MIND, Diffusion, Energy
from pullback.methods.pair.cyclical import AUGMENT
from pullback.methods.pair.feature_registration import FeatureRegistration, Refinement
from pullback.recipes.datasets import DATASETS
from pullback.recipes.lookup import Key
from pullback.solvers import Descend, FeatureDescent
from pullback.study.recipe import Recipe
from pullback.training import Cosine, Training, Unsupervised

NETWORK = "feature-registration"
QUARTER, EIGHTH = {"strides": (2, 2, 1)}, {"strides": (2, 2, 2)}
NARROW = {**QUARTER, "widths": (16, 32, 64)}
SUPPLE = {"refinement": Refinement(descent=FeatureDescent(1.5, Descend(steps=50, step_size=1.0)))}
SIZES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "phantom": NARROW,
        "folder": QUARTER,
        "hippocampus": NARROW | SUPPLE,
        "brains": NARROW,
        "abdomen": EIGHTH,
    }
)
"""What the network is made with, by data set."""

FULL = Training(updates=8000, batch=2, lr=1e-3, schedule=Cosine(0.01))
UPDATES: Mapping[str, int] = MappingProxyType(
    {"phantom": 150, "folder": 1000, "hippocampus": 2000, "brains": 400, "abdomen": 8000}
)
METRICS: Mapping[str, tuple[str, Energy]] = MappingProxyType(
    {"mind": ("MIND", MIND() + 0.1 * Diffusion()), "lncc": ("LNCC", LNCC(9) + 1.0 * Diffusion())}
)


def by_metric(metric: str, data: str) -> Recipe:
    """Return the recipe of one of `METRICS` on one of the data sets in `SIZES`."""
    (called, energy), images = METRICS[metric], DATASETS[data]
    return Recipe(
        about=f"Features between which an optimiser finds the way, by {called}, {images.about}",
        data=images.data,
        network=partial(FeatureRegistration, ndim=images.ndim, **SIZES[data]),
        supervision=Unsupervised(energy),
        training=replace(FULL, updates=UPDATES[data], augment=AUGMENT),
        metrics=images.metrics,
    )


recipes: Mapping[Key, Recipe] = MappingProxyType(
    {Key(f"{NETWORK}-{metric}", NETWORK, data): by_metric(metric, data) for metric in METRICS for data in SIZES}
)
