"""Classical registration: our presets beside the tools people use today.

    pullback study classical brains --data brains=DIR --seed 0
    pullback study classical brains/tools --data brains=DIR --set data.count=3
    pullback study classical features --data brains=DIR --set data.count=3
    pullback study classical mni --data mni=DIR
    pullback study classical ct-mr --data ct-mr=DIR

`brains` are the ordered pairs of sub-13 … sub-16 at 2 mm, with 31 structures. The headers place these brains as well as
an affine map can by what structures overlap; by intensities alone the linear stages of every tool lose some of it.
"Aligned" is the deformable stage alone, from the headers.

In `features` the deformable stage of `balanced`, from the headers on, compares more than intensity: windows of three
widths, the length of the gradient, MIND, or how surely each voxel is of one of three classes of intensity. These brains
have intensities that were drawn label by label, so their classes are clearer than those of a real head.

In `mni` a head at 2 mm and a brain at 1 mm go to their MNI template, each on a grid of its own. NCC is what the
validation of cfireants (validate/run_validation.py) reports: Pearson's correlation of the template and the moved image,
linear, zero outside, over all voxels of the template.

In `ct-mr` an MR of the upper abdomen goes to the CT of another patient: nine organs, labelled by a model. Their headers
do not place them, so all tools get the MR as our rigid stage lays it on the CT's grid.

Seconds are of the registration alone; ours run until the displacement of every voxel is known. `peak MB` is the most
memory that the process held. How many threads run say OMP_NUM_THREADS and ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS.
Tools that are not installed are left out; `pip install 'pullback[peers]'` brings ANTs and elastix.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace

from pullback.methods.pair.classical import ACCURATE, BALANCED, FAST
from pullback.methods.pair.convex_adam import ConvexAdam
from pullback.studies._ct_mr import CTtoMR
from pullback.studies._features import FEATURES
from pullback.studies._images import DICE, FOLDING, SDLOGJ
from pullback.studies._pairs import FilePairs
from pullback.study.arms import Arm, RegisterArm
from pullback.study.evaluate import unmoved
from pullback.study.peers import ANTs, ConvexAdamPackage, Elastix, FireANTs, Greedy, PeerArm
from pullback.study.table import Column, Experiment, Study, Table

SUBJECTS = ("sub-13", "sub-14", "sub-15", "sub-16")
FIRST = (("sub-13", "sub-14"), ("sub-15", "sub-16"), ("sub-14", "sub-15"))
COLUMNS = (
    DICE,
    Column("own Dice"),
    Column("NCC", better="more"),
    FOLDING,
    SDLOGJ,
    Column("time", "s", better="less", against="ratio", key="seconds"),
    Column("peak", "MB", better="less", key="peak MB"),
)
PRESETS: dict[str, Arm] = {
    "before": RegisterArm(unmoved),
    "fast": RegisterArm(FAST),
    "balanced": RegisterArm(BALANCED),
    "accurate": RegisterArm(ACCURATE),
    "fast, aligned": RegisterArm(replace(FAST, initialise=None, linear=())),
    "balanced, aligned": RegisterArm(replace(BALANCED, initialise=None, linear=())),
}
TOOLS: dict[str, Arm] = {
    "before": RegisterArm(unmoved),
    "balanced": RegisterArm(BALANCED),
    "ConvexAdam": RegisterArm(ConvexAdam()),
    "ConvexAdam, package": PeerArm(ConvexAdamPackage()),
    "SyN": PeerArm(ANTs("SyN")),
    "SyNCC": PeerArm(ANTs("SyNCC")),
    "elastix": PeerArm(Elastix()),
    "greedy": PeerArm(Greedy()),
    "FireANTs": PeerArm(FireANTs()),
}
LITTLE = ("before", "balanced", "ConvexAdam", "ConvexAdam, package")


def _brains(arms: dict[str, Arm], baseline: str = "balanced") -> Experiment:
    pairs = (*FIRST, *(pair for pair in itertools.permutations(SUBJECTS, 2) if pair not in FIRST))
    return Experiment(arms, baseline, FilePairs(pairs=pairs, images="{}_T1w.nii.gz", labels="{}_dseg.nii.gz"))


def _templates(pair: Sequence[str]) -> Experiment:
    arms = {name: PRESETS[name] for name in ("before", "balanced")}
    return Experiment(arms, "balanced", FilePairs(pairs=((pair[0], pair[1]),), images="validate/{}.nii.gz"))


study = Study(
    about="Classical registration side by side",
    tables={
        "brains": Table(
            "Twelve ordered pairs of four brains at 2 mm, with 31 structures",
            "No paper: the presets, and the tools people use today, each asked in its standard way. Own Dice is by "
            "labels that a tool moves by its own hand, and must be that of its transform.",
            {"brains/presets": _brains(PRESETS), "brains/tools": _brains(TOOLS)},
            COLUMNS,
        ),
        "features": Table(
            "Three pairs of brains at 2 mm: what the deformable stage compares",
            "No paper: where a descent began at the labels' own answer, it came back to the same Dice.",
            {
                "brains/features": _brains(
                    {name: PRESETS[name] for name in ("before", "balanced, aligned")}
                    | {name: RegisterArm(register) for name, register in FEATURES.items()},
                    "balanced, aligned",
                )
            },
            COLUMNS,
        ),
        "mni": Table(
            "A head at 2 mm and a brain at 1 mm to their MNI template, each image on a grid of its own",
            "FireANTs, on a GPU (validate/run_validation.py): NCC 0.9450 for the head, 0.9443 for the brain.",
            {
                "mni/head": _templates(("small/MNI152_T1_2mm", "small/T1_head_2mm")),
                "mni/brain": _templates(("medium/MNI152_T1_1mm_brain", "medium/t1_brain")),
            },
            COLUMNS[2:],
        ),
        "ct-mr": Table(
            "MR of one upper abdomen to the CT of another: nine organs, rigidly aligned beforehand",
            "No paper: ConvexAdam is made for this (Siebert et al. 2021).",
            {"ct-mr": Experiment({name: TOOLS[name] for name in LITTLE}, "balanced", CTtoMR())},
            COLUMNS,
        ),
    },
)
