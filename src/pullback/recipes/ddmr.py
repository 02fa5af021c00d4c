"""DDMR (Pérez de Frutos et al. 2023): six designs of the loss, on a large set of images and on a small one.

Networks learn on moving images that are made on the fly, and are tested on such that are made in advance. `ixi` and
`comet` are folders that `pullback prepare --spacing 1 --shape 128` made of IXI (`--task ixi`) and of Oslo-CoMet
(`--task comet --crop labels`): voxels stay isotropic, so that nothing needs to be resampled back, and subjects keep
names of their own, by which `evaluate` knows whom a network had seen before it was transferred.

| | paper | here | why |
|---|---|---|---|
| network, batch, rate on `ixi`, `comet` | six blocks, 8, 1e-3 | the same | |
| patience of the plateau | 10 | 10 validations, about one an epoch | |
| length of the training | not given | 20,000 updates | |
| rate and checkpoint by | validation loss | Dice; correlation for `ddmr-bl-…` | labels guide nothing there |
| other sets | | 3 or 4 blocks, coarse grids, batches of one | thousands of updates in minutes |
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

from pullback.data import Synthesis, Synthetic
from pullback.energies import NCC, SSIM, Diffusion, Energy, SoftDice, SoftHausdorff
from pullback.methods.pair.ddmr import WIDTHS, PooledUNet
from pullback.metrics import (
    CentroidError,
    Correlation,
    Dice,
    Folding,
    HausdorffDistance,
    Metric,
    SDLogJ,
    StructuralSimilarity,
)
from pullback.recipes.datasets import DATASETS, DataSet
from pullback.recipes.lookup import Key
from pullback.study.recipe import Recipe
from pullback.training import Plateau, Training, UncertaintyWeighted, Unsupervised

NETWORK = "pooled-unet"
REGULARITY = 5e-3
LOSSES: Mapping[str, Energy] = MappingProxyType({"N": NCC(), "S": SSIM(11, 1.5), "D": SoftDice(), "H": SoftHausdorff()})
DESIGNS: Mapping[str, str] = MappingProxyType(
    {
        "BL-N": "intensities alone",
        "BL-NS": "intensities alone",
        "SG-ND": "guided by labels",
        "SG-NSD": "guided by labels",
        "UW-NSD": "guided by labels, weights that learn",
        "UW-NSDH": "guided by labels, weights that learn",
    }
)
"""Of table 1: how they learn; what is compared is in the name's letters."""
METRICS: tuple[Metric, ...] = (
    Dice(),
    HausdorffDistance((100.0, 95.0)),
    CentroidError(),
    Correlation(),
    StructuralSimilarity(),
    Folding(),
    SDLogJ(),
)


@dataclass(frozen=True)
class _Images:
    """A set of images with the numbers that its recipes share: synthesis, widths, training, and pairs per subject."""

    images: DataSet
    synthesis: Synthesis
    widths: tuple[int, ...]
    training: Training
    per_subject: int = 1


FULL = Training(updates=20_000, batch=8, lr=1e-3, plateau=Plateau(0.1, 10), log_every=50, validate_every=50)
SMALL = Training(updates=3000, lr=5e-4, validate_every=250)  # a batch is one pair, not eight; too short for a plateau
NARROW = (16, 32, 32, 64)
COARSE = Synthesis(shape=(28, 32, 38))  # some 6 mm a voxel: thousands of updates in minutes
NEAR = Synthesis(displacement=2.0, translation=6.0, shape=(24, 32, 24))  # cut out with some mm around it

PREPARED = DATASETS["prepared"]
SETS: Mapping[str, _Images] = MappingProxyType(
    {
        "phantom": _Images(
            DATASETS["phantom"], Synthesis(), (8, 16, 16), replace(SMALL, updates=200, validate_every=100), 5
        ),
        "folder": _Images(DATASETS["folder"], Synthesis(), NARROW, replace(SMALL, updates=5000)),
        "brains": _Images(DATASETS["brains"], COARSE, NARROW, SMALL, 5),
        "hippocampus": _Images(DATASETS["hippocampus"], NEAR, NARROW, replace(SMALL, updates=1500)),
        "ixi": _Images(replace(PREPARED, about="IXI, prepared"), Synthesis(), WIDTHS, FULL),
        "comet": _Images(
            replace(PREPARED, about="Oslo-CoMet, prepared"), Synthesis(), WIDTHS, replace(FULL, validate_every=5)
        ),
    }
)


def _supervision(design: str) -> Unsupervised | partial[UncertaintyWeighted]:
    losses = tuple(LOSSES[letter] for letter in design.split("-")[1])
    if design.startswith("UW"):
        return partial(UncertaintyWeighted, losses=losses, regularity=REGULARITY)
    energy: Energy = REGULARITY * Diffusion()
    for loss in losses:
        energy = energy + (1 / len(losses)) * loss
    return Unsupervised(energy)


def _metrics(design: str) -> tuple[Metric, ...]:
    """Return the metrics, the same for all designs, with the one that chooses checkpoints first."""
    chooses = Dice() if "D" in design.split("-")[1] else Correlation()
    return (chooses, *(metric for metric in METRICS if metric != chooses))


def key_of(design: str) -> str:
    """Return the name of a design as a method: `ddmr-uw-nsd`."""
    return f"ddmr-{design.lower()}"


def designed(design: str, data: str) -> Recipe:
    """Return the recipe of one of `DESIGNS` on one of the data sets in `SETS`."""
    images = SETS[data]
    return Recipe(
        about=f"{design}: {DESIGNS[design]}, {images.images.about}: Pérez de Frutos et al. 2023, tables 2 and 3",
        data=replace(images.images.data, synthetic=Synthetic(images.synthesis, images.per_subject)),  # type: ignore[type-var]
        network=partial(PooledUNet, ndim=images.images.ndim, widths=images.widths),
        supervision=_supervision(design),
        training=replace(images.training, augment=images.synthesis),
        metrics=_metrics(design),
    )


recipes: Mapping[Key, Recipe] = MappingProxyType(
    {Key(key_of(design), NETWORK, data): designed(design, data) for design in DESIGNS for data in SETS}
)
