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
| `tori` | 2560 tori, of 64×64 voxels | as many to learn from, and others to be tested on | |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pullback.data import BrainPhantom, Dataset, Learn2Reg, LungKeypoints, PairFolder, PreparedIXI, Tori
from pullback.metrics import STANDARD, Dice, EndPointError, Folding, Metric, SDLogJ


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

DATASETS: Mapping[str, DataSet] = MappingProxyType(
    {
        "phantom": DataSet(
            "the built-in cohort",
            BrainPhantom(spacing=5.0),
            metrics=(Dice(), Folding(), SDLogJ(), EndPointError()),
        ),
        "tori": DataSet("the built-in tori", Tori(), ndim=2),
        "folder": DataSet("your own folder of images", PairFolder()),
        "hippocampus": DataSet("hippocampus MR (Learn2Reg)", Learn2Reg(shape=(48, 64, 48))),
        "brains": DataSet(
            "whole brains on one grid, sub-01_T1w.nii.gz with sub-01_dseg.nii.gz",
            PairFolder(
                images="*_T1w.nii.gz",
                labels="*_dseg.nii.gz",
                validation_split=("sub-11", "sub-12"),
                test_split=("sub-13", "sub-14", "sub-15", "sub-16"),
            ),
        ),
        "slices": DataSet(
            "slices of brains (15 of OASIS-TRT-20)",
            PairFolder(
                images="images/*.nii.gz",
                labels="labels/*.nii.gz",
                validation_split=("OASIS-TRT-20-10", "OASIS-TRT-20-11"),
                test_split=tuple(f"OASIS-TRT-20-{n}" for n in (12, 13, 14, 15)),
            ),
            ndim=2,
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
        "prepared": DataSet("a folder that `pullback prepare` made", Learn2Reg()),
        "lungs": DataSet("keypoints of lungs (DIR-Lab COPDgene)", LungKeypoints(), metrics=()),
        "lungs-published": DataSet(
            "clouds of lungs (DIR-Lab COPDgene) as their authors published them",
            LungKeypoints(landmarks="../lung_keypoints"),
            metrics=(),
        ),
    }
)
