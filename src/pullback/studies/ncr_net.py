"""The study of NCR-Net (Andresen et al. 2022): what is marked of painted lesions, and the registration near them.

    pullback study ncr-net marked/stroke-slices --data stroke-slices=oasis_trt20_2d/ --seed 0
    pullback study ncr-net registration/lesions
    pullback study ncr-net brats --data stroke-slices=oasis_trt20_2d/ --data brats=im2Dbank/

Slices of OASIS-TRT-20 at 2 mm have strokes of four kinds, dark and painted over tissue; nine people are learned from
and four are tested on. They stand in for LPBA40. `lesions` is the built-in cohort in 3-D, where the true transform is
known. The arms of a table have the same data, updates and seeds; `_lesions` says what is measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from matplotlib.figure import Figure as Drawing
from torch import Tensor

from pullback.alignment import Alignment, seen
from pullback.data import LesionedPairs, PaintedLesion
from pullback.data.lesioned import STROKES, called
from pullback.energies import MSE, Diffusion
from pullback.methods.pair.classical import BALANCED, Classical
from pullback.methods.pair.convex_adam import ConvexAdam
from pullback.methods.pair.ncr_net import MAP
from pullback.methods.pair.non_correspondence import Corresponding
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.recipes import find
from pullback.report.figures import COLOURS, blank
from pullback.studies._dirac import BothWays, ByDisagreement
from pullback.studies._lesions import (
    NONE,
    BrainDice,
    ByDistance,
    CoarsePatients,
    LesionEvaluation,
    Told,
    grown,
    of_patient,
)
from pullback.study.arms import Arm, RegisterArm, Source, SourceArm, TrainedArm
from pullback.study.recipe import Recipe
from pullback.study.result import Result
from pullback.study.run import Run
from pullback.study.table import Column, Experiment, Figure, Study, Table
from pullback.training import ExampleEvaluation, Once, Unsupervised

SLICES, COHORT, BRAINS = "stroke-slices", "lesions", "stroke-brains"
KINDS = tuple(called(kind) for kind in STROKES)
SMALL, LARGE = STROKES[2:], STROKES[:2]
TAUGHT = Corresponding(beta=0.07, gamma=0.75)
"""β and γ of the arms that are compared with each other: about what the rule gives on the slices."""
DEFORMABLE: Classical = replace(BALANCED, initialise=None, linear=())


# ---- arms


def _recipe(data: str, **changes: Any) -> Recipe:
    """Return the recipe with fixed β and γ, and other changes of its supervision."""
    return replace(find("ncr-net", on=data), procedure=Once(), supervision=replace(TAUGHT, **changes))


def _plain(data: str, supervision: Any, network: Any = None) -> Recipe:
    recipe = replace(_recipe(data), supervision=supervision)
    return recipe if network is None else replace(recipe, network=network)


def _marking(data: str) -> dict[str, Arm]:
    """Return the ways to mark lesions."""
    two = _recipe(data)
    return {
        "two phases": TrainedArm(two),
        "β, γ from data": TrainedArm(find("ncr-net", on=data)),
        "one phase": TrainedArm(_recipe(data, begin=0.0)),
        "its D > β": TrainedArm(two, uses=partial(ByDistance, beta=TAUGHT.beta)),
        "both ways (DIRAC)": TrainedArm(_plain(data, BothWays()), uses=ByDisagreement),
        "with brain masks": TrainedArm(_recipe(data, guide=BrainDice())),
    }


def _aligning(data: str) -> dict[str, Arm]:
    """Return the ways to align, with and without a mind for lesions."""
    ndim = find("ncr-net", on=data).network.keywords["ndim"]
    energy = MSE() + TAUGHT.regularity * Diffusion()
    return {
        "two phases": TrainedArm(_recipe(data)),
        "without S": TrainedArm(_recipe(data, begin=1.0)),
        "one phase": TrainedArm(_recipe(data, begin=0.0)),
        "with brain masks": TrainedArm(_recipe(data, guide=BrainDice())),
        "both ways (DIRAC)": TrainedArm(_plain(data, BothWays())),
        "VoxelMorph": TrainedArm(_plain(data, Unsupervised(energy), partial(VoxelMorph, ndim=ndim))),
        "ConvexAdam": RegisterArm(ConvexAdam()),
        "Classical": RegisterArm(DEFORMABLE),
        "Classical, told": RegisterArm(Told(DEFORMABLE)),
    }


def _learning(data: str) -> dict[str, Arm]:
    """Return the same network, learned with all lesions, some, or none."""
    kinds = {"small and large": STROKES, "small": SMALL, "large": LARGE, "none": None}
    recipe = _recipe(data)
    return {
        name: TrainedArm(
            replace(recipe, training=replace(recipe.training, augment=None if some is None else PaintedLesion(some)))
        )
        for name, some in kinds.items()
    }


def _experiment(data: str, arms: Mapping[str, Arm]) -> Experiment:
    return Experiment(arms, next(iter(arms)), _tested(data), (), partial(LesionEvaluation))


def _tested(data: str) -> LesionedPairs:
    """Return the data of a recipe with a dozen healthy test pairs at most."""
    found = find("ncr-net", on=data).data
    assert isinstance(found, LesionedPairs)
    return replace(found, some=12)


# ---- columns


def _by_kind(name: str, key: str, *, without: bool = False, **options: Any) -> tuple[Column, ...]:
    """Return a column for each kind of lesions, and one without a lesion."""
    kinds = (*((NONE,) if without else ()), *KINDS)
    return tuple(Column(f"{name}, {kind}", key=f"{key} {kind}", **options) for kind in kinds)


MARKED = (
    *_by_kind("Dice", "dice", better="more", against="difference"),
    *_by_kind("grown", "grown", better="more"),
    *_by_kind("found", "found", better="more", of="rate"),
    Column("marked, none", "%", better="less", key=f"marked % {NONE}"),
)
NEAR = (
    *_by_kind("off", "off mm", unit="mm", better="less", against="difference"),
    *_by_kind("surface", "surface mm", unit="mm", better="less", against="difference"),
    *_by_kind("HD95", "hd95 mm", unit="mm", better="less", against="difference"),
)
KNOWN = (
    *_by_kind("error", "error mm", unit="mm", better="less", against="difference"),
    *_by_kind("error before", "error before mm", unit="mm", better="less"),
)
OVERLAP = _by_kind("Jaccard", "jaccard", without=True, better="more", against="difference")


# ---- pictures


def shown(result: Result, rows: Any, arm: str) -> Drawing:
    """Draw what an arm makes of pairs: moving, fixed, moved, what is left, S, and what is marked, before and after.

    Of painted lesions the first pair of each kind is drawn, else all pairs. True lesions are outlined.
    """
    unit = result.units[arm][0]
    network = Run(str(unit.needs.folder if isinstance(unit.arm, SourceArm) and unit.needs else unit.folder))
    pairs = [pair for pair, _ in zip(result.data.test, range(1 + len(KINDS)), strict=False)]
    names = ("moving", "fixed", "moved", "difference", "S", "S > ½; grown")
    figure, axes = blank(len(names), 1.6 * len(names), 2.0 * len(pairs), len(pairs))
    for n, pair in enumerate(pairs):
        row = axes[n * len(names) : (n + 1) * len(names)]
        for axis, name in zip(row, names, strict=True):
            axis.set_axis_off()
            axis.set_title(name if n == 0 else "", fontsize=8)
        _draw(row, seen(pair, network(*pair.images)))
    return figure


def _draw(row: Sequence[Any], alignment: Alignment) -> None:
    pair = alignment.pair
    mark = alignment.maps[MAP].data
    after = grown(mark > 0.5, pair.fixed)
    both = (mark > 0.5).float() / 2 + after.float() / 2
    off = pair.fixed.data - alignment.moved.data
    images = (pair.moving.data, pair.fixed.data, alignment.moved.data, off, mark, both)
    for axis, image, least in zip(row, images, (0, 0, 0, -1, 0, 0), strict=True):
        axis.imshow(_plane(image), cmap="RdBu_r" if least else "gray", vmin=least, vmax=1, origin="lower")
        if pair.lesion is not None and pair.lesion.data.any():
            axis.contour(_plane(pair.lesion.data.float()), [0.5], colors=COLOURS[3], linewidths=0.7)


def _plane(data: Tensor) -> Any:
    """Return an image, of a volume the middle plane, as `imshow` takes it."""
    plane = data[0, 0].detach().cpu()
    return (plane if plane.ndim == 2 else plane[..., plane.shape[2] // 2]).numpy().T


# ---- tables


def _patients() -> Experiment:
    """Return the experiment of real lesions: a network that was trained on slices with painted ones, as it is."""
    recipe = replace(_recipe(SLICES), data=_tested(SLICES))  # the run of the other tables
    source = Source(TrainedArm(recipe), "", SLICES)
    measure = partial(ExampleEvaluation, measure=of_patient, chooses="dice", aligns="pair")
    return Experiment({"two phases": SourceArm(source)}, "", CoarsePatients(), (), measure, needs=(SLICES,))


study = Study(
    about="NCR-Net: simultaneous registration and segmentation of non-correspondences (Andresen et al. 2022)",
    tables={
        "marked": Table(
            "What is marked of lesions, directly and after region growing",
            "LPBA40 with four simulated strokes, 2-D: Dice 0.871, 0.870, 0.630, 0.880 (the abstract does not say which "
            "type is which, nor whether before or after growing); 3-D is lower, 83.7 % of the worst type detected.",
            {data: _experiment(data, _marking(data)) for data in (SLICES, COHORT, BRAINS)},
            MARKED,
            {"examples": Figure(partial(shown, arm="two phases"))},
        ),
        "near": Table(
            "Registration near lesions, against that of the same pair without one",
            "Two phases improve Hausdorff and mean surface distance of three boundaries in OCT, significantly; with "
            "and without masks it performs comparably.",
            {data: _experiment(data, _aligning(data)) for data in (SLICES, BRAINS)},
            NEAR,
        ),
        "known": Table(
            "Registration near lesions, against the known transform",
            "None: the paper knows no true transform.",
            {COHORT: _experiment(COHORT, _aligning(COHORT))},
            KNOWN,
        ),
        "registration": Table(
            "Overlap of labels, by lesion",
            "Significantly better than others by mean Jaccard with large lesions, level with small ones or none, in "
            "2-D and 3-D.",
            {data: _experiment(data, _aligning(data)) for data in (SLICES, COHORT, BRAINS)},
            OVERLAP,
        ),
        "learned": Table(
            "The same network, learned from pairs with all lesions, some, or none",
            "Training with small and large lesions improves robustness.",
            {data: _experiment(data, _learning(data)) for data in (SLICES, BRAINS)},
            (*OVERLAP, *MARKED[: len(KINDS)], MARKED[-1]),
        ),
        "brats": Table(
            "Two patients of BraTS 2021 with the template SRI24, by a network that learned from painted strokes",
            "None: the paper has no such images.",
            {"brats": _patients()},
            (
                Column("Dice", better="more"),
                Column("grown", better="more"),
                Column("of the lesion", "%", better="more", key="lesion marked %"),
                Column("outside", "%", better="less", key="outside marked %"),
            ),
            {"patients": Figure(partial(shown, arm="two phases"))},
        ),
    },
)
