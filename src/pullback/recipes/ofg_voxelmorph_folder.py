"""On-the-Fly Guidance on a folder of your own: `pullback train ofg_voxelmorph_folder --data DIR`."""

from dataclasses import replace

from pullback.energies import LNCC, Diffusion
from pullback.methods.pair.ofg import Guided
from pullback.recipes.unsupervised_voxelmorph_folder import recipe as unsupervised

recipe = replace(
    unsupervised,
    about="VoxelMorph, On-the-Fly Guidance, your own folder of images",
    supervision=Guided(LNCC(9) + 1.0 * Diffusion()),
)
