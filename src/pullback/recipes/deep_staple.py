"""Atlases of which nobody knows how far to trust them (Weihsbach et al. 2022, DeepSTAPLE).

| | paper | here | why |
|---|---|---|---|
| targets | 40 of T2, 10 atlases of T1 each | 14 people, 8 atlases each | two cores |
| registration | deeds, or ConvexAdam | half by ConvexAdam, a fifth affine, the rest not at all | some must fail |
| network | 3-D MobileNet with LR-ASPP, 192³ voxels | a small U-Net, voxels of 2 mm | two cores |
| batch | 8 images with a label map each | 4 images with 4 label maps each, so that an image is seen once | two cores |
| rates | AdamW 0.01, data parameters 0.1 | Adam 0.003, 0.1 | another network |
| schedule | × 0.99, 40 epochs | constant, 20 epochs | |
| trust learns | from the start, in 2-D after 10 epochs | from the start | |
| augmentation | affine, B-splines, noise | affine, noise | |
| checkpoint | the last | by Dice of the consensus on 4 targets whose labels are known, and others are measured | |
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from pullback.alignment import Alignment
from pullback.data.multi_atlas import MultiAtlas, Shares
from pullback.methods.labels.deep_staple import TRUST, CandidateAffine, LearnedTrust, TrustedSegmenter, trusted_quality
from pullback.methods.pair.classical import FAST
from pullback.methods.pair.convex_adam import ConvexAdam
from pullback.networks import SegmentationUNet
from pullback.recipes.datasets import DATASETS
from pullback.recipes.lookup import Key
from pullback.space import Image
from pullback.study.evaluate import unmoved
from pullback.study.recipe import Recipe
from pullback.training import ExampleEvaluation, RandomAffine, Training

AFFINE = replace(FAST, initialise=None, deformable=None)


def affinely(fixed: Image, moving: Image) -> Alignment:
    """Align two images by the linear stages of the preset `fast`, from where their headers put them."""
    return AFFINE(fixed, moving)


WAYS: Shares = ((0.5, ConvexAdam()), (0.2, affinely), (0.3, unmoved))
SLIGHT = CandidateAffine(RandomAffine(degrees=5.0, scale=0.05, shear=0.02, shift=0.02))
FULL = Training(updates=140, lr=3e-3, players=(TRUST,), augment=SLIGHT, validate_every=20)
BY_CONSENSUS = partial(ExampleEvaluation, measure=trusted_quality, chooses="dice")


@dataclass(frozen=True)
class _Trusting:
    """Numbers of one data set.

    Attributes:
        labels: of the structures.
        atlases: targets, atlases, and how many choose.
        spacing: that the network sees.
        training: of the loop.
    """

    labels: tuple[int, ...]
    atlases: Mapping[str, Any]
    training: Training


SETS: Mapping[str, _Trusting] = MappingProxyType(
    {
        "phantom": _Trusting(
            (1, 2, 3),
            {"targets": 10, "atlases": 6, "chosen_by": 3, "spacing": None, "ways": ((0.7, affinely), (0.3, unmoved))},
            replace(FULL, updates=100),
        ),
        "hippocampus": _Trusting((1, 2), {"targets": 14, "atlases": 8, "at_once": 16, "each": 4, "ways": WAYS}, FULL),
    }
)
UNET = partial(SegmentationUNet, widths=(8, 16, 32))


def trusting(data: str, backbone: Any = UNET) -> Recipe:
    """Return the recipe on one of the data sets in `SETS`, with a backbone."""
    images, how = DATASETS[data], SETS[data]
    return Recipe(
        about=f"Trust in registered atlases, {images.about}: Weihsbach et al. 2022, figure 5",
        data=MultiAtlas(images.data, **how.atlases),
        network=partial(TrustedSegmenter, ndim=images.ndim, labels=how.labels, backbone=backbone),
        supervision=LearnedTrust(how.labels),
        training=how.training,
        metrics=(),
        evaluation=BY_CONSENSUS,
    )


recipes: Mapping[Key, Recipe] = MappingProxyType({Key("deep-staple", "unet", data): trusting(data) for data in SETS})
