"""On-the-Fly Guidance (Xin et al. 2024): recipes that differ from `unsupervised` in their supervision alone.

| | paper | here | why |
|---|---|---|---|
| steps of the label | 10 of Adam, 0.1 voxel at first | the same | |
| ε of that Adam | 1e-8 in its code | `FieldAdam()`: theirs at their size | else labels of small images are too smooth |
| decay of the step | as the learning rate, in its code | the same (`fading`) | |
| weight decay of 0.02 | "as suggested in VoxelMorph" | 0.02 × diffusion of the guess | VoxelMorph suggests that |
| guess and label | compared by mean squares | `ofg` the same; `ofg-h1` with strains | fine motion is learned sooner |
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from pullback.methods.pair.ofg import Guided, Mixture
from pullback.methods.pair.self_training import SelfTraining
from pullback.methods.pair.strain import Relative, Strain
from pullback.recipes.datasets import DATASETS
from pullback.recipes.lookup import Key
from pullback.recipes.unsupervised import ENERGY, NETWORKS, TRAINING, unsupervised
from pullback.study.recipe import Recipe
from pullback.training import Training

Way = TypeVar("Way")
VARIANTS: Mapping[str, tuple[str, Strain]] = MappingProxyType(
    {"ofg": ("On-the-Fly Guidance", 0.0), "ofg-h1": ("On-the-Fly Guidance in H¹", Relative())}
)
"""Variants by their names as methods: what they are called, and the weight of strain."""


def fading(supervision: Way, training: Training) -> Way:
    """Return a supervision whose step, by which labels are made, falls as the network's learning rate does."""
    if isinstance(supervision, Mixture):
        return replace(supervision, guided=fading(supervision.guided, training))
    if isinstance(supervision, Guided | SelfTraining):
        return replace(supervision, decay=training.schedule)
    return supervision


def guided(variant: str, network: str, data: str) -> Recipe:
    """Return the recipe of one of `VARIANTS`, of one of the networks on one of the data sets of `unsupervised`."""
    plain, (name, strain) = unsupervised(network, data), VARIANTS[variant]
    return replace(
        plain,
        about=f"{NETWORKS[network][0]}, {name}, {DATASETS[data].about}",
        supervision=fading(Guided(ENERGY, strain=strain), plain.training),
    )


recipes: Mapping[Key, Recipe] = MappingProxyType(
    {
        Key(variant, network, data): guided(variant, network, data)
        for variant in VARIANTS
        for network in NETWORKS
        for data in TRAINING
    }
)
