"""Pose networks by the transformed grid distance (Song et al. 2022), of images in random poses.

| | paper | here | why |
|---|---|---|---|
| images | 528 MR of prostates, each and itself in a random pose | the data set's, likewise | not public |
| poses | up to 25 mm off, uniformly, as its table says | a quarter of the field of view's edge | |
| turns against shifts | not said; ± 5° and ± 6 mm in its group's code, scaled | the same | |
| ends of the field of view | seen | hidden at random, up to a fifth of each length | they would tell the pose |
| loss | norm of the grid's distances | mean square in mm; the mean by `supervision.power=1` | closed form |
| at points | of the prostate's surface | 400 of the labels' surface, by `supervision.at=points` | |
| network | not said | four stages of stride 2, a head of two layers | |
| numbers of the rotation | "six parameters" | a rotation vector; affine maps in `pose-net-affine` | no gimbal |
| learning | not said; its group's code Adam 1e-3, batch 8 or 16, 300 epochs | Adam 1e-3, batch 4 | two cores |
| checkpoint | | by the points' error on fixed poses of other people | the same for every loss |
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from pullback.data import Synthetic
from pullback.methods.pose.pose_net import PoseNet
from pullback.metrics import EndPointError, LandmarkError
from pullback.numerics.rotation import linear_of
from pullback.recipes.datasets import DATASETS
from pullback.recipes.lookup import Key
from pullback.study.recipe import Recipe
from pullback.training import KnownTransform, Perturbed, Poly, RandomPose, Training

NAME, NETWORK = "pose-net", "pose"
SURFACE, MARGIN = 400, 0.2
METRICS = (LandmarkError(), EndPointError())
TRAINING = Training(updates=3000, lr=1e-3, batch=4, schedule=Poly(), log_every=50, validate_every=300)
MOST: Mapping[str, float] = MappingProxyType({"phantom": 40.0, "hippocampus": 12.0, "brains": 40.0, "folder": 40.0})
"""Largest mean distance of a pose over the grid, mm, by data set."""
VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {NAME: ("rigid", {}), f"{NAME}-affine": ("affine", {"form": linear_of, "count": 9})}
)
"""Maps, and the numbers of the network, by name."""


def posed(variant: str, data: str) -> Recipe:
    """Return the recipe of one of `VARIANTS` on one of the data sets in `MOST`."""
    images, (maps, network) = DATASETS[data], VARIANTS[variant]
    perturbed = Perturbed(RandomPose(MOST[data]), surface=SURFACE, margin=MARGIN)
    return Recipe(
        about=f"A pose network with {maps} maps, told by the distance over the grid, {images.about}",
        data=replace(images.data, synthetic=Synthetic(perturbed, per_subject=5)),  # type: ignore[type-var]
        network=partial(PoseNet, ndim=images.ndim, **network),
        supervision=KnownTransform(2, "mm"),
        training=replace(TRAINING, augment=perturbed),
        metrics=METRICS,
    )


recipes: Mapping[Key, Recipe] = MappingProxyType(
    {Key(variant, NETWORK, data): posed(variant, data) for variant in VARIANTS for data in MOST}
)
