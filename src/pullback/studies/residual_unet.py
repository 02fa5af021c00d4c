"""The study of pre-alignment for visits of children (Dimitrijevic et al. 2022).

    pullback study residual-unet prealignment/growth sizes/growth --seed 0
    pullback study residual-unet prealignment/brains sizes/brains --data brains=brains/1mm
    pullback study residual-unet visits --data visits=bids/

`growth` are children made of the built-in cohort, at 4.5 and 6 mm: three times the voxels' edges of the paper. `brains`
are made of whole brains at 1 mm, and shown at 1.5 and 2 mm, as the paper has them. Between their visits the truth is
known. `visits` are your own.

NR is the network alone, RR after a rigid pre-alignment, and RAR after a rigid and an affine one. The pre-alignments
stand beside them without a network, for a network must gain on its own start. NR, augmented, has learned from images
that were turned, stretched and shifted further apart; NR, shallow, has the other reading of "three layers", which sees
37 voxels far, not 81.

In `prealignment` Dice is of labels at the network's own voxel size, as in the paper; there a coarser grid is an easier
segmentation. In `sizes` all are measured on one finer grid, through the same transforms. After an affine pre-alignment
end-point errors are in mm of the pre-aligned moving image, whose lengths differ by the growth between the visits.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from pullback.alignment import Register
from pullback.data import GrowingBrains
from pullback.methods.pair.classical import BALANCED
from pullback.methods.pair.residual_unet import SHALLOW
from pullback.recipes import find
from pullback.recipes.residual_unet import AFFINE, RIGID
from pullback.studies._images import DICE, FOLDING, SDLOGJ, SECONDS
from pullback.study.arms import Arm, RegisterArm, TrainedArm
from pullback.study.contrasts import Contrasts
from pullback.study.evaluate import unmoved
from pullback.study.figures import boxes, distances
from pullback.study.prealigned_arm import PrealignedArm
from pullback.study.recipe import Recipe, changed
from pullback.study.statistics import paired
from pullback.study.table import Column, Experiment, Figure, Study, Table
from pullback.study.trained import Trained
from pullback.training import IndependentAffines

BEFORE: Mapping[str, Register | None] = {"NR": None, "RR": RIGID, "RAR": AFFINE}
"""Pre-alignments of the paper's three arms."""
NEAR: Mapping[str, Register | None] = {
    "NR": None,
    "RR": replace(RIGID, initialise=None),
    "RAR": replace(AFFINE, initialise=None),
}
"""The same from where headers put the images, which for children that are made is near enough: a third of the time."""
TISSUES = ("dice/1", "dice/2", "dice/3")
EPE = Column("EPE", "mm", better="less", against="difference")
COLUMNS = (
    DICE,
    *(Column(name, better="more", key=key) for name, key in zip(("grey", "white", "fluid"), TISSUES, strict=True)),
    EPE,
    replace(FOLDING, of="median"),
    Column("folding", "%, all", better="less", of="median", key="folding % (all)"),
    SDLOGJ,
    SECONDS,
)
BOXES = Figure(partial(boxes, column=DICE))
DISTANCES = Figure(partial(distances, column=EPE, start="before"))
FINER = ("fine", "coarse")
SIZES: Mapping[str, tuple[float, float, float]] = {"growth": (4.5, 6.0, 3.0), "brains": (1.5, 2.0, 1.0)}
"""Edges of the voxels that networks see, fine and coarse, and of the one grid on which both are measured, mm."""


def after(arm: Arm, register: Register | None) -> Arm:
    """Return an arm, after a pre-alignment if there is one."""
    return arm if register is None else PrealignedArm(arm, register)


def of_size(data: GrowingBrains, size: float) -> GrowingBrains:
    """Return the same children in images of another voxel size."""
    return replace(data, spacing=size)


