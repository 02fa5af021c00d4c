"""The study of LDDMM-GAN (Ramon et al. 2022): networks beside their model-based twins, and what they are made of.

    pullback study lddmm-gan tori velocities --seed 0
    pullback study lddmm-gan structures --data hippocampus=DIR --data brains=DIR

Tori are learned from 8 pairs at once at ten times the paper's rates, for a tenth of its updates. Diffeomorphic demons
are SimpleITK's, whose regularity is Gaussian smoothing.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import SimpleITK as sitk
from torch import Tensor

from pullback.alignment import Alignment, stacked
from pullback.data import Tori
from pullback.energies import Energy
from pullback.files import read_transform
from pullback.methods.pair.lddmm_gan import Adversarial, adversary
from pullback.methods.pair.lddmm_twin import Twin
from pullback.metrics import Dice, Folding, Metric, SDLogJ, of_one
from pullback.numerics.kernel import Kernel
from pullback.recipes import find
from pullback.recipes.lddmm_gan import ENERGY, FAST, KERNEL, kind_of
from pullback.records.csv_records import read_csv
from pullback.report.figures import COLOURS, HEIGHT, blank, dotted, legend
from pullback.space import Velocity
from pullback.studies._images import COLUMNS, DICE, FOLDING, SECONDS, UNTRAINED, trained
from pullback.study.arms import Arm, RegisterArm, TrainedArm
from pullback.study.evaluate import unmoved
from pullback.study.figures import boxes, curves, fields
from pullback.study.peers import Answer, ANTs, Peer, PeerArm
from pullback.study.recipe import Recipe
from pullback.study.result import Result, network_of
from pullback.study.table import Column, Experiment, Figure, Study, Table
from pullback.training import Row, Unsupervised, align, device_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

COSINE = Column("median cosine in V", better="more", digits=3, key="cosine in v")
TWINS = {"svf-gan": "stationary LDDMM", "epdiff-gan": "geodesic LDDMM"}
CALLED = {"svf-gan": "SVF-GAN", "epdiff-gan": "EPDiff-GAN"}


@dataclass(frozen=True)
class EnergyParts(Metric):
    """The terms of an energy, and their sum as `energy`."""

    energy: Energy
    name: ClassVar[str] = "energy"
    higher_is_better: ClassVar[bool] = False

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        terms = {name: float(value) for name, value in self.energy.terms(alignment).items()}
        return {self.name: sum(terms.values()), **terms}


@dataclass(frozen=True)
class DiffeomorphicDemons(Peer):
    """The tool `DiffeomorphicDemonsRegistrationFilter` of SimpleITK (Vercauteren et al. 2009), at one resolution.

    Attributes:
        steps: of the descent.
        smoothing: sigma of the Gaussian that smooths the field after each step, in voxels.
    """

    steps: int = 100
    smoothing: float = 1.5

    def __call__(self, fixed: Path, moving: Path, folder: Path) -> Answer:
        """Register two images of one channel on one grid."""
        images = [sitk.ReadImage(str(path), sitk.sitkFloat32) for path in (fixed, moving)]
        start = time.perf_counter()
        demons = sitk.DiffeomorphicDemonsRegistrationFilter()
        demons.SetNumberOfIterations(self.steps)
        demons.SetStandardDeviations(self.smoothing)
        found = demons.Execute(*images)
        seconds = time.perf_counter() - start
        path = folder / "demons.h5"
        sitk.WriteTransform(sitk.DisplacementFieldTransform(found), str(path))
        return Answer(read_transform(path), seconds)


def cosines(result: Result, pairs: int = 64) -> list[Row]:
    """Measure the angle in V between the velocities of the networks and of their twin, on the first test pairs.

    Returns:
        One row per arm and seed: the median of the cosines, and that of each pair.
    """
    arms = (unit.arm for units in result.units.values() for unit in units)
    twin = next(arm.register for arm in arms if isinstance(arm, RegisterArm) and isinstance(arm.register, Twin))
    some = list(islice(result.data.test, pairs))
    pair = stacked(some).to(device_of())
    known, grid = twin(*pair.images).transform.motion_on(pair.fixed.grid)
    spacing = grid.spacing.tolist()
    rows: list[Row] = []
    for arm, units in result.runs.items():
        for unit in units:
            seen, _ = align(network_of(unit).to(device_of()), pair).transform.motion_on(pair.fixed.grid)
            each = cosine(seen[0], known[0], twin.kernel, spacing)
            by_pair = {f"{COSINE.number}/{one.name}": float(value) for one, value in zip(some, each, strict=True)}
            rows.append({"arm": arm, "seed": unit.trial.seed, COSINE.number: float(each.median()), **by_pair})
    return rows


def cosine(v: Tensor, w: Tensor, kernel: Kernel, spacing: Sequence[float]) -> Tensor:
    """Return ⟨v, K⁻¹ w⟩ / ‖v‖ ‖w‖ for each pair of velocities, `(B,)`."""
    momenta = [kernel.sharpen(each, spacing) for each in (v, w)]
    product, *squares = ((a * m).flatten(1).sum(1) for a, m in ((v, momenta[1]), (v, momenta[0]), (w, momenta[1])))
    return product / (squares[0] * squares[1]).sqrt()


def angles(result: Result, rows: Sequence[Row]) -> "Drawing":
    """Draw the cosines of each arm, a dot for each pair and their mean."""
    values = {
        str(row["arm"]): {COSINE.number: [float(value) for name, value in row.items() if "/" in name]} for row in rows
    }
    return dotted(values, {COSINE.number: COSINE.label})


def answers(result: Result, rows: Sequence[Row]) -> "Drawing":
    """Draw the discriminator's p of mixed and of moved images over the updates: axes per arm, of its first seed."""
    logged = {arm: read_csv(units[0].folder / "training.csv") for arm, units in result.runs.items()}
    shown = {arm: table for arm, table in logged.items() if "discriminator/p/mixed" in table[0]}
    figure, axes = blank(max(len(shown), 1), 3.0 * max(len(shown), 1), HEIGHT)
    for axis, (arm, table) in zip(axes, shown.items(), strict=False):
        for kind, colour in zip(("mixed", "moved"), COLOURS, strict=False):
            at = [float(row["update"]) for row in table]
            axis.plot(at, [float(row[f"discriminator/p/{kind}"]) for row in table], color=colour, label=kind)
        axis.set_ylim(0, 1)
        axis.set_title(arm)
        axis.set_xlabel("updates")
    axes[0].set_ylabel("p of a registered pair")
    legend(figure, axes[0])
    return figure


