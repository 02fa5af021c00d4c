"""VoxelMorph++ (Heinrich & Hansen 2022): its ablation, two heads by two kinds of supervision.

`voxelmorph++` learns from matched points, `voxelmorph++-mind` from features alone; the networks are `heatmap`, the
paper's head, and `regression`, the baseline's. So the rows of its table 1 are: VoxelMorph is `voxelmorph++-mind` with
`regression`; + heatmap `voxelmorph++-mind` with `heatmap`; + keypoints `voxelmorph++` with `regression`; and both.

| | paper | here | why |
|---|---|---|---|
| images | CT of 192×192×208 voxels | `lungct`; `breathing`, made ones of 96×96×104 | no CT is at hand |
| folds | five of six people, two of each centre | five, dealt at random | |
| matches | of corrField, 1.68 mm off | of `breathing` the truth, and 1.6 mm of noise along each axis | |
| points | about 2,000 keypoints of a scan, 512 of them drawn | of `breathing` 1,000 places in the lungs, 128 drawn | |
| points to go through | random ones of the mask | keypoints; in planes and on `phantom` random | few corners |
| widths, updates | 32 to 64, 4,900 | half of that, 1,200, in planes 300; as the paper on `lungct` | two cores |
| learning rate | 1e-3, halved every seventh | the same | |
| smoothness of the baseline | 0.25 or 0.75 | 0.25; the study has both | two places of the paper |
| features at half the scan's size | means of two voxels are seen | the same; each voxel on `phantom` | |
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from pullback.data import Breathing, Dataset, Folds
from pullback.example import Supervision
from pullback.methods.pair.voxelmorph_plus_plus import Matched, NonLocal, VoxelMorphPlusPlus, Warped
from pullback.networks import HeatmapHead, RegressionHead
from pullback.recipes.datasets import DATASETS
from pullback.recipes.lookup import Key
from pullback.space import RandomPoints
from pullback.study.recipe import Recipe
from pullback.training import DrawnPoints, InTurn, OneAffine, Steps, Training

METHOD, FEATURES = "voxelmorph++", "voxelmorph++-mind"
HALVES = Steps(tuple(n / 7 for n in range(1, 7)), 0.5)
FULL = Training(updates=4900, lr=1e-3, schedule=HALVES, validate_every=700)
ERROR = 1.6
"""mm along each axis, of a match: about that of corrField."""
NARROW: Mapping[str, Any] = MappingProxyType({"down": (16, 24, 24, 32, 32), "up": (24, 24, 24), "last": (24, 16, 32)})
ANYWHERE = RandomPoints(512)


@dataclass(frozen=True)
class _Scans:
    """A set of images with the numbers that its recipes share.

    Attributes:
        data: three splits.
        network: what the network is made with.
        heatmap: what its heatmap is made with.
        points: drawn for an update.
        training: without augmentation.
        error: of the matches that are learned from, mm.
    """

    data: Dataset
    network: Mapping[str, Any]
    heatmap: Mapping[str, Any]
    points: int
    training: Training
    error: float = 0.0


def breathing(shape: tuple[int, ...]) -> Folds:
    """Return breathing chests of all people whose motion is known, in five folds."""
    return Folds(Breathing(shape=shape, points=1000, masked=True))


SETS: Mapping[str, _Scans] = MappingProxyType(
    {
        "phantom": _Scans(
            DATASETS["phantom"].data,
            {**NARROW, "points": ANYWHERE, "pool": 1},
            {"width": 8},
            128,
            replace(FULL, updates=100, validate_every=50),
        ),
        "breathing": _Scans(
            breathing((96, 96, 104)), NARROW, {"width": 8}, 128, replace(FULL, updates=1200, validate_every=400), ERROR
        ),
        "breathing-slices": _Scans(
            breathing((96, 104)),
            {**NARROW, "points": ANYWHERE},
            {"width": 8},
            128,
            replace(FULL, updates=300, validate_every=100),
            ERROR,
        ),
        "lungct": _Scans(DATASETS["lungct"].data, {}, {}, 512, FULL),
    }
)
SUPERVISIONS: Mapping[tuple[str, str], Supervision] = MappingProxyType(
    {
        (METHOD, "heatmap"): Matched(),
        (METHOD, "regression"): Matched(),
        (FEATURES, "heatmap"): NonLocal(),
        (FEATURES, "regression"): Warped(),
    }
)
WORDS: Mapping[str, str] = MappingProxyType({METHOD: "matched points", FEATURES: "features alone"})


def sparse(variant: str, head: str, data: str) -> Recipe:
    """Return the recipe of a variant with one of the heads, `"heatmap"` or `"regression"`, on one of `SETS`."""
    scans, images = SETS[data], DATASETS[data]
    made: Any = RegressionHead if head == "regression" else HeatmapHead
    if head == "heatmap" and scans.heatmap:
        made = partial(HeatmapHead, **scans.heatmap)
    augment = InTurn((DrawnPoints(scans.points, scans.error), OneAffine()))
    return Recipe(
        about=f"VoxelMorph++, {head}, by {WORDS[variant]}, {images.about}: Heinrich & Hansen 2022, table 1",
        data=scans.data,
        network=partial(VoxelMorphPlusPlus, ndim=images.ndim, head=made, **scans.network),
        supervision=SUPERVISIONS[variant, head],
        training=replace(scans.training, augment=augment),
        metrics=images.metrics,
    )


recipes: Mapping[Key, Recipe] = MappingProxyType(
    {Key(variant, head, data): sparse(variant, head, data) for variant, head in SUPERVISIONS for data in SETS}
)
