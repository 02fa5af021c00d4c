"""Data sets by name: what they are, how they are read and split, and what is measured on them.

| data | as in its papers | here | why |
|---|---|---|---|
| `ixi`, `oasis`, `abdomen` | brought onto each other by affine maps | so distributed | |
| `ixi` | 200 people to learn from | TransMorph's split, all that are left | the paper lists nobody |
| `ixi` | Dice of 30 labels, renumbered 0 … 45 | of the same, by FreeSurfer's codes (`IXI`) | as the files have them |
| `lpba40` | Dice of some labels | of those (`LPBA40`) | |
| `lpba40` | to its first subject, aligned | to its first subject, as its headers say | it is distributed so |
| `oasis`, `abdomen` | learned both ways, measured one way: 45 pairs of `abdomen` | the same | |
| `abdomen` | Hounsfield units ÷ 500, not cut off | the same | |
| `phantom`, `hippocampus`, `brains`, `slices` | | smaller | for two cores |
| `lungct` | 8 of EMPIRE, 10 of COPDgene, 12 of Learn2Reg | Learn2Reg, as its file lists pairs | the most open one |
| `breathing`, `breathing-slices` | CT of real chests | real motion, made images | no CT is at hand |
| `tori` | 2560 tori, of 64×64 voxels | as many to learn from, and others to be tested on | |
| `videos` | 250 videos of veins, not public | a folder of frames for each video | |
| `flying-chairs` | pictures in colour | in grey | networks here read one channel; `data.grey=false` |
| `visits` | Calgary Preschool set, split by pairs | BIDS sessions, split by child | else a child is on both sides |
| `growth`, `growing-brains` | | single brains, made to grow | the truth is known |
| `sections` | 41 slides of a hospital, not public | single sections, bent and stained anew | the truth is known |
| `compressions` | | a phantom of such videos, 40 of 40 frames of 128×128 | the truth is known |
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from pullback.data import (
    BIRL,
    BrainPhantom,
    Breathing,
    Compressions,
    Dataset,
    DirLab,
    FlyingChairs,
    FramePairs,
    GrowingBrains,
    GrowthLaw,
    Learn2Reg,
    LesionedPairs,
    LungKeypoints,
    PairFolder,
    PreparedIXI,
    RestainedSections,
    SeriesFolder,
    Tori,
)
from pullback.data.held_out_plates import HeldOutPlates
from pullback.data.slice_folder import SliceFolder
from pullback.data.slice_views import RandomViews
from pullback.metrics import (
    STANDARD,
    Correlation,
    Dice,
    EndPointError,
    Folding,
    HausdorffDistance,
    Jaccard,
    LandmarkError,
    LesionDice,
    Metric,
    RelativeTRE,
    SDLogJ,
    SharedInformation,
    SquaredError,
)


@dataclass(frozen=True)
class DataSet:
    """Images, or clouds, that recipes learn from.

    Attributes:
        about: what they are, in a few words.
        data: three splits.
        ndim: 2 or 3.
        metrics: of pairs of images: what is reported; the first that answers chooses the checkpoint.
    """

    about: str
    data: Dataset
    ndim: int = 3
    metrics: tuple[Metric, ...] = STANDARD


FREESURFER = (
    *(0, *range(2, 6), 7, 8, *range(10, 19), 24, 26, 28, 30, 31, *range(41, 45), 46, 47, *range(49, 55)),
    *(58, 60, 62, 63, 72, 77, 80, 85, *range(251, 256)),
)
"""Codes of the labels in the files of `ixi`, in order; the papers number them 0 … 45 before they count."""
PLACES = (*range(1, 4), *range(5, 17), 18, *range(20, 24), *range(25, 33), 34, 36)
IXI = tuple(FREESURFER[place] for place in PLACES)
LPBA40 = (*range(21, 35), *range(41, 51), *range(61, 69), *range(81, 93), 101, 102, 121, 122, *range(161, 167))
"""Labels of which the papers' Dice is, as the files have them."""
BREATHING = (LandmarkError(), EndPointError(), Folding(), SDLogJ())
LESIONS = (LesionDice(), Jaccard(), Dice(), Folding())
BRAINS = PairFolder(
    images="*_T1w.nii.gz",
    labels="*_dseg.nii.gz",
    validation_split=("sub-11", "sub-12"),
    test_split=("sub-13", "sub-14", "sub-15", "sub-16"),
)
SLICES = PairFolder(
    images="images/*.nii.gz",
    labels="labels/*.nii.gz",
    validation_split=("OASIS-TRT-20-10", "OASIS-TRT-20-11"),
    test_split=tuple(f"OASIS-TRT-20-{n}" for n in (12, 13, 14, 15)),
)
ALIKE = (Correlation(), SquaredError(), SharedInformation())
GROWING = (Dice(), Folding(), SDLogJ(), EndPointError())