def _short(recipe: Recipe) -> Recipe:
    """Return a recipe on tori with the numbers of the study."""
    training = replace(FAST, updates=4000, validate_every=500)
    metrics = (Dice(), Folding(), SDLogJ(), EnergyParts(ENERGY))
    return replace(recipe, data=Tori(at_once=8), training=training, metrics=metrics)


def _arms(method: str, data: str) -> dict[str, TrainedArm]:
    """Return the network, and what it is without its parts."""
    whole, unet = (find(method, network, data) for network in ("two-stream", "unet"))
    if data == "tori":
        whole, unet = _short(whole), _short(unet)
    alone = replace(whole, supervision=Unsupervised(1000 * ENERGY), training=replace(whole.training, players=()))
    name = CALLED[method]
    return {name: TrainedArm(whole), f"{name}, no discriminator": TrainedArm(alone), f"{name}, U-Net": TrainedArm(unet)}


def _of_adversaries(recipe: Recipe) -> dict[str, TrainedArm]:
    """Return the arms of a discriminator that sees unmixed images, and of one as fast as the network."""
    unmixed = partial(Adversarial, ndim=2, energy=ENERGY, mix=0.0)
    fast = replace(recipe.training, players=(adversary(recipe.training.lr),))
    return {
        "SVF-GAN, β = 0": TrainedArm(replace(recipe, supervision=unmixed)),
        "SVF-GAN, fast discriminator": TrainedArm(replace(recipe, training=fast)),
    }


def twin_of(method: str, data: str) -> Twin:
    """Return the model-based twin of a method's networks on a data set."""
    return Twin(ENERGY, kind_of(method, data), KERNEL)


def _on_tori(method: str) -> Experiment:
    arms = _arms(method, "tori")
    if method == "svf-gan":
        arms |= _of_adversaries(arms[CALLED[method]].recipe)
    beside: dict[str, Arm] = {"before": RegisterArm(unmoved), TWINS[method]: RegisterArm(twin_of(method, "tori"))}
    if method == "svf-gan":
        beside["demons"] = PeerArm(DiffeomorphicDemons())
    return trained(arms, CALLED[method], beside)


def _on_structures(method: str, data: str) -> Experiment:
    plain = find("voxelmorph", "voxelmorph", data)
    voxelmorph = replace(plain, network=partial(plain.network, transform=Velocity))
    beside = {
        **UNTRAINED,
        "SyN": PeerArm(ANTs("SyN")),
        "demons": PeerArm(DiffeomorphicDemons()),
        TWINS[method]: RegisterArm(twin_of(method, data)),
    }
    return trained(_arms(method, data) | {"VoxelMorph, velocity": TrainedArm(voxelmorph)}, CALLED[method], beside)


MATCHED = (Column("MSE", better="less", against="ratio"), Column("kinetic", better="less"))
TRAINING = Figure(partial(curves, columns=(DICE, FOLDING)))

study = Study(
    about="LDDMM meets GANs: Generative Adversarial Networks for diffeomorphic registration (Ramon et al. 2022)",
    tables={
        "tori": Table(
            "Networks and their model-based twins on tori, with and without their parts",
            "Figure 1, without numbers: both networks warp as well as the models that solve the same variational "
            "problem. SVF-GAN gains by the discriminator, which outruns the network where its images are not mixed.",
            {f"tori/{method}": _on_tori(method) for method in CALLED},
            (DICE, *MATCHED, FOLDING, SECONDS),
            {"training": TRAINING, "answers": Figure(answers), "fields": Figure(fields)},
        ),
        "velocities": Table(
            "How alike the velocities of networks and of their twins are: the cosine of their angle in V",
            "Figure 1, by eye: alike in three of five pairs by SVF-GAN, in four of five by EPDiff-GAN.",
            {f"tori/{method}": _on_tori(method) for method in CALLED},
            (COSINE, *MATCHED),
            {"cosines": Figure(angles, cosines, ("arm",))},
        ),
        "structures": Table(
            "Structures of brains",
            "Figure 2, NIREP: SVF-GAN is as good as stationary LDDMM and diffeomorphic demons, and better than "
            "VoxelMorph II in most structures; EPDiff-GAN is as good as Flash in most, but for two small ones. Two "
            "streams are much better than a U-Net; SVF-GAN gains by the discriminator, EPDiff-GAN in some structures.",
            {
                f"{data}/{method}": _on_structures(method, data)
                for data in ("hippocampus", "brains")
                for method in CALLED
            },
            (*COLUMNS, SECONDS),
            {"training": TRAINING, "labels": Figure(partial(boxes, column=DICE)), "answers": Figure(answers)},
        ),
    },
)
