"""On-the-Fly Guidance and the unsupervised training that it is compared with, for each network and set of images.

Two recipes of one network and set differ in their supervision alone (Xin et al. 2024, table 1). Sets that the paper has
take its numbers: as many updates as 500 of its epochs, batches of one, initial learning rates of 1e-4 for the network
and 0.1 for the label; both fall as in its authors' code. As there, an epoch of OASIS and of the abdomen has two updates
for each of its subjects (of how many pairs of abdomens is not public), and LPBA40 brings its subjects to the first of
them; Dice there and on IXI is of the labels that it takes. It has Adam with AMSGrad, these Adam, as the paper. Splits
are those of the files where these have some (IXI's are TransMorph's), else drawn from the names; the paper, which gives
no lists, learns from 200 subjects of IXI and of OASIS, these from all that are left. It wants images that were brought
onto each other by affine maps before: so are IXI, OASIS and the abdomen as they are distributed; LPBA40 here lies as
its headers say. The other sets are for smaller machines, whose few updates leave no time for decay; on hippocampus an
unsupervised VoxelMorph diverges at twice the rate that it has here.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TypeVar

from pullback.data import BrainPhantom, Dataset, Learn2Reg, PairFolder, PreparedIXI
from pullback.energies import LNCC, Diffusion
from pullback.example import Supervision
from pullback.methods.pair.ofg import Guided, Mixture
from pullback.methods.pair.self_training import SelfTraining
from pullback.methods.pair.transmorph import TransMorph
from pullback.methods.pair.vit_v_net import ViTVNet
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.metrics import STANDARD, Dice, EndPointError, Folding, Metric, SDLogJ
from pullback.study.recipe import Recipe
from pullback.training import Poly, Training, Unsupervised

ENERGY = LNCC(9) + 1.0 * Diffusion()
Way = TypeVar("Way")
WAYS: Mapping[str, tuple[str, Supervision]] = {
    "unsupervised": ("unsupervised", Unsupervised(ENERGY)),
    "ofg": ("On-the-Fly Guidance", Guided(ENERGY)),
}
NETWORKS = {
    "voxelmorph": ("VoxelMorph", VoxelMorph),
    "vitvnet": ("ViT-V-Net", ViTVNet),
    "transmorph": ("TransMorph", TransMorph),
}
TRANSFORMERS = ("vitvnet", "transmorph")
EPOCHS = 500
FULL = Training(lr=1e-4, schedule=Poly(), log_every=100, validate_every=2000, save_every=500)

_SETS: Mapping[str, tuple[str, int, Dataset, Training]] = MappingProxyType(
    {
        "phantom": ("the built-in cohort", 3, BrainPhantom(spacing=5.0), Training(updates=1000, lr=1e-3)),
        "folder": ("your own folder of images", 3, PairFolder(), Training(updates=5000, lr=1e-3)),
        "hippocampus": (
            "hippocampus MR (Learn2Reg)",
            3,
            Learn2Reg(shape=(48, 64, 48)),
            Training(updates=2000, lr=5e-4),
        ),
        "brains": (
            "whole brains on one grid, sub-01_T1w.nii.gz with sub-01_dseg.nii.gz and so on",
            3,
            PairFolder(
                images="*_T1w.nii.gz",
                labels="*_dseg.nii.gz",
                validation_split=("sub-11", "sub-12"),
                test_split=("sub-13", "sub-14", "sub-15", "sub-16"),
            ),
            Training(updates=600, lr=1e-3, validate_every=100),
        ),
        "slices": (
            "slices of brains (15 of OASIS-TRT-20)",
            2,
            PairFolder(
                images="images/*.nii.gz",
                labels="labels/*.nii.gz",
                validation_split=("OASIS-TRT-20-10", "OASIS-TRT-20-11"),
                test_split=tuple(f"OASIS-TRT-20-{n}" for n in (12, 13, 14, 15)),
            ),
            Training(updates=2000, lr=1e-3),
        ),
        "ixi": (
            "IXI, atlas to subject, as TransMorph's authors distribute it",
            3,
            PreparedIXI(),
            replace(FULL, updates=EPOCHS * 200),
        ),
        "oasis": (
            "OASIS (Learn2Reg 2021), subject to subject",
            3,
            Learn2Reg(both_ways=True, masks=False),
            replace(FULL, updates=EPOCHS * 200 * 2),
        ),
        "lpba40": (
            "LPBA40, subjects to the first of them, as LONI distributes it in delineation space",
            3,
            PairFolder(
                images="*/*.delineation.skullstripped.img.gz",
                labels="*/*.delineation.structure.label.img.gz",
                validation_split=("S39", "S40"),
                test_split=tuple(f"S{n:02d}" for n in range(2, 11)),
                atlas="S01",
                atlas_moves=False,
            ),
            replace(FULL, updates=EPOCHS * 30),
        ),
        "abdomen": (
            "Abdomen CT-CT (Learn2Reg 2020)",
            3,
            Learn2Reg(both_ways=True, masks=False, held_out=3),
            replace(FULL, updates=EPOCHS * 30 * 2),
        ),
    }
)

COUNTED: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "ixi": (*range(1, 4), *range(5, 17), 18, *range(20, 24), *range(25, 33), 34, 36),
        "lpba40": (
            *range(21, 35),
            *range(41, 51),
            *range(61, 69),
            *range(81, 93),
            101,
            102,
            121,
            122,
            *range(161, 167),
        ),
    }
)


def fading(supervision: Way, training: Training) -> Way:
    """The step by which labels are made falls as the network's learning rate does."""
    if isinstance(supervision, Mixture):
        return replace(supervision, guided=fading(supervision.guided, training))
    if isinstance(supervision, Guided | SelfTraining):
        return replace(supervision, decay=training.schedule)
    return supervision


def _metrics(name: str, data: Dataset) -> tuple[Metric, ...]:
    """Where the paper's Dice is of some labels, of those."""
    if isinstance(data, BrainPhantom):
        return (Dice(), Folding(), SDLogJ(), EndPointError())
    return (Dice(COUNTED[name]), *STANDARD[1:]) if name in COUNTED else STANDARD


def _paced(training: Training, network: str) -> Training:
    """Transformers diverge at the rates at which a small U-Net learns fastest."""
    return replace(training, lr=min(training.lr, 3e-4)) if network in TRANSFORMERS else training


recipes: Mapping[str, Recipe] = MappingProxyType(
    {
        f"{way}_{network}_{name}": Recipe(
            about=f"{called}, {how}, {on}",
            data=data,
            network=partial(kind, ndim=ndim),
            supervision=fading(supervision, training),
            training=_paced(training, network),
            metrics=_metrics(name, data),
        )
        for name, (on, ndim, data, training) in _SETS.items()
        for network, (called, kind) in NETWORKS.items()
        for way, (how, supervision) in WAYS.items()
    }
)
