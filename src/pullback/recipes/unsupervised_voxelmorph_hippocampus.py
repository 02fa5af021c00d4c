"""VoxelMorph without labels on the Learn2Reg hippocampus task: the baseline of `ofg_voxelmorph_hippocampus`."""

from functools import partial

from pullback.data import Learn2Reg
from pullback.energies import LNCC, Diffusion
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.study.recipe import Recipe
from pullback.training import Training, Unsupervised

recipe = Recipe(
    about="VoxelMorph, unsupervised, hippocampus MR (Learn2Reg): beside Xin et al. 2024, table 1",
    data=Learn2Reg(shape=(48, 64, 48)),
    network=partial(VoxelMorph, ndim=3),
    supervision=Unsupervised(LNCC(9) + 1.0 * Diffusion()),
    training=Training(updates=3000, lr=1e-3),
)
