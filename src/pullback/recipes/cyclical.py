"""Cyclical self-training (Bigalke et al. 2023) and its twins, in which the same network learns by a metric.

Twins have as many updates, batches and the same augmentation; but one cosine over all of them, all training pairs in
place of those that were labelled, and the checkpoint that is best of every 250 updates, not of every round.

The abdomen has the paper's numbers: 8 rounds of 1,000 updates, batches of two, and strides after which an image of 192
voxels is 24 long; and all 136 pairs of the 17 scans that are not kept for validation (the paper: 190 of 20), whose
labels take 6.4 GB of memory, and as much on disk for each round. The others are for images about half as long, or less:
the third stride is 1, which leaves them as many; and those of the study for two cores, with half the channels. Crops of
hippocampi deform more within their few voxels and have less regularity: untrained networks leave some 0.1 % of the
validation pairs' voxels folded.

Features of clouds have the paper's rounds, batches and rates, 60 epochs of the five to seven patients that are left to
learn from. What they are compared with learns as long as all rounds together, and is validated every 120 updates, which
are a round.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from pullback.data import Dataset, Learn2Reg, LungKeypoints
from pullback.energies import LNCC, MIND, Diffusion
from pullback.example import Supervision
from pullback.methods.pair.cyclical import AUGMENT, FieldLabels, WithRefinement
from pullback.methods.pair.feature_registration import FeatureRegistration, Refinement
from pullback.methods.points.augment import (
    Affines,
    Chosen,
    FromLandmarks,
    NearTruth,
    RandomField,
    Rigid,
    Synthetic,
)
from pullback.methods.points.cyclical import PointLabels
from pullback.methods.points.evaluation import LandmarkEvaluation
from pullback.methods.points.supervision import ByMetric, PointDistance
from pullback.networks import GraphFeatures
from pullback.recipes.ofg import ENERGY, recipes as guided
from pullback.solvers import Descend, FeatureDescent, InstanceOptimisation
from pullback.study.recipe import Recipe
from pullback.training import Cosine, Cyclical, InTurn, KnownTransform, Once, Procedure, Steps, Training, Unsupervised

FULL = Training(updates=8000, batch=2, lr=1e-3, schedule=Cosine(0.01))
SMALL = replace(FULL, updates=1000)
QUARTER, EIGHTH = {"strides": (2, 2, 1)}, {"strides": (2, 2, 2)}
NARROW = {**QUARTER, "widths": (16, 32, 64)}
SUPPLE = {"refinement": Refinement(descent=FeatureDescent(1.5, Descend(steps=50, step_size=1.0)))}
PAPERS = ("ixi", "oasis", "lpba40", "abdomen")
MORE = ("slices", "ixi", "oasis", "lpba40")  # on which VoxelMorph alone learns so
LEARNED: Mapping[str, tuple[str, Supervision]] = MappingProxyType(
    {
        "cyclical": ("cyclical self-training", KnownTransform()),
        "mind": ("by MIND", Unsupervised(MIND() + 0.1 * Diffusion())),
        "ncc": ("by LNCC", Unsupervised(LNCC(9) + 1.0 * Diffusion())),
    }
)
ROUNDS = partial(Cyclical, FieldLabels(), augment=AUGMENT)
_SETS: Mapping[str, tuple[str, Mapping[str, Any], Training, Cyclical]] = MappingProxyType(
    {
        "phantom": ("the built-in cohort", NARROW, replace(FULL, updates=150), ROUNDS(rounds=3, pairs=40)),
        "folder": ("your own folder of images", QUARTER, SMALL, ROUNDS(rounds=5, pairs=100)),
        "hippocampus": (
            "hippocampus MR (Learn2Reg)",
            NARROW | SUPPLE,
            replace(FULL, updates=2000),
            ROUNDS(rounds=5, pairs=60),
        ),
        "brains": ("whole brains on one grid", NARROW, replace(FULL, updates=400), ROUNDS(rounds=4, pairs=30)),
        "abdomen": ("Abdomen CT-CT (Learn2Reg 2020)", EIGHTH, FULL, ROUNDS(rounds=8, pairs=136)),
    }
)


def _data(name: str) -> Dataset:
    """As of guidance; of the abdomen each test pair one way, as in the paper's 45."""
    data = guided[f"ofg_voxelmorph_{name}"].data
    return replace(data, both_ways=False) if isinstance(data, Learn2Reg) else data


