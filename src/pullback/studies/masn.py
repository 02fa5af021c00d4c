"""The study of multi-magnification networks (WBIR 2022), on sections of BIRL.

    pullback study masn register --data birl=DIR
    pullback study masn made --data sections=DIR --seed 0
    pullback study masn real --data birl=DIR --data sections=DIR --seed 0

`sections` and `birl` are both the folder `data-images` of BIRL, with `pairs-imgs-lnds_histol.csv`. Networks learn from
three of its four sections, each bent and stained anew, and are tested on the fourth, with shifts of 5, 15 and 30 pixels
of the pictures, whose truth is known (`made`), and on the two real pairs of stains, by their landmarks (`real`). Of the
real pairs the images were learned from but one, never beside each other. There all see pixels of the networks' size, in
`register` those of the pictures; errors are in pixels of the pictures.

SASN, SAMN, MASN and MAMN are named as in the paper: S and M are one view of a patch or two, A and N the affine network
and the field network after it. The arms of one seed have the same affine networks, where these see the same. `no
context` has two views in its affine network, both of the patch alone: the weights of MASN without what it sees.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from torch import Tensor

from pullback.alignment import Pair
from pullback.data import BIRL, RestainedSections
from pullback.methods.pair.classical import BALANCED, FAST
from pullback.methods.pair.magnified import answered
from pullback.methods.pair.masn import MASN
from pullback.numerics.random import make_generator
from pullback.recipes.datasets import DATASETS
from pullback.recipes.masn import RIGID, restained
from pullback.studies._images import FOLDING, SECONDS
from pullback.study.arms import Arm, RegisterArm, Source, SourceArm, TrainedArm
from pullback.study.contrasts import Contrasts
from pullback.study.evaluate import unmoved
from pullback.study.figures import by_number
from pullback.study.peers import ANTs, PeerArm
from pullback.study.prealigned_arm import PrealignedArm
from pullback.study.recipe import changed
from pullback.study.result import Result
from pullback.study.run import load_network
from pullback.study.statistics import paired
from pullback.study.table import Column, Experiment, Figure, Study, Table
from pullback.training import RandomPatches, Row

MADE, REAL = "sections", "birl"
IMAGES, HELD = "*/scale-5pc/*.jpg", ("Izd2-29-041-w35_proSPC",)
SECTIONS = replace(cast(RestainedSections, DATASETS[MADE].data), images=IMAGES, test_split=HELD)
PAIRS = BIRL(test_split=1.0, validation_split=0.0)
SHIFTS = (5.0, 15.0, 30.0)
NAMES: Mapping[str, str] = {"SASN": "sasn", "SAMN": "samn", "MASN": "masn", "MAMN": "mamn"}


def learned(variant: str, settings: Mapping[str, str] = {}) -> TrainedArm:
    """Return a network that learns from the three sections."""
    recipe = replace(restained(variant), data=SECTIONS)
    return TrainedArm(changed(recipe, settings))


def again(network: MASN, passes: int = 3, field_passes: int = 1) -> MASN:
    """Return a network that looks so often, its affine part and then its field."""
    network.passes, network.field_passes = passes, field_passes
    return network


def arms() -> dict[str, Arm]:
    """Return the paper's arms and the control, all of runs on the sections."""
    known = {name: Source(learned(variant), "", MADE) for name, variant in NAMES.items()}
    control = Source(learned("masn", {"network.affine": "[1, 1]"}), "", MADE)
    return {
        **{name: SourceArm(source) for name, source in known.items()},
        "MASN(3)": SourceArm(known["MASN"], again),
        "MASN(3), both": SourceArm(known["MASN"], partial(again, field_passes=3)),
        "no context": SourceArm(control),
    }


BEFORE: Mapping[str, Arm] = {"before": RegisterArm(unmoved), "rigid": RegisterArm(RIGID)}
CLASSICAL: Mapping[str, Arm] = {
    "rigid + affine": RegisterArm(replace(FAST, deformable=None)),
    "fast": RegisterArm(FAST),
    "balanced": RegisterArm(BALANCED),
}


def shifted(shift: float) -> Experiment:
    """Return the experiment of test pairs of one shift."""
    recipe = learned("masn").recipe
    data = replace(SECTIONS, making=replace(SECTIONS.making, shifts=(shift,)))
    return Experiment({"before": BEFORE["before"], **arms(), **CLASSICAL}, "SASN", data, recipe.metrics)


def of_landmarks() -> Experiment:
    """Return the experiment of the real pairs, after a rigid alignment as the paper has it."""
    data = replace(PAIRS, spacing=SECTIONS.spacing)
    affine = replace(FAST, deformable=None)
    networks = arms()
    after = {name: PrealignedArm(arm, RIGID) for name, arm in networks.items()}
    further = {f"affine, {name}": PrealignedArm(networks[name], affine) for name in ("SASN", "MASN", "MASN(3)")}
    return Experiment({**BEFORE, **CLASSICAL, **after, **further}, "rigid", data, DATASETS[REAL].metrics, needs=(MADE,))


