"""Features of clouds (Hansen & Heinrich 2021), learned in the ways of Bigalke et al. 2023, table 3.

| | paper | here | why |
|---|---|---|---|
| learning rate, batch | 1e-3, 4 | the same | |
| epochs | 60, in five rounds | 600 updates, as many | five to seven patients are left to learn from |
| validation | | every 120 updates | a round of `cyclical` |
| rigid maps, random fields | no numbers | `Rigid()`, `RandomField()` | |
| weights of the metric | not given | `ByMetric()` | |
| candidates, moving graph | 256, 30 in their code | so on `lungs-published`; 64, 10 on `lungs` | sparser |
| candidates while learning | as many | 64; 32 on `lungs` | seconds |
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from pullback.methods.points.augment import (
    Affines,
    Chosen,
    NearTruth,
    RandomField,
    Rigid,
    SyntheticClouds,
    from_landmarks,
)
from pullback.methods.points.evaluation import LandmarkEvaluation
from pullback.methods.points.graph_propagation import Match, RegisterClouds
from pullback.methods.points.supervision import ByMetric, PointDistance
from pullback.networks import GraphFeatures
from pullback.recipes.datasets import DATASETS
from pullback.recipes.lookup import Key
from pullback.solvers import BeliefPropagation
from pullback.study.recipe import Recipe
from pullback.training import InTurn, Once, Procedure, Steps, Training

METHOD, NETWORK, DATA, PUBLISHED = "graph-propagation", "graph-features", "lungs", "lungs-published"
GRAPH = 30
AS_PUBLISHED = RegisterClouds(
    (BeliefPropagation(256, iterations=10), BeliefPropagation(64, iterations=10)), moving_graph=GRAPH
)
"""The register of the clouds that were published, with the candidates and the moving graph of their authors."""
LEARNING = Match(BeliefPropagation(candidates=64, iterations=5), GRAPH)
TRAINING = Training(updates=600, batch=4, lr=1e-3, schedule=Steps(), validate_every=120)
WAYS: Mapping[str, tuple[str, PointDistance | ByMetric, tuple[Any, ...]]] = MappingProxyType(
    {
        "landmarks": ("by landmarks", PointDistance(), (from_landmarks, Affines(), NearTruth())),
        "rigid": ("by rigid maps that are known", PointDistance(), (SyntheticClouds(Rigid()),)),
        "field": ("by random fields that are known", PointDistance(), (SyntheticClouds(RandomField()),)),
        "metric": ("by a metric of the clouds", ByMetric(), (Affines(),)),
    }
)
"""Ways to learn: in words, by what, and on what each update sees of a pair."""


def features(
    how: str,
    supervision: PointDistance | ByMetric,
    seen: tuple[Any, ...],
    procedure: Procedure = Once(),
    data: str = DATA,
) -> Recipe:
    """Return the recipe of features of clouds that learn so, on one of both sets of clouds."""
    images, dense = DATASETS[data], data == PUBLISHED
    return Recipe(
        about=f"Features of clouds, {how}, {images.about}: Bigalke et al. 2023, table 3",
        data=images.data,
        network=partial(GraphFeatures),
        supervision=replace(supervision, match=LEARNING) if dense else supervision,
        training=replace(TRAINING, augment=InTurn((*seen, Chosen()))),
        metrics=images.metrics,
        procedure=procedure,
        evaluation=partial(LandmarkEvaluation, register=AS_PUBLISHED) if dense else partial(LandmarkEvaluation),
    )


recipes: Mapping[Key, Recipe] = MappingProxyType(
    {
        Key(f"{METHOD}-{name}", NETWORK, data): features(*way, data=data)
        for data in (DATA, PUBLISHED)
        for name, way in WAYS.items()
    }
)
