"""Features that are fused (Siebert & Heinrich 2022): segmenters, and a mixer between them and MIND.

| | paper | here | why |
|---|---|---|---|
| updates of the mixer | 50 epochs of 20 scans | 1,000 on `abdomen`, fewer elsewhere | an epoch: 20 pairs |
| learning rate | 0.005, Adam | the same | |
| segmenter | nnU-Net, 13 organs | a U-Net like it, as many updates, on `abdomen` 5 times as many | two cores |
| it segments | also what it learned from | two, each what only the other learned from | see there |
| loss | squared differences of labels, by frequency^−½ over the data | frequencies of each pair | |
| blocks | 4 voxels of 2 mm, from 192×160×256 | 4 on `abdomen`; 3 on `hippocampus` and `brains` | motion is smaller |
| reach | 32 mm | 4 blocks on `abdomen`; 3 and 2 while learning on the others | |
| labels | 13 organs; vertebrae unseen | 1 of `hippocampus`, each second of `brains` | the rest is unseen |
| checkpoint | not given | by Dice of the labels that are learned, validation pairs | |
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from pullback.energies import LabelMSE
from pullback.methods.pair.cross_fitting import SegmentThenFuse
from pullback.methods.pair.feature_fusion import LEARNING, FeatureFusion
from pullback.metrics import Dice, Folding, SDLogJ
from pullback.networks import SegmentationUNet
from pullback.recipes.datasets import DATASETS
from pullback.recipes.lookup import Key
from pullback.solvers import CoupledConvex
from pullback.study.recipe import Recipe
from pullback.training import Training, Unsupervised

BRAINS = (2, 4, 7, 10, 12, 14, 16, 18, 28, 42, 44, 47, 50, 52, 54, 60)
"""Each second of the 31 structures of `brains`."""
FULL = Training(updates=1000, lr=5e-3, validate_every=100)


@dataclass(frozen=True)
class _Fusion:
    """Numbers of one data set.

    Attributes:
        labels: that are learned.
        network: sizes.
        training, procedure: of the mixer, and of the segmenters by it.
    """

    labels: tuple[int, ...]
    network: Mapping[str, Any]
    training: Training
    procedure: SegmentThenFuse = SegmentThenFuse()


def _sizes(every: int, learning: int, search: int, widths: tuple[int, ...], memory: int = 2**30) -> Mapping[str, Any]:
    """Return sizes: voxels of a block, reach of both searches in blocks, widths of the segmenter, bytes to learn."""
    return {
        "every": every,
        "learning": replace(LEARNING, half_width=learning, memory=memory),
        "search": CoupledConvex(half_width=search),
        "backbone": partial(SegmentationUNet, widths=widths),
    }


SETS: Mapping[str, _Fusion] = MappingProxyType(
    {
        "phantom": _Fusion((1, 2), _sizes(2, 2, 2, (8, 16)), replace(FULL, updates=60, validate_every=20)),
        "folder": _Fusion((1,), _sizes(4, 3, 4, (16, 32, 64), 2**33), FULL),
        "hippocampus": _Fusion((1,), _sizes(3, 3, 4, (8, 16, 32)), replace(FULL, updates=200, validate_every=50)),
        "brains": _Fusion(BRAINS, _sizes(3, 2, 2, (8, 16, 32), 2**31), replace(FULL, updates=200, validate_every=50)),
        "abdomen": _Fusion(
            tuple(range(1, 14)), _sizes(4, 4, 4, (32, 64, 128, 256), 10**10), FULL, SegmentThenFuse(share=5.0)
        ),
    }
)


def fusing(data: str) -> Recipe:
    """Return the recipe on one of the data sets in `SETS`."""
    images, how = DATASETS[data], SETS[data]
    return Recipe(
        about=f"MIND and a segmentation, fused, {images.about}: Siebert & Heinrich 2022, table 1",
        data=images.data,
        network=partial(FeatureFusion, ndim=images.ndim, labels=how.labels, **how.network),
        supervision=Unsupervised(LabelMSE(rare=0.5, background=True)),
        training=how.training,
        metrics=(Dice(how.labels), Folding(), SDLogJ()),
        procedure=how.procedure,
    )


recipes: Mapping[Key, Recipe] = MappingProxyType({Key("feature-fusion", "mixer", data): fusing(data) for data in SETS})
