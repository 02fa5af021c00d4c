"""DDMR (Pérez de Frutos et al. 2023): six designs of the loss, on a large set of images and on a small one.

Networks learn on moving images that are made on the fly, and are tested on such that are made in advance, as in the
paper. `ixi` and `comet` have its network, batches and rates, and validate about once an epoch, as which its patience of
10 is read; how long they train is ours, for it does not say. They are for folders that
`pullback prepare --spacing 1 --shape 128` made of IXI (`--task ixi`) and of Oslo-CoMet (`--task comet --crop labels`):
voxels stay isotropic, so what is measured needs no resampling back, and subjects have names of their own, by which
`evaluate` tells whom a network had seen before it was transferred. The others are for smaller machines, and measure on
the coarse grids on which they learn.

The paper lowers the learning rate where the validation loss plateaus, and keeps the network whose validation loss is
lowest. Here the first metric decides both: Dice where a design sees labels, and correlation where it sees intensities
alone, so that labels guide nothing in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

from pullback.data import BrainPhantom, Dataset, Learn2Reg, Synthesis, Synthetic
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
from pullback.recipes.ofg import recipes as guided
from pullback.study.recipe import Recipe
from pullback.training import Plateau, Training, UncertaintyWeighted, Unsupervised

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
    """Of a set: what it is called, where it comes from, how pairs are made of it, the network's widths, the numbers of
    training, and how many pairs each subject of validation and test makes."""

    about: str
    data: Dataset
    synthesis: Synthesis
    widths: tuple[int, ...]
    training: Training
    per_subject: int = 1


FULL = Training(updates=20_000, batch=8, lr=1e-3, plateau=Plateau(0.1, 10), log_every=50, validate_every=50)
SMALL = Training(updates=3000, lr=5e-4, validate_every=250)  # a batch is one pair, not eight; too short for a plateau
NARROW = (16, 32, 32, 64)
COARSE = Synthesis(shape=(28, 32, 38))  # some 6 mm a voxel: thousands of updates in minutes
NEAR = Synthesis(displacement=2.0, translation=6.0, shape=(24, 32, 24))  # cut out with some mm around it

_SETS: Mapping[str, _Images] = MappingProxyType(
    {
        "phantom": _Images(
            "the built-in cohort",
            BrainPhantom(spacing=5.0),
            Synthesis(),
            (8, 16, 16),
            replace(SMALL, updates=200, validate_every=100),
            5,
        ),
        "folder": _Images(
            "your own folder of images",
            guided["ofg_voxelmorph_folder"].data,
            Synthesis(),
            NARROW,
            replace(SMALL, updates=5000),
        ),
        "brains": _Images("whole brains on one grid", guided["ofg_voxelmorph_brains"].data, COARSE, NARROW, SMALL, 5),
        "hippocampus": _Images(
            "hippocampus MR (Learn2Reg)",
            guided["ofg_voxelmorph_hippocampus"].data,
            NEAR,
            NARROW,
            replace(SMALL, updates=1500),
        ),
        "ixi": _Images("IXI, prepared", Learn2Reg(), Synthesis(), WIDTHS, FULL),
        "comet": _Images("Oslo-CoMet, prepared", Learn2Reg(), Synthesis(), WIDTHS, replace(FULL, validate_every=5)),
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
    """Of all designs the same; what chooses stands first."""
    chooses = Dice() if "D" in design.split("-")[1] else Correlation()
    return (chooses, *(metric for metric in METRICS if metric != chooses))


def named(design: str) -> str:
    """How a recipe's name begins."""
    return design.lower().replace("-", "")


def _recipe(design: str, images: _Images) -> Recipe:
    return Recipe(
        about=f"{design}: {DESIGNS[design]}, {images.about}: Pérez de Frutos et al. 2023, tables 2 and 3",
        data=replace(images.data, synthetic=Synthetic(images.synthesis, images.per_subject)),  # type: ignore[type-var]
        network=partial(PooledUNet, ndim=3, widths=images.widths),
        supervision=_supervision(design),
        training=replace(images.training, augment=images.synthesis),
        metrics=_metrics(design),
    )


recipes: Mapping[str, Recipe] = MappingProxyType(
    {f"{named(design)}_unet_{name}": _recipe(design, images) for name, images in _SETS.items() for design in DESIGNS}
)