def arms(recipe: Recipe, before: Mapping[str, Register | None]) -> dict[str, Arm]:
    """Return the paper's arms by the recipe of the network alone, with what stands beside them."""
    learned: dict[str, Arm] = {name: after(TrainedArm(recipe), register) for name, register in before.items()}
    turned = replace(recipe, training=replace(recipe.training, augment=IndependentAffines()))
    return {
        "before": RegisterArm(unmoved),
        "rigid": after(RegisterArm(unmoved), before["RR"]),
        "affine": after(RegisterArm(unmoved), before["RAR"]),
        **learned,
        "NR, augmented": TrainedArm(turned),
        "NR, shallow": TrainedArm(changed(recipe, {"network.widths": str(list(SHALLOW))})),
        "balanced": RegisterArm(BALANCED),
    }


def prealignment(name: str, size: float | None = None) -> Experiment:
    """Return the experiment of what comes before the network, on a data set of the recipes, in voxels of `size` mm."""
    recipe = find("residual-unet", on=name)
    if size is None:
        return Experiment(arms(recipe, BEFORE), "RR", recipe.data, recipe.metrics)
    return Experiment(arms(recipe, NEAR), "RR", of_size(recipe.data, size), recipe.metrics)  # type: ignore[arg-type]


def sizes(name: str, edges: tuple[float, float, float]) -> Experiment:
    """Return the experiment of both voxel sizes, each network measured on one finer grid."""
    recipe, (*seen, common) = find("residual-unet", on=name), edges
    found: dict[str, Arm] = {}
    for arm, register in NEAR.items():
        key = "data.spacing" if register is None else "data.data.spacing"
        for called, edge in zip(FINER, seen, strict=True):
            shown = partial(Trained, spacing=(edge,) * 3)
            found[f"{arm}, {called}"] = after(TrainedArm(recipe, uses=shown, settings={key: str(edge)}), register)
    data = of_size(recipe.data, common)  # type: ignore[arg-type]
    return Experiment({"before": RegisterArm(unmoved), **found}, "RR, coarse", data, recipe.metrics)


GROWING = {"growth": "growth", "brains": "growing-brains"}
"""Data sets of the recipes, by the name of their folder in the study."""
MADE = {
    f"{name}/{called}": prealignment(GROWING[name], edge)
    for name, edges in SIZES.items()
    for called, edge in zip(FINER, edges[:2], strict=True)
}
WITH_AFFINE = Contrasts("affine after rigid", paired, [("RAR", "RR")], "greater")
GAINS = Contrasts("gains on its own start", paired, [("NR", "before"), ("RR", "rigid"), ("RAR", "affine")], "greater")
FINER_VOXELS = Contrasts("finer voxels", paired, [(f"{arm}, fine", f"{arm}, coarse") for arm in BEFORE], "greater")

study = Study(
    about="Unsupervised learning-based intra-subject registration of pediatric brain MRI (Dimitrijevic et al. 2022)",
    tables={
        "prealignment": Table(
            "Networks alone, after a rigid pre-alignment, and after an affine one, on their own grid",
            "Table 1, Dice of all tissues at 1.5 mm: NR 0.764, RR 0.929, RAR 0.924; at 2.0 mm 0.770, 0.916, 0.922. "
            "Folding, median: NR 0.11 %, others about 0. RAR > RR in white and grey matter (p < 1.06e-10), not in "
            "fluid, where by its own figures it loses more than it gains on both.",
            MADE,
            COLUMNS,
            {"boxes": BOXES, "distances": DISTANCES},
            (WITH_AFFINE, GAINS),
            TISSUES,
        ),
        "visits": Table(
            "The same on visits of your own, labelled, on their own grid",
            "As of `prealignment`; the paper's data are the Calgary Preschool set, 247 images of 64 children.",
            {"visits": prealignment("visits")},
            (DICE, *COLUMNS[5:]),
            {"boxes": BOXES},
            (WITH_AFFINE, GAINS),
            "dice",
        ),
        "sizes": Table(
            "Networks that see fine and coarse voxels, measured on one grid",
            "1.5 mm > 2.0 mm for RR and RAR in every tissue (p < 1.51e-4), for NR in white matter alone; each measured "
            "on its own grid. An epoch takes 1.8 to 2.5 times as long.",
            {name: sizes(GROWING[name], edges) for name, edges in SIZES.items()},
            COLUMNS,
            {"boxes": BOXES},
            (FINER_VOXELS,),
            TISSUES,
        ),
    },
)
