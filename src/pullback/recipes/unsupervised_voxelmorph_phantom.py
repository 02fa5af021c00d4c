"""VoxelMorph without labels on the built-in cohort, in minutes on two cores: what `pullback demo` trains first."""

from functools import partial

from pullback.data import Cohort
from pullback.energies import LNCC, Diffusion
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.metrics import Dice, EndPointError, Folding, SDLogJ
from pullback.study.recipe import Recipe
from pullback.training import Training, Unsupervised

recipe = Recipe(
    about="VoxelMorph, unsupervised, the built-in cohort",
    data=Cohort(spacing=5.0),
    network=partial(VoxelMorph, ndim=3),
    supervision=Unsupervised(LNCC(9) + 1.0 * Diffusion()),
    training=Training(updates=1000, lr=1e-3),
    metrics=(Dice(), Folding(), SDLogJ(), EndPointError()),
)
