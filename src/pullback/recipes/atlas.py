"""Atlases by a network that registers scans to templates which are their mean (Bastiaansen et al. 2022; Dalca 2019).

| | paper | here | why |
|---|---|---|---|
| scans | ultrasound, 398 pregnancies, 56 … 90 days | the built-in cohort; children; hippocampi | not public |
| voxels | 80 × 96 × 112, a size for each age | 5 mm; as stored | two cores |
| split | by scan | by person | a person is on one side |
| network | VoxelMorph, velocity at half size | velocity at full size | as `VoxelMorph` has it |
| weights | 1, group 10, magnitude 0.01, gradient 0.01 | the same | that is a diffusion of 0.02 |
| rate, updates | 1e-4, 150,000 | 1e-3, 900 | two cores |
| window | about 20, scans sorted by age | 20 of each age | needs no order |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from pullback.data import BrainPhantom, GrowingBrains, GrowthLaw
from pullback.data.single_scans import Lattice, SingleScans
from pullback.methods.group.atlas import AtlasEvaluation, AtlasRounds, GroupwiseSupervision
from pullback.methods.group.conditional import ConditionalAtlas
from pullback.recipes.datasets import DATASETS
from pullback.recipes.lookup import Key
from pullback.study.recipe import Recipe
from pullback.training import Training

TRAINING = Training(updates=900, lr=1e-3, validate_every=300)
CHILDREN = GrowingBrains(
    BrainPhantom(spacing=4.0, train_subjects=12, validation_subjects=2, test_subjects=4),
    GrowthLaw(visits=(3, 3), first=(2.0, 2.0), interval=(2.0, 0.5), rate=(0.015, 0.025), degrees=0.0, translation=0.0),
    spacing=5.0,
    tissues=((1,), (2,), (3,)),
)
"""Children at 2, about 4 and about 6 years, upright and in the middle, who have grown by a tenth at the last visit."""


@dataclass(frozen=True)
class _Population:
    """Scans of one data set.

    Attributes:
        about: what they are.
        data: one by one.
        shape: of all.
        ages: of the templates.
    """

    about: str
    data: SingleScans
    shape: tuple[int, ...]
    ages: tuple[float, ...] = (0.0,)


POPULATIONS: Mapping[str, _Population] = MappingProxyType(
    {
        "growth": _Population(
            "children who grow, made of the built-in cohort",
            SingleScans(CHILDREN, Lattice((36, 44, 38), 5.0, (0.0, -16.0, 4.0))),
            (36, 44, 38),
            (2.0, 4.0, 6.0),
        ),
        "phantom": _Population(DATASETS["phantom"].about, SingleScans(DATASETS["phantom"].data), (30, 38, 32)),
        "folder": _Population(DATASETS["folder"].about, SingleScans(DATASETS["folder"].data), (80, 96, 112)),
        "hippocampus": _Population(
            DATASETS["hippocampus"].about, SingleScans(DATASETS["hippocampus"].data), (48, 64, 48)
        ),
    }
)
NETWORKS: Mapping[str, bool] = MappingProxyType({"voxelmorph": False, "template-generator": True})
"""Whether templates are generated, by the network's name."""


def atlas(data: str, generated: bool = False, group: float = 10.0, rounds: int = 3) -> Recipe:
    """Return the recipe on one of `POPULATIONS`."""
    scans = POPULATIONS[data]
    network: Any = partial(
        ConditionalAtlas, ndim=len(scans.shape), shape=scans.shape, ages=scans.ages, generated=generated
    )
    return Recipe(
        about=f"Templates as means of registered scans, {scans.about}: Bastiaansen et al. 2022, table 1",
        data=scans.data,
        network=network,
        supervision=partial(GroupwiseSupervision, shape=scans.shape, ages=scans.ages, group=group),
        training=TRAINING,
        metrics=(),
        procedure=AtlasRounds(rounds=rounds),
        evaluation=partial(AtlasEvaluation, truth=data == "phantom"),
    )


recipes: Mapping[Key, Recipe] = MappingProxyType(
    {
        Key("atlas", network, data): atlas(data, generated)
        for network, generated in NETWORKS.items()
        for data in POPULATIONS
    }
)
