"""Registration uncertainty (Smolders et al. 2022): recipes of the network that judges a register, by data.

`uncertainty` learns how far the deformable stage of `fast` may be from the truth; `uncertainty-alone` is VoxelMorph
alone, which predicts its answer as well. Neither sees a truth or a landmark; they choose the checkpoint where there are
some. The register runs at every update, for augmentation gives it other images each time.

| | paper | here | why |
|---|---|---|---|
| data | 52 pairs of CT of 40 patients | those of the data set | theirs are not public |
| registers | Plastimatch b-spline and demons, Velocity | the deformable stage of `fast` | any will do |
| widths | 16 … 128 | the same; 8 … 32 on small sets | two cores |
| patches | 256×256×96 | whole images | they fit |
| augmentation | flips along axes | the same; μ follows, for the register runs after them | |
| Adam | 2e-4, halved 6 times in 500 epochs (26,000 updates) | 1e-3, halved 6 times in 600 to 3,000 | small sets |
| λ, σ_I² | 10 and 1e-4 (b-spline, demons), 4 and 5e-4 (alone) | the same | tuned there on landmarks of 4-D CT |
| σ_c | 15 voxels, 61 taps | 15; 8 and 33 taps on small images | noise of 61 taps is one shift on them |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from pullback.methods.pair.classical import FAST
from pullback.methods.pair.posterior import SMOOTH, PosteriorEnergy
from pullback.methods.pair.uncertainty import WIDTHS, PosteriorNetwork, PosteriorSupervision
from pullback.metrics import Calibration
from pullback.recipes.datasets import DATASETS
from pullback.recipes.lookup import Key
from pullback.study.recipe import Recipe
from pullback.training import RandomFlips, Steps, Training

METHOD, ALONE, NETWORK = "uncertainty", "uncertainty-alone", "unet"
REGISTER: Any = FAST.deformable
HALVES = Steps(tuple(n / 7 for n in range(1, 7)), 0.5)
ENERGIES: Mapping[str, tuple[float, float]] = MappingProxyType({METHOD: (1e-4, 10.0), ALONE: (5e-4, 4.0)})
"""σ_I² and λ, the paper's."""


@dataclass(frozen=True)
class _Scale:
    """The numbers of a data set: the network's widths, updates, and sigma of the samples' noise in voxels."""

    widths: tuple[int, ...]
    updates: int
    smooth: float = 8.0


SCALES: Mapping[str, _Scale] = MappingProxyType(
    {
        "breathing-slices": _Scale((8, 16, 32), 600),
        "slices": _Scale((8, 16, 32), 1000),
        "folder": _Scale(WIDTHS, 3000, SMOOTH),
    }
)


def judging(method: str, data: str) -> Recipe:
    """Return the recipe of `METHOD` or `ALONE` on one of the data sets in `SCALES`."""
    images, scale = DATASETS[data], SCALES[data]
    noise, prior = ENERGIES[method]
    register = REGISTER if method == METHOD else None
    what = "how far a register may be from the truth" if method == METHOD else "VoxelMorph with a deviation of its own"
    return Recipe(
        about=f"{what}, {images.about}: Smolders et al. 2022",
        data=images.data,
        network=partial(PosteriorNetwork, ndim=images.ndim, register=register, widths=scale.widths),
        supervision=PosteriorSupervision(PosteriorEnergy(noise, prior, scale.smooth)),
        training=Training(updates=scale.updates, lr=1e-3, schedule=HALVES, augment=RandomFlips()),
        metrics=(Calibration(), *images.metrics),
    )


recipes: Mapping[Key, Recipe] = MappingProxyType(
    {Key(method, NETWORK, data): judging(method, data) for method in (METHOD, ALONE) for data in SCALES}
)
