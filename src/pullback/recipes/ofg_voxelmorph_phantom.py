"""On-the-Fly Guidance on the built-in cohort: all else as in the unsupervised recipe."""

from dataclasses import replace

from pullback.energies import LNCC, Diffusion
from pullback.methods.pair.ofg import Guided
from pullback.recipes.unsupervised_voxelmorph_phantom import recipe as unsupervised

recipe = replace(
    unsupervised,
    about="VoxelMorph, On-the-Fly Guidance, the built-in cohort",
    supervision=Guided(LNCC(9) + 1.0 * Diffusion()),
)
