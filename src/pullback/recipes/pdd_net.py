"""PDD-Net for video (Nicke et al. 2022): distilled from a run that is named, and by labels alone.

`pdd-net` learns beside labels from `--set supervision.teacher.folder=RUN`, of `pwc-net` or any other network of pairs;
`pdd-net-labels` from labels alone.

| | paper | here | why |
|---|---|---|---|
| pairs of the first phase | 1,743, frames 6 apart | all frames and those 6 before them | |
| of the second | 3,285, a reference and each 4th frame after it | the same | |
| batch | not given | 4 | |
| learning rates | 0.002, then 0.00025, of Adam | the same | |
| updates on `videos` | 100 and 200 epochs | as many, of 4 pairs each | |
| on `compressions` | | 1,000 and 1,000, 4 pairs at once | for two cores |
| checkpoint | not given | by Dice of validation videos | |
"""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from pullback.data import Compressions, Dataset
from pullback.energies import LabelMSE
from pullback.example import Supervision
from pullback.methods.pair.pdd_net import Distilled, InPhases, PDDNet
from pullback.recipes.datasets import DATASETS
from pullback.recipes.lookup import Key
from pullback.study.recipe import Recipe
from pullback.study.run import Run
from pullback.training import Training, Unsupervised, VideoEvaluation

NAME, LABELS, NETWORK = "pdd-net", "pdd-net-labels", "pdd"
BATCH = 4
RATE = 2.5e-4
HARD = LabelMSE(background=True)
WAYS: Mapping[str, tuple[str, Supervision]] = MappingProxyType(
    {NAME: ("distilled", Distilled(Run(), hard=HARD)), LABELS: ("by labels alone", Unsupervised(HARD))}
)
TRAINING: Mapping[str, tuple[Training, InPhases]] = MappingProxyType(
    {
        "compressions": (Training(updates=1000, lr=RATE, log_every=20, validate_every=250), InPhases(share=1.0)),
        "videos": (Training(updates=3285 * 200 // BATCH, batch=BATCH, lr=RATE, validate_every=2000), InPhases()),
    }
)
"""Numbers of the second phase, and how the first differs, by data set."""
DATA: Mapping[str, Dataset] = MappingProxyType(
    {"compressions": Compressions(at_once=BATCH), "videos": DATASETS["videos"].data}
)


def carrying(method: str, data: str) -> Recipe:
    """Return the recipe of one of `WAYS` on one of the data sets in `TRAINING`."""
    (how, supervision), images, (training, phases) = WAYS[method], DATASETS[data], TRAINING[data]
    return Recipe(
        about=f"PDD-Net, {how}, {images.about}: Nicke et al. 2022, table 1",
        data=DATA[data],
        network=partial(PDDNet, ndim=2),
        supervision=supervision,
        training=training,
        metrics=images.metrics,
        procedure=phases,
        evaluation=partial(VideoEvaluation, metrics=images.metrics, steady=("hd mm",)),
    )


recipes: Mapping[Key, Recipe] = MappingProxyType(
    {Key(method, NETWORK, data): carrying(method, data) for method in WAYS for data in TRAINING}
)
