"""Boxes instead of outlines (Schumacher et al. 2022): what is known of organs, by the network and the data.

`boxes` has tight boxes, `boxes-inexact` those of an annotator who errs by up to 5 %, `boxes-labels` outlines,
`boxes-labels-half` those of half of the people, and `boxes-unsupervised` nothing. All else is alike.

| | paper | here | why |
|---|---|---|---|
| energy | MIND-SSC, diffusion, 2 × boxes | the same on `abdomen` and `folder`; else LNCC | two cores |
| weight of diffusion | not given | 0.1 with MIND, 1 with LNCC | as in other recipes |
| updates, rate | 7,500 of Adam, 1e-3 | the same on `abdomen`; else those of `unsupervised` | |
| `abdomen` | 144×112×144 voxels | as distributed | `pullback prepare` makes others of them |
| head | at full size | at half the size, but for `abdomen` and `folder` | two cores |
| half | less training data | half of the people for training, by name | |
| checkpoint | not given | by Dice of validation pairs, or what the first metric that answers says | |
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from pullback.data import BrainPhantom, Dataset
from pullback.energies import MIND, BoxMSE, Diffusion, Energy, LabelMSE
from pullback.methods.pair.boxes import TwoStreamUNet
from pullback.recipes.datasets import DATASETS
from pullback.recipes.lookup import Key
from pullback.recipes.unsupervised import ENERGY, NETWORKS, TRAINING, unsupervised
from pullback.study.recipe import Recipe, changed
from pullback.training import Training, Unsupervised

NAME, NETWORK, HALF = "boxes", "two-stream", "boxes-labels-half"
WEIGHT, ERROR = 2.0, 0.05
WAYS: Mapping[str, tuple[str, Energy | None]] = MappingProxyType(
    {
        NAME: ("tight boxes", BoxMSE()),
        "boxes-inexact": ("boxes ± 5 %", BoxMSE(ERROR)),
        "boxes-labels": ("labels", LabelMSE()),
        HALF: ("labels of half of the people", LabelMSE()),
        "boxes-unsupervised": ("unsupervised", None),
    }
)
"""What is known of organs, by the name of the variant."""
PAPERS: Energy = MIND() + 0.1 * Diffusion()
ENERGIES: Mapping[str, Energy] = MappingProxyType({"abdomen": PAPERS, "folder": PAPERS})
COMPARED = (NETWORK, "voxelmorph")
"""Networks of which there are recipes of all ways; others learn from tight boxes."""
SETS = ("phantom", "folder", "hippocampus", "brains", "slices", "abdomen")
FULL = Training(updates=7500, lr=1e-3, validate_every=500)


def halved(data: Dataset) -> Mapping[str, str]:
    """Return the settings by which a recipe learns from half of the people of its data."""
    if isinstance(data, BrainPhantom):
        return {"data.train_subjects": str(data.train_subjects // 2)}
    return {"data.learned": "0.5"}


def _network(network: str, data: str) -> tuple[partial[Any], Training]:
    """Return what makes a network for a data set, and how it is trained there."""
    training = FULL if data == "abdomen" else TRAINING[data]
    if network != NETWORK:
        known = unsupervised(network, data)
        return known.network, replace(training, lr=min(training.lr, known.training.lr))
    head = 1 if data in ENERGIES else 2
    return partial(TwoStreamUNet, ndim=DATASETS[data].ndim, head_at=head), training


def guided_by(way: str, network: str, data: str) -> Recipe:
    """Return the recipe of one of `WAYS` for a network on one of `SETS`."""
    (how, known), images = WAYS[way], DATASETS[data]
    energy = ENERGIES.get(data, ENERGY)
    made, training = _network(network, data)
    called = "Two streams" if network == NETWORK else NETWORKS[network][0]
    recipe = Recipe(
        about=f"{called}, {how}, {images.about}",
        data=images.data,
        network=made,
        supervision=Unsupervised(energy if known is None else energy + WEIGHT * known),
        training=training,
        metrics=images.metrics,
    )
    return changed(recipe, halved(images.data)) if way == HALF else recipe


recipes: Mapping[Key, Recipe] = MappingProxyType(
    {
        Key(way, network, data): guided_by(way, network, data)
        for way in WAYS
        for network in (NETWORK, *NETWORKS)
        for data in SETS
        if way == NAME or network in COMPARED
    }
)
