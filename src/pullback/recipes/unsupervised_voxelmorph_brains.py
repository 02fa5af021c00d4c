"""VoxelMorph without labels on whole brains in a folder, `sub-01_T1w.nii.gz` with `sub-01_dseg.nii.gz` and so on."""

from functools import partial

from pullback.data import PairFolder
from pullback.energies import LNCC, Diffusion
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.study.recipe import Recipe
from pullback.training import Training, Unsupervised

recipe = Recipe(
    about="VoxelMorph, unsupervised, whole brains on one grid: beside Xin et al. 2024, table 1",
    data=PairFolder(
        images="*_T1w.nii.gz",
        labels="*_dseg.nii.gz",
        validation_split=("sub-11", "sub-12"),
        test_split=("sub-13", "sub-14", "sub-15", "sub-16"),
    ),
    network=partial(VoxelMorph, ndim=3),
    supervision=Unsupervised(LNCC(9) + 1.0 * Diffusion()),
    training=Training(updates=1000, lr=1e-3),
)