def _voxelmorph(name: str) -> Recipe:
    """In as many updates as On-the-Fly Guidance has on the same images, in five rounds, and of at most 200 pairs.

    What belongs to cyclical self-training stays with it: cosine restarts, pairs that are drawn once, and 50 steps of
    descent at a voxel each, after which a label may be far from the guess; the network sees few of them. Augmentation
    is kept where there are updates enough: within few a network that predicts fields learns nothing but the random
    affines.
    """
    base, pairs = guided[f"ofg_voxelmorph_{name}"], _SETS[name][3].pairs if name in _SETS else 200
    refine = InstanceOptimisation(ENERGY, Descend(steps=50, step_size=1.0))
    return replace(
        base,
        about=f"{base.about.replace('On-the-Fly Guidance', 'cyclical self-training')}: beside Xin et al. 2024, table 3",
        network=partial(WithRefinement, network=base.network, refine=refine),
        supervision=KnownTransform(),
        training=replace(base.training, schedule=Cosine(0.01)),
        procedure=Cyclical(FieldLabels(), 5, pairs, AUGMENT if name in PAPERS else None),
    )


CLOUDS = Training(updates=600, batch=4, lr=1e-3, schedule=Steps(), validate_every=120)
_POINTS: Mapping[str, tuple[str, Supervision, tuple[Any, ...], Procedure]] = MappingProxyType(
    {
        "cyclical": (
            "cyclical self-training",
            PointDistance(),
            (NearTruth(),),
            Cyclical(PointLabels(), rounds=5, pairs=9, augment=Affines(), easy=False),
        ),
        "rigid": ("by rigid maps that are known", PointDistance(), (Synthetic(Rigid()),), Once()),
        "field": ("by random fields that are known", PointDistance(), (Synthetic(RandomField()),), Once()),
        "metric": ("by a metric of the clouds", ByMetric(), (Affines(),), Once()),
        "landmarks": ("by landmarks", PointDistance(), (FromLandmarks(), Affines(), NearTruth()), Once()),
    }
)
"""How features of clouds learn (table 3): in words, by what, on what each update sees of a pair, and in which way."""


recipes: Mapping[str, Recipe] = MappingProxyType(
    {
        f"{way}_correlated_{name}": Recipe(
            about=f"Features between which an optimiser finds the way, {how}, {on}",
            data=_data(name),
            network=partial(FeatureRegistration, ndim=3, **network),
            supervision=supervision,
            training=training if way == "cyclical" else replace(training, augment=AUGMENT),
            metrics=guided[f"ofg_voxelmorph_{name}"].metrics,
            procedure=cyclical if way == "cyclical" else Once(),
        )
        for name, (on, network, training, cyclical) in _SETS.items()
        for way, (how, supervision) in LEARNED.items()
    }
    | {f"cyclical_voxelmorph_{name}": _voxelmorph(name) for name in (*_SETS, *MORE)}
    | {
        f"{way}_geometric_lungs": Recipe(
            about=f"Features of clouds, {how}, keypoints of lungs (DIR-Lab COPDgene): Bigalke et al. 2023, table 3",
            data=LungKeypoints(),
            network=partial(GraphFeatures),
            supervision=supervision,
            training=replace(CLOUDS, augment=InTurn((*seen, Chosen()))),
            metrics=(),
            procedure=procedure,
            evaluation=partial(LandmarkEvaluation),
        )
        for way, (how, supervision, seen, procedure) in _POINTS.items()
    }
)
