"""The study of SuperWarp (Young et al. 2022): against one U-Net on both images, part by part, and on pairs of people.

    pullback study superwarp loss/slices/small ablation/slices/small --data slices=oasis_trt20_2d/
    pullback study superwarp real/hippocampus --data hippocampus=hippocampus/

The paper's brains are not at hand: pairs are made, as its are, of the slices of 15 people. `small` has voxels of 4 mm,
five levels and a twentieth of the weights, for two cores. The baseline has as many weights as SuperWarp; the paper's,
of the same widths, has fewer, and stands beside it.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch

from pullback.methods.pair.superwarp import JoinedUNet, WarmUp
from pullback.recipes import find
from pullback.recipes.superwarp import BASELINE, DICE as BY_LABELS, METRICS, NAME, NETWORK
from pullback.space import Affine, Labels, Transform, pull
from pullback.studies._images import COLUMNS as REAL_COLUMNS, DICE, FOLDING, SECONDS, UNTRAINED, trained
from pullback.study.arms import Arm, RegisterArm, TrainedArm
from pullback.study.evaluate import unmoved
from pullback.study.figures import by_number, curves, dots
from pullback.study.recipe import Recipe, changed
from pullback.study.result import Result, network_of
from pullback.study.table import Column, Experiment, Figure, Study, Table
from pullback.training import KnownTransform, LevelledAlignment, Row, align

SMALL: Mapping[str, str] = {
    "network.widths": "[8, 16, 24, 32, 48]",
    "training.updates": "1500",
    "training.augment.shape": "[56, 72]",
    "training.augment.elastic": "8",
    "data.synthetic.synthesis.shape": "[56, 72]",
    "data.synthetic.synthesis.elastic": "8",
    "data.synthetic.per_subject": "5",
}
"""Settings of the recipe on `slices` that make it small: voxels of about 4 mm, and maps of as many voxels."""
HALVED: Mapping[str, str] = {
    "network.widths": SMALL["network.widths"],
    "network.wide": "false",
    "training.updates": "2000",
    "training.augment.elastic": "4",
}
"""Settings that make it small for pairs of people, whose images are best halved beforehand."""
AS_MANY = "[16, 24, 32, 47, 61]"
"""Widths of the baseline of as many weights."""
EPE = Column("EPE", "mm", better="less", against="ratio")
COLUMNS = (EPE, DICE, FOLDING, SECONDS)
SETS = ("slices/small", "slices", "phantom", "brains")
REAL = ("hippocampus", "slices/small", "slices", "phantom", "brains")
COARSER = "four levels"


def _recipe(way: str, network: str, data: str) -> Recipe:
    """Return a recipe on a data set, `slices/small` among them."""
    name, _, size = data.partition("/")
    recipe = find(way, network, name)
    if not size:
        return recipe
    if network == BASELINE:
        return changed(recipe, {**SMALL, "network.widths": AS_MANY})
    return changed(recipe, {**SMALL, "network.wide": "false"})


def _same_widths(recipe: Recipe, data: str) -> Recipe:
    """Return the recipe of the baseline with the widths of the network."""
    widths = _recipe(NAME, NETWORK, data).network.keywords["widths"]
    return replace(recipe, network=partial(JoinedUNet, ndim=recipe.network.keywords["ndim"], widths=widths))


def _made(arms: Mapping[str, Recipe], baseline: str) -> Experiment:
    """Return an experiment on pairs that are made."""
    every: dict[str, Arm] = {
        "before": RegisterArm(unmoved),
        **{name: TrainedArm(recipe) for name, recipe in arms.items()},
    }
    return Experiment(every, baseline, arms[baseline].data, METRICS)


def _losses(data: str) -> Experiment:
    whole, plain = _recipe(NAME, NETWORK, data), _recipe(NAME, BASELINE, data)
    return _made(
        {
            "SuperWarp": whole,
            "U-Net": plain,
            "U-Net, same widths": _same_widths(plain, data),
            "SuperWarp, labels": _recipe(BY_LABELS, NETWORK, data),
            "U-Net, labels": _recipe(BY_LABELS, BASELINE, data),
            "SuperWarp, distances": replace(whole, supervision=KnownTransform()),
        },
        "U-Net",
    )


def _ablation(data: str) -> Experiment:
    whole = _recipe(NAME, NETWORK, data)
    widths = whole.network.keywords["widths"]
    parts: Mapping[str, Mapping[str, str]] = {
        "without warping": {"network.warped": "false"},
        "added, not composed": {"network.composed": "false"},
        "features as they are": {"network.hadamard": "false"},
        "loss of all levels": {"supervision.levels": "true"},
    }
    arms = {"SuperWarp": whole, **{name: changed(whole, settings) for name, settings in parts.items()}}
    if widths is not None and len(widths) > 4:
        arms[COARSER] = replace(whole, network=partial(whole.network, widths=widths[:4]))
    arms["warm-up"] = replace(whole, network=partial(whole.network, start=0.05), procedure=WarmUp())
    return _made(arms, "SuperWarp")


def _real(data: str) -> Experiment:
    """Return the experiment of pairs of people: told by made pairs, by a metric, and guided."""
    name, _, small = data.partition("/")
    backbones = {"VoxelMorph": "voxelmorph", "SuperWarp": NETWORK}
    arms = {f"{called}, unsupervised": TrainedArm(find("unsupervised", key, name)) for called, key in backbones.items()}
    arms |= {f"{called}, guided": TrainedArm(find("ofg", key, name)) for called, key in backbones.items()}
    plain = arms["VoxelMorph, unsupervised"].recipe
    told = changed(find(NAME, NETWORK, name), HALVED if small else {})
    told = replace(told, data=plain.data, metrics=plain.metrics)
    return trained({**arms, "SuperWarp, told": TrainedArm(told)}, "VoxelMorph, unsupervised", UNTRAINED)


# ---- what is left


def left_by_level(result: Result, pairs: int = 10) -> list[Row]:
    """Measure how far the truth is from what the coarser levels say of it, on the first test pairs.

    Returns:
        One row per arm whose answers have levels, and level: the 50th and the 99th percentile over voxels that are
        seen, in voxels of that level, of which each is 2^level voxels of the image.
    """
    rows: list[Row] = []
    for arm, units in result.runs.items():
        network = network_of(units[0])
        left: dict[int, list[torch.Tensor]] = {}
        for pair in list(result.data.test)[:pairs]:
            answer = align(network, pair)
            if not isinstance(answer, LevelledAlignment) or pair.truth is None or pair.fixed.mask is None:
                continue
            seen, known = Labels(pair.fixed.mask.byte(), pair.fixed.grid), (*answer.levels, answer.transform)
            for step, below in enumerate((None, *known[:-1])):
                grid = known[step].grids[0]
                before: Transform = Affine.identity(grid.ndim) if below is None else below
                off = (pair.truth.displacement(grid) - before.displacement(grid)).norm(dim=1)
                within = pull(seen, Affine.identity(grid.ndim), onto=grid).data[:, 0].bool()
                left.setdefault(len(known) - 1 - step, []).append(off[within])
        for level, parts in left.items():
            values = torch.cat(parts).double()
            half, most = (float(values.quantile(share)) for share in (0.5, 0.99))
            rows.append({"arm": arm, "level": level, "left p50": half, "left p99": most})
    return rows


LEFT = Figure(
    partial(
        by_number,
        columns=(Column("left p50", "voxels", key="left p50"), Column("left p99", "voxels", key="left p99")),
        number="level",
        label="level, 0 the finest",
    ),
    left_by_level,
    ("arm", "level"),
)
TRAINING = Figure(partial(curves, columns=(EPE, DICE)))

study = Study(
    about="SuperWarp: supervised learning and warping on U-Net for invariant subvoxel-precise registration "
    "(Young et al. 2022)",
    tables={
        "loss": Table(
            "Told by true fields or by labels, against one U-Net on both images",
            "Figures 2 and 3: by labels Dice 0.954 and EPE 0.152, against 0.906 and 0.711 of the U-Net; EPE 80 % less, "
            "with fewer weights of the U-Net; better by either loss on all ten structures, and by true fields better "
            "than the U-Net by labels. Table 2: distances are worse than their squares. `U-Net` has as many weights.",
            {data: _losses(data) for data in SETS},
            COLUMNS,
            {"training": TRAINING},
        ),
        "ablation": Table(
            "SuperWarp without each of its parts",
            "Table 2, whose numbers the text lacks: fewer levels and a loss of all levels are worse. Section 3.2: what "
            "is left on each level is less than a voxel, and sums and differences save a convolution. Fewer than some "
            "1,500 updates compare nothing: warping learns more slowly at first.",
            {data: _ablation(data) for data in SETS},
            COLUMNS,
            {"training": TRAINING, "left": LEFT},
        ),
        "real": Table(
            "Pairs of people: told by pairs that are made, by a metric, and guided",
            "This is not shown: the paper's pairs are of one person each.",
            {data: _real(data) for data in REAL},
            (*REAL_COLUMNS, SECONDS),
            {"real": Figure(partial(dots, columns=(DICE, FOLDING)))},
        ),
    },
)