DATASETS: Mapping[str, DataSet] = MappingProxyType(
    {
        "phantom": DataSet(
            "the built-in cohort",
            BrainPhantom(spacing=5.0),
            metrics=(Dice(), Folding(), SDLogJ(), EndPointError()),
        ),
        "tori": DataSet("the built-in tori", Tori(), ndim=2),
        "compressions": DataSet(
            "the built-in videos of a vein that is compressed",
            Compressions(),
            ndim=2,
            metrics=(Dice(), HausdorffDistance((100.0, 95.0)), Folding()),
        ),
        "videos": DataSet(
            "your own videos, a folder of frames each",
            PairFolder(
                images="images/{subject}/{frame}.png",
                labels="labels/{subject}/{frame}.png",
                within=True,
                pairing=FramePairs(),
            ),
            ndim=2,
            metrics=(Dice(), HausdorffDistance((100.0, 95.0)), Folding()),
        ),
        "flying-chairs": DataSet(
            "Flying Chairs, rendered chairs over photographs, and their flow",
            FlyingChairs(),
            ndim=2,
            metrics=(EndPointError(), Folding()),
        ),
        "folder": DataSet("your own folder of images", PairFolder()),
        "series": DataSet("your own folder of 4-D series", SeriesFolder()),
        "hippocampus": DataSet("hippocampus MR (Learn2Reg)", Learn2Reg(shape=(48, 64, 48))),
        "brains": DataSet("whole brains on one grid, sub-01_T1w.nii.gz with sub-01_dseg.nii.gz", BRAINS),
        "growth": DataSet(
            "children who grow, made of the built-in cohort",
            GrowingBrains(
                BrainPhantom(spacing=3.0, train_subjects=10, validation_subjects=2, test_subjects=4),
                GrowthLaw(visits=(2, 3)),
                spacing=4.5,
                tissues=((1,), (2,), (3,)),
            ),
            metrics=GROWING,
        ),
        "growing-brains": DataSet(
            "children who grow, made of whole brains as `brains` has them", GrowingBrains(BRAINS), metrics=GROWING
        ),
        "visits": DataSet(
            "visits of one person, earlier to later, as sessions of BIDS",
            PairFolder(
                images="sub-{subject}/ses-{visit}/anat/*_T1w.nii.gz",
                labels="sub-{subject}/ses-{visit}/anat/*_dseg.nii.gz",
                within=True,
                one_way=True,
            ),
        ),
        "slices": DataSet(
            "slices of brains (15 of OASIS-TRT-20)",
            SLICES,
            ndim=2,
        ),
        "lesions": DataSet(
            "the built-in cohort with lesions that are painted in",
            LesionedPairs(BrainPhantom(spacing=5.0)),
            metrics=(*LESIONS, EndPointError()),
        ),
        "stroke-brains": DataSet(
            "whole brains, as of brains, with strokes that are painted in", LesionedPairs(BRAINS), metrics=LESIONS
        ),
        "stroke-slices": DataSet(
            "slices of brains, as of slices, with strokes that are painted in",
            LesionedPairs(replace(SLICES, shape=(144, 192)), spacing=2.0),
            ndim=2,
            metrics=LESIONS,
        ),
        "follow-ups": DataSet(
            "your own folder of several images of each subject, sub-01_ses-1_T1w.nii.gz", PairFolder(within=True)
        ),
        "ixi": DataSet(
            "IXI, atlas to subject, as TransMorph's authors distribute it",
            PreparedIXI(),
            metrics=(Dice(IXI), *STANDARD[1:]),
        ),
        "oasis": DataSet("OASIS (Learn2Reg 2021), subject to subject", Learn2Reg(masks=False)),
        "lpba40": DataSet(
            "LPBA40, subjects to the first of them, as LONI distributes it in delineation space",
            PairFolder(
                images="*/*.delineation.skullstripped.img.gz",
                labels="*/*.delineation.structure.label.img.gz",
                validation_split=("S39", "S40"),
                test_split=tuple(f"S{n:02d}" for n in range(2, 11)),
                atlas="S01",
                atlas_moves=False,
            ),
            metrics=(Dice(LPBA40), *STANDARD[1:]),
        ),
        "abdomen": DataSet("Abdomen CT-CT (Learn2Reg 2020)", Learn2Reg(masks=False, held_out=3, scale=500.0)),
        "lungct": DataSet(
            "Lung CT, exhale and inhale of a person (Learn2Reg 2020)",
            Learn2Reg(held_out=4),
            metrics=(LandmarkError(), Folding(), SDLogJ()),
        ),
        "prepared": DataSet("a folder that `pullback prepare` made", Learn2Reg()),
        "breathing": DataSet(
            "chests that breathe as real lungs, in five phases",
            Breathing(shape=(48, 48, 52), fine=2, phases=5),
            metrics=BREATHING,
        ),
        "breathing-slices": DataSet(
            "coronal planes of chests that breathe as real lungs, in five phases",
            Breathing(shape=(96, 104), phases=5, textures=2, test_split=0.28),
            ndim=2,
            metrics=BREATHING,
        ),
        "dirlab": DataSet(
            "DIR-Lab 4-D CT, exhale and inhale with the phases between",
            DirLab(),
            metrics=(LandmarkError(), Folding(), SDLogJ()),
        ),
        "sections": DataSet(
            "your own stained sections, each bent and stained anew",
            RestainedSections(spacing=14.0),
            ndim=2,
            metrics=(EndPointError(), *ALIKE, Folding()),
        ),
        "birl": DataSet(
            "pairs of stained sections with landmarks, as BIRL and ANHIR list them",
            BIRL(),
            ndim=2,
            metrics=(RelativeTRE(), LandmarkError(), *ALIKE, Folding()),
        ),
        "stains": DataSet(
            "your own pairs of stained sections, a folder for each: BLOCK/HE.png, BLOCK/CD8.png",
            PairFolder(images="{subject}/{stain}.*", within=True),
            ndim=2,
            metrics=(*ALIKE, Folding()),
        ),
        "mouse-sections": DataSet(
            "sections of mouse brains among the plates of the Allen atlas", SliceFolder(), ndim=2, metrics=()
        ),
        "held-out": DataSet(
            "plates that are not learned from, cut, tilted and damaged",
            HeldOutPlates(RandomViews()),
            ndim=2,
            metrics=(),
        ),
        "tilted": DataSet(
            "planes of a volume that are not learned from, cut obliquely, and damaged",
            HeldOutPlates(RandomViews(), volume="downsampled_standard.tiff", degrees=10.0),
            ndim=2,
            metrics=(),
        ),
        "lungs": DataSet("keypoints of lungs (DIR-Lab COPDgene)", LungKeypoints(), metrics=()),
        "lungs-published": DataSet(
            "clouds of lungs (DIR-Lab COPDgene) as their authors published them",
            LungKeypoints(landmarks="../lung_keypoints"),
            metrics=(),
        ),
    }
)
