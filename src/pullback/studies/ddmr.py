"""The study of DDMR (Pérez de Frutos et al. 2023), part by part."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from pullback.data import Synthesis
from pullback.energies import NCC, Energy
from pullback.methods.pair.ddmr import GeneralisedDice, PatchSSIM, SoftmaxWeighted, Transferred
from pullback.recipes import find
from pullback.recipes.ddmr import DESIGNS, LOSSES, NETWORK, REGULARITY, key_of
from pullback.studies._images import DICE, FOLDING, SECONDS, UNTRAINED, trained
from pullback.study.arms import Source, TrainedArm
from pullback.study.contrasts import Contrasts, TukeyRange
from pullback.study.figures import curves, weights
from pullback.study.peers import ANTs, PeerArm
from pullback.study.recipe import Recipe
from pullback.study.statistics import mann_whitney
from pullback.study.table import Column, Experiment, Figure, Study, Table
from pullback.training import UncertaintyWeighted

LARGE = ("phantom", "brains", "ixi")
SMALL_SETS = ("phantom", "brains", "hippocampus")
TRANSFERS = {"hippocampus": "brains", "comet": "ixi"}
STEPS = {"one step": (), "two steps": ("encoder.",)}
COLUMNS = (
    DICE,
    Column("HD", "mm", better="less"),
    Column("HD95", "mm", better="less"),
    Column("centroid", "mm", better="less"),
    Column("NCC", better="more"),
    Column("SSIM", better="more"),
    FOLDING,
    SECONDS,
)
OURS = {letter: LOSSES[letter] for letter in "NSD"}
FIGURES = {"training": Figure(partial(curves, columns=(DICE, FOLDING))), "weights": Figure(weights)}


def _arms(data: str) -> dict[str, TrainedArm]:
    return {design: TrainedArm(find(key_of(design), NETWORK, data)) for design in DESIGNS}


def _moved(recipe: Recipe, frozen: tuple[str, ...]) -> Recipe:
    """Return the recipe of a transfer, at a tenth of the rate for weights that have learned: the paper's 1e-4."""
    slow = replace(recipe.training, lr=recipe.training.lr / 10)
    return replace(recipe, procedure=Transferred(frozen=frozen), training=slow)


def _weighed(losses: Iterable[Energy], kind: type = UncertaintyWeighted) -> partial[Any]:
    return partial(kind, losses=tuple(losses), regularity=REGULARITY)


def _in_code(data: str) -> Experiment:
    """Return the experiment of what the authors' code does otherwise, each alone and all at once."""
    ours = find(key_of("UW-NSD"), NETWORK, data)
    theirs = {"N": NCC(squared=False), "S": PatchSSIM(), "D": GeneralisedDice()}
    ways = {letter: _weighed((OURS | {letter: energy}).values()) for letter, energy in theirs.items()}
    augment = ours.training.augment
    assert isinstance(augment, Synthesis)
    lattice = replace(ours.training, augment=replace(augment, controls=4, moving=10))
    arms = {
        "UW-NSD": ours,
        "softmax weighting, as its authors have it": replace(
            ours, supervision=_weighed(OURS.values(), SoftmaxWeighted)
        ),
        "1 − r": replace(ours, supervision=ways["N"]),
        "SSIM of patches": replace(ours, supervision=ways["S"]),
        "generalised Dice": replace(ours, supervision=ways["D"]),
        "4³ lattice, ten points move": replace(ours, training=lattice),
        "all of them": replace(ours, supervision=_weighed(theirs.values(), SoftmaxWeighted), training=lattice),
    }
    return trained({name: TrainedArm(recipe) for name, recipe in arms.items()}, "UW-NSD")


def _transfer(data: str, source: str) -> Experiment:
    scratch, large = _arms(data), _arms(source)
    arms = dict(scratch)
    for design in DESIGNS:
        for steps, frozen in STEPS.items():
            moved = _moved(scratch[design].recipe, frozen)
            arms[f"{design}, {steps}"] = TrainedArm(moved, Source(large[design], "procedure.source", source))
    peers = {kind: PeerArm(ANTs(kind)) for kind in ("SyN", "SyNCC")}
    return replace(trained(arms, beside={**UNTRAINED, **peers}), needs=(source,))


study = Study(
    about="Learning deep abdominal CT registration through adaptive loss weighting and synthetic data generation "
    "(DDMR, Pérez de Frutos et al. 2023)",
    tables={
        "designs": Table(
            "Six designs of the loss, from scratch",
            "Table 2, IXI: Dice 0.03 and 0.02 by intensities alone, 0.61 guided by labels, 0.63 with weights that "
            "learn and 0.61 with the Hausdorff distance among them; 0.07 before. TRE of label centroids 29.5, 30.1, "
            "1.08, 1.07, 0.97, 1.06 mm; 11.5 before. Guidance p < 0.001, weighting p = 0.9 (Tukey).",
            {f"{data}/{NETWORK}": trained(_arms(data)) for data in LARGE},
            COLUMNS,
            FIGURES,
            [TukeyRange("between designs", list(DESIGNS))],
            "centroid mm",
        ),
        "code": Table(
            "Weights that learn, and what the authors' code does otherwise",
            "This is not shown: the paper's text and its authors' code differ in the weighting, the Dice loss, the "
            "windows of SSIM, the sign of the correlation and the lattice of the augmentation.",
            {f"{data}/{NETWORK}": _in_code(data) for data in SMALL_SETS},
            COLUMNS,
            FIGURES,
        ),
        "transfer": Table(
            "The same on a small set: from scratch, and transferred from the large one in one step or two",
            "Tables 3 to 5, Oslo-CoMet: TRE from scratch, in one step and in two: BL-N 18.1, 24.1, 22.3 mm; SG-NSD "
            "8.9, 5.8, 5.2; UW-NSD 11.5, 4.1, 3.4; UW-NSDH 8.3, 4.0, 3.6; 11.9 before. Transfer is of use to UW-NSD "
            "(p = 0.001) and SG-NSD (p = 0.002), not BL-N (p = 0.86); guidance p < 0.001, weighting p = 0.009 "
            "(Mann-Whitney). SyN 13 times and SyNCC 421 times as slow.",
            {f"{data}/{NETWORK}": _transfer(data, source) for data, source in TRANSFERS.items()},
            COLUMNS,
            FIGURES,
            [
                Contrasts(
                    "benefit of transfer",
                    mann_whitney,
                    [(f"{design}, two steps", design) for design in ("BL-N", "SG-NSD", "UW-NSD")],
                    "less",
                ),
                Contrasts("benefit of guidance", mann_whitney, [("SG-NSD, two steps", "BL-N, two steps")], "less"),
                Contrasts("benefit of weighting", mann_whitney, [("UW-NSD, two steps", "SG-NSD, two steps")], "less"),
                Contrasts(
                    "against ANTs",
                    mann_whitney,
                    [(f"{design}, two steps", peer) for design in ("BL-N", "SG-NSD") for peer in ("SyN", "SyNCC")],
                    "less",
                ),
            ],
            "centroid mm",
        ),
    },
)
