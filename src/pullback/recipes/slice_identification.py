"""Plates of the Allen mouse brain atlas, which sections show (Antanavicius, Leiras, Selvan 2022).

| | paper | here | why |
|---|---|---|---|
| sections | 84 of four mice, in four parts | 82, in the same parts | two files are missing at the source |
| plates | 132 of Nissl, 100 µm apart | the same | |
| contrast | CLAHE, before augmentation | local mean and deviation, after it | no dependency |
| size | 224² to 1024² | 64² | one core; its table shows no gain by size |
| network | ResNet50V2 or 101V2, from ImageNet's weights | a residual one of 0.8 M weights, from scratch | no weights |
| embedding | 64 numbers, of length 1 in the code | the same | |
| batch | 16 or 32: 12 pairs with a section, 4 of plates | the same 12 + 4 pairs, 32 images | |
| augmentation | affine, crop and pad, pepper; in the code of plates alone | windows, affine, elastic, missing parts, \
brightness, pepper; of sections less | from scratch |
| learning | Adam 1e-4, up to 10,000 updates, stops after 2,000 | Adam 1e-3, cosine, 6,000 updates | from scratch |
| checkpoint | mean rank on validation 1 | the same | |

`held-out` learns from plates alone and measures others, cut and damaged; `tilted` has planes of a volume for plates,
and planes that are up to 10° off about both axes for slices.
"""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from pullback.data.slice_folder import SliceFolder
from pullback.data.slice_views import SliceAugmentation
from pullback.methods.pose.embedding_losses import SoftContrast
from pullback.methods.pose.slice_identification import MetricLearning, SliceEmbedding, SliceEvaluation
from pullback.recipes.datasets import DATASETS
from pullback.recipes.lookup import Key
from pullback.study.recipe import Recipe
from pullback.training import Cosine, Training

NAME, NETWORK = "slice-identification", "embedding"
TRAINING = Training(
    updates=6000,
    lr=1e-3,
    schedule=Cosine(),
    clip=1.0,
    augment=SliceAugmentation(),
    log_every=50,
    validate_every=250,
    save_every=250,
)


OWN = SliceFolder(plates="plates/*", validation_slices="validation/*")
"""Your own slices in folders, and the plates of their atlas."""
SETS = ("folder", "mouse-sections", "held-out", "tilted")


def identifying(data: str, loss: Any = SoftContrast()) -> Recipe:
    """Return the recipe on one of the data sets in `SETS`, by one of the losses."""
    return Recipe(
        about=f"Slice identification, {DATASETS[data].about}: Antanavicius et al. 2022, table 2",
        data=OWN if data == "folder" else DATASETS[data].data,
        network=partial(SliceEmbedding),
        supervision=MetricLearning(loss),
        training=TRAINING,
        metrics=(),
        evaluation=partial(SliceEvaluation),
    )


recipes: Mapping[Key, Recipe] = MappingProxyType({Key(NAME, NETWORK, data): identifying(data) for data in SETS})
