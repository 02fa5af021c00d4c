"""VoxelMorph without labels on a folder of your own: `pullback train unsupervised_voxelmorph_folder --data DIR`."""

from functools import partial

from pullback.data import PairFolder
from pullback.energies import LNCC, Diffusion
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.study.recipe import Recipe
from pullback.training import Training, Unsupervised

recipe = Recipe(
    about="VoxelMorph, unsupervised, your own folder of images",
    data=PairFolder(),
    network=partial(VoxelMorph, ndim=3),
    supervision=Unsupervised(LNCC(9) + 1.0 * Diffusion()),
    training=Training(updates=5000, lr=1e-3),
)
