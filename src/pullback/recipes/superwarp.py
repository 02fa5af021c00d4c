"""SuperWarp (Young et al. 2022): told by the true fields of pairs that are made, or by their labels; and the baseline.

| | paper | here | why |
|---|---|---|---|
| images | 40 brains, 2-D, 256×256 at 1 mm; 500 others to be tested on | `slices` and others | those are not at hand |
| test pairs | made as those of the training | 20 of each person, made once | |
| where | told over all, measured over the foreground | so, but where either image shows what is beyond | |
| levels | 7: 24, 32, 48, 64, 96, 128, 192 | the same on `slices`; else 4 or 5, narrow | two cores |
| updates | 200,000, one pair each | 300 to 5,000 | two cores |
| learning rate | 1e-4, to 1e-6 along a line | 1e-3, to 1e-5 | fewer updates |
| warm-up | 20,000 updates without motion | none | an arm of the study, see `WarmUp` |
| loss | mean squares, or Dice and the squared Laplacian, its weight not given | the same; 1 × bending | |
| loss of all levels | summed (3.3), "can hurt" (4.1) | none | an arm of the study |
| baseline | the U-Net on joined images, same widths | that, widened to as many weights | |
| `flying-chairs` | distances on all levels, 1,000,000 updates | the same, in grey | |
| `hippocampus` | | elastic maps of 4 mm, tested on real pairs | crops have no affine motion of 12° |
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from pullback.data import Synthetic
from pullback.energies import Bending, SoftDice
from pullback.methods.pair.superwarp import JoinedUNet, SuperWarp
from pullback.metrics import Dice, EndPointError, Folding, Metric
from pullback.recipes.datasets import DATASETS
from pullback.recipes.lookup import Key
from pullback.study.recipe import Recipe
from pullback.training import KnownTransform, Poly, RandomAffine, RandomWarps, Training, Unsupervised

NAME, DICE, NETWORK, BASELINE, CHAIRS = "superwarp", "superwarp-dice", "superwarp", "joined-unet", "flying-chairs"
TOLD = KnownTransform(power=2)
LABELS = Unsupervised(SoftDice() + 1.0 * Bending())
WAYS: Mapping[str, tuple[str, KnownTransform | Unsupervised]] = MappingProxyType(
    {NAME: ("told by true fields", TOLD), DICE: ("told by labels", LABELS)}
)
"""By the name of the variant: how it learns."""
METRICS: tuple[Metric, ...] = (EndPointError(), Dice(), Folding())
TRAINING = Training(updates=5000, lr=1e-3, schedule=Poly(1.0, 0.01), log_every=50, validate_every=500)


@dataclass(frozen=True)
class _Numbers:
    """Numbers of one data set.

    Attributes:
        warps: how pairs are made.
        widths, wide: of the network.
        baseline: widths that give the baseline as many weights.
        training: numbers of the loop.
        made: pairs that are made of each person for validation and test; 0 takes pairs of people.
    """

    warps: RandomWarps = RandomWarps()
    widths: tuple[int, ...] | None = (8, 16, 24, 32)
    wide: bool = False
    baseline: tuple[int, ...] = (14, 21, 32, 48)
    training: Training = TRAINING
    made: int = 20


NEAR = RandomWarps(RandomAffine(8.0, 0.1, 0.05, 0.05), elastic=4.0)
SETS: Mapping[str, _Numbers] = MappingProxyType(
    {
        "phantom": _Numbers(training=replace(TRAINING, updates=300, validate_every=100), made=5),
        "folder": _Numbers(made=5),
        "slices": _Numbers(widths=None, wide=True, baseline=(44, 60, 88, 120, 178, 238, 354)),
        "hippocampus": _Numbers(NEAR, training=replace(TRAINING, updates=2000, validate_every=250), made=0),
        "brains": _Numbers(training=replace(TRAINING, updates=1500, validate_every=250), made=5),
        "oasis": _Numbers(NEAR, None, True, (22, 60, 90, 120, 180), made=0),
    }
)


def taught(way: str, network: str, data: str) -> Recipe:
    """Return the recipe of one of `WAYS`, of SuperWarp or of its baseline, on one of the data sets in `SETS`."""
    (how, supervision), images, numbers = WAYS[way], DATASETS[data], SETS[data]
    made: partial[Any] = partial(SuperWarp, ndim=images.ndim, widths=numbers.widths, wide=numbers.wide)
    if network == BASELINE:
        made = partial(JoinedUNet, ndim=images.ndim, widths=numbers.baseline)
    known = images.data
    if numbers.made:
        known = replace(known, synthetic=Synthetic(replace(numbers.warps, foreground=True), numbers.made))  # type: ignore[type-var]
    return Recipe(
        about=f"{'SuperWarp' if network == NETWORK else 'U-Net on both images'}, {how}, {images.about}",
        data=known,
        network=made,
        supervision=supervision,
        training=replace(numbers.training, augment=numbers.warps),
        metrics=METRICS if numbers.made else images.metrics,
    )


def flow() -> Recipe:
    """Return the recipe of table 3: the distances of all levels, which weigh alike, on Flying Chairs."""
    images = DATASETS[CHAIRS]
    return Recipe(
        about=f"SuperWarp, told by true flow, {images.about}: Young et al. 2022, table 3",
        data=images.data,
        network=partial(SuperWarp, ndim=2),
        supervision=KnownTransform(levels=True),
        training=replace(TRAINING, updates=1_000_000, lr=1e-4, log_every=1000, validate_every=20_000, save_every=1000),
        metrics=images.metrics,
    )


recipes: Mapping[Key, Recipe] = MappingProxyType(
    {
        Key(way, network, data): taught(way, network, data)
        for way in WAYS
        for network in (NETWORK, BASELINE)
        for data in SETS
    }
    | {Key(NAME, NETWORK, CHAIRS): flow()}
)
