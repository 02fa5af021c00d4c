"""On-the-Fly Guidance on the Learn2Reg hippocampus task: all else as in the unsupervised recipe."""

from dataclasses import replace

from pullback.energies import LNCC, Diffusion
from pullback.methods.pair.ofg import Guided
from pullback.recipes.unsupervised_voxelmorph_hippocampus import recipe as unsupervised

recipe = replace(
    unsupervised,
    about="VoxelMorph, On-the-Fly Guidance, hippocampus MR (Learn2Reg): beside Xin et al. 2024, table 1",
    supervision=Guided(LNCC(9) + 1.0 * Diffusion()),
)
