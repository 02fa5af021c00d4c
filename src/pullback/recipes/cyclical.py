"""Cyclical self-training (Bigalke et al. 2023) of features of images and of clouds, and of VoxelMorph.

Sizes and updates are those of `feature_registration`, for clouds of `graph_propagation`; what differs from them:

| | paper | here | why |
|---|---|---|---|
| rounds of features of images | 8 of 1,000 updates | 8 on `abdomen`; 3 to 5 elsewhere | fewer updates |
| pairs that are labelled | 190 | 136 on `abdomen`, 6.4 GB of labels; 30 to 100 elsewhere | of 17 scans, see there |
| learning rate | one cosine a round | the same | |
| checkpoint | | of the best round | as of any training |
| clouds | 60 epochs in five rounds | the same | |
| VoxelMorph (Xin et al. 2024, table 3) | | five rounds of at most 200 pairs, in as many updates as `ofg` | |
| its labels | | 50 steps of descent at a voxel each | a label may lie far from the guess |
| its augmentation | affine | on the papers' sets | within few updates it learns nothing but the affines |
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from pullback.methods.pair.cyclical import AUGMENT, FieldLabels, WithRefinement
from pullback.methods.points.augment import Affines, NearTruth
from pullback.methods.points.cyclical import PointLabels
from pullback.methods.points.supervision import PointDistance
from pullback.recipes.datasets import DATASETS
from pullback.recipes.feature_registration import METRICS, NETWORK, SIZES, by_metric
from pullback.recipes.graph_propagation import AS_PUBLISHED, DATA as CLOUDS, NETWORK as GRAPH, PUBLISHED, features
from pullback.recipes.lookup import Key
from pullback.recipes.unsupervised import ENERGY, TRAINING, unsupervised
from pullback.solvers import Descend, InstanceOptimisation
from pullback.study.recipe import Recipe
from pullback.training import Cosine, Cyclical, KnownTransform

METHOD = "cyclical"
ROUNDS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"phantom": (3, 40), "folder": (5, 100), "hippocampus": (5, 60), "brains": (4, 30), "abdomen": (8, 136)}
)
"""Rounds, and pairs that are labelled for each, by data set."""
AUGMENTED = ("ixi", "oasis", "lpba40", "abdomen")


def in_rounds(data: str) -> Recipe:
    """Return the recipe of features of images on one of the data sets in `ROUNDS`."""
    twin, (rounds, pairs) = by_metric(next(iter(METRICS)), data), ROUNDS[data]
    return replace(
        twin,
        about=f"Features between which an optimiser finds the way, cyclical self-training, {DATASETS[data].about}",
        supervision=KnownTransform(),
        training=replace(twin.training, augment=None),
        procedure=Cyclical(FieldLabels(), rounds, pairs, AUGMENT),
    )


def voxelmorph(data: str) -> Recipe:
    """Return the recipe of VoxelMorph on one of the data sets of `unsupervised`."""
    plain = unsupervised("voxelmorph", data)
    refine = InstanceOptimisation(ENERGY, Descend(steps=50, step_size=1.0))
    pairs = ROUNDS[data][1] if data in ROUNDS else 200
    return replace(
        plain,
        about=f"VoxelMorph, cyclical self-training, {DATASETS[data].about}: beside Xin et al. 2024, table 3",
        network=partial(WithRefinement, network=plain.network, refine=refine),
        supervision=KnownTransform(),
        training=replace(plain.training, schedule=Cosine(0.01)),
        procedure=Cyclical(FieldLabels(), 5, pairs, AUGMENT if data in AUGMENTED else None),
    )


def clouds(data: str) -> Recipe:
    """Return the recipe of features of clouds on one of both sets of them."""
    labels = PointLabels(AS_PUBLISHED) if data == PUBLISHED else PointLabels()
    how = Cyclical(labels, rounds=5, pairs=9, augment=Affines(), easy=False)
    return features("cyclical self-training", PointDistance(), (NearTruth(),), how, data)


recipes: Mapping[Key, Recipe] = MappingProxyType(
    {Key(METHOD, NETWORK, data): in_rounds(data) for data in SIZES}
    | {Key(METHOD, "voxelmorph", data): voxelmorph(data) for data in TRAINING}
    | {Key(METHOD, GRAPH, data): clouds(data) for data in (CLOUDS, PUBLISHED)}
)