# ---- where in a patch the error is


EDGE = Column("error", "mm", better="less")
PLACES, BANDS = 24, 6


def by_edge(result: Result) -> list[Row]:
    """Measure both networks' errors on single patches of the test pairs, by how far a pixel is from the patch's edge.

    Returns:
        One row per arm, seed, network and band, from the edge to the middle; the field after the affine map.
    """
    rows: list[Row] = []
    pairs = [*result.data.test]
    for arm, units in result.units.items():
        for unit in units:
            if not isinstance(unit.arm, SourceArm) or unit.needs is None or unit.arm.uses is not None:
                continue
            network = cast(MASN, load_network(unit.needs.folder)[1]).train()
            drawn = RandomPatches(network.base, network.size)
            total = {name: torch.zeros(BANDS) for name in ("affine", "field")}
            for number in range(PLACES):
                patch = drawn(pairs[number % len(pairs)], make_generator(unit.trial.seed, number))
                for name, found in in_bands(network, patch).items():
                    total[name] += found / PLACES
            for name, errors in total.items():
                rows += [
                    {"arm": f"{arm}, {name}", "seed": unit.trial.seed, "band": band, "error mm": float(error)}
                    for band, error in enumerate(errors)
                ]
    return rows


@torch.no_grad()
def in_bands(network: MASN, patch: Pair) -> dict[str, Tensor]:
    """Return the mean error in mm of the affine map, and with the field, in bands from the edge inwards."""
    answer = network(patch.fixed, patch.moving)
    core = answered(patch.fixed, network.size)
    assert patch.truth is not None
    true = patch.truth.displacement(core.grid)
    place = core.grid.voxels(core.data)
    inward = torch.minimum(place, network.size - 1 - place).amin(0)
    band = (inward * BANDS / (network.size / 2)).long().clamp(max=BANDS - 1)
    found = {}
    for name, transform in (("affine", answer.local), ("field", answer.transform)):
        mm = core.grid.to_mm((transform.displacement(core.grid) - true).double()).norm(dim=1)[0]
        found[name] = torch.stack([mm[band == n].mean() for n in range(BANDS)]).float()
    return found


ERROR = Column("error", "px", better="less", against="difference", key="epe mm")
TRE = Column("TRE", "px", better="less", against="difference", key="tre mm")
COLUMNS = (
    ERROR,
    Column("NCC", better="more", key="ncc"),
    Column("MSE", better="less", digits=4, key="mse"),
    Column("NMI", better="more", digits=3, key="shared information"),
    replace(FOLDING, of="max"),
    SECONDS,
)
LANDMARKS = (
    TRE,
    Column("rTRE, median", better="less", digits=4, key="rtre"),
    Column("robustness", better="more", digits=2),
    *COLUMNS[1:],
)
BEST = "This is not shown: the paper has no landmarks. The best affine maps have 4.8 and 6.6 px."
EDGES = Figure(
    partial(by_number, columns=(EDGE,), number="band", label="from the edge of a patch (0) to its middle"),
    by_edge,
    ("arm", "band"),
)
CONTRASTS: Sequence[Contrasts] = (
    Contrasts("a second view of the affine network", paired, [("SASN", "MASN"), ("no context", "MASN")], "greater"),
    Contrasts("a second view of the field network", paired, [("SASN", "SAMN"), ("MASN", "MAMN")], "two-sided"),
    Contrasts("repeats", paired, [("MASN", "MASN(3)")], "greater"),
)

study = Study(
    about="Multi-magnification networks for deformable image registration on histopathology images (WBIR 2022)",
    tables={
        "made": Table(
            "One view or two, on a section that is bent and stained anew, by the mean length of its motion",
            "Table 1, of five pairs of slides without landmarks: NCC before 0.683, SASN 0.712, SAMN 0.706, MASN 0.746, "
            "MAMN 0.744, MASN(3) 0.773; MSE .0403, .0376, .0382, .0336, .0338, .0305; NMI .167, .178, .176, .195, "
            ".195, .204; seconds 25.5, 29.0, 29.0, 32.3, 45.3.",
            {f"{MADE}/{shift:g} px": shifted(shift) for shift in SHIFTS},
            COLUMNS,
            {"edges": EDGES},
            CONTRASTS,
            "epe mm",
        ),
        "register": Table(
            "Two real pairs of stains without networks, by their landmarks, at full size",
            BEST,
            {
                REAL: Experiment(
                    {**BEFORE, **CLASSICAL, "SyN": PeerArm(ANTs("SyN"))},
                    "rigid + affine",
                    PAIRS,
                    DATASETS[REAL].metrics,
                )
            },
            LANDMARKS,
        ),
        "real": Table(
            "Two real pairs of stains, by their landmarks",
            BEST,
            {REAL: of_landmarks()},
            LANDMARKS,
        ),
    },
)
