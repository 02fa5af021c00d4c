"""TM-TVF (Chen et al. 2022): recipes that differ from `unsupervised` in the network's end and in the energy.

`tm-tvf` and `tm-tvf-labels` are the paper's eq. 3, without labels, as on its faces, and with them, as on OASIS;
`tm-tvf-lddmm` and `tm-tvf-lddmm-labels` its eq. 2.

| | paper | here | why |
|---|---|---|---|
| pieces | 8; its challenge's entry 12 | 8 | |
| backbone on `oasis` | TransMorph, the large one | the same, computed again for the gradient | 160×192×224 voxels |
| smoothness in eq. 3 | of the velocity at the end | of the displacement, as its code | |
| Dice | squared sums, with background | `SoftDice`: plain sums, without | as the metric |
| L of eq. 2 | α 0.01, γ 0.01 (faces) or 0.001, β 2 | γ 0.01 in 2-D, 0.001 in 3-D; voxels of half the size | |
| λ of eq. 1 | 1, of another norm in its code | `LAMBDA` | by descents on validation pairs |
| training | Adam with AMSGrad, 1e-4, falling, 500 epochs | as of `unsupervised` | one loop for one data set |
| `slices` | faces, pairs within a person | brains of two people | a harder task |
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from pullback.energies import LNCC, MSE, Diffusion, Energy, Kinetic, LabelMSE, SoftDice
from pullback.methods.pair.tm_tvf import TimeVarying
from pullback.methods.pair.transmorph import LARGE
from pullback.numerics.kernel import Sobolev
from pullback.recipes.datasets import DATASETS
from pullback.recipes.lookup import Key
from pullback.recipes.unsupervised import NETWORKS, unsupervised
from pullback.study.recipe import Recipe
from pullback.training import Unsupervised

SETS = ("phantom", "folder", "hippocampus", "brains", "slices", "oasis")
ORDER = ("transmorph", "voxelmorph", "vit-v-net")
ALPHA, BETA = 0.01, 2.0
GAMMA: Mapping[int, float] = MappingProxyType({2: 0.01, 3: 0.001})
LAMBDA = 1e5
SMOOTH = LNCC(9) + 1.0 * Diffusion(displacement=True)
VARIANTS: Mapping[str, str] = MappingProxyType(
    {
        "tm-tvf": "smooth in its displacement",
        "tm-tvf-labels": "smooth in its displacement, guided by labels",
        "tm-tvf-lddmm": "LDDMM norm",
        "tm-tvf-lddmm-labels": "LDDMM norm, guided by labels",
    }
)
"""Variants by their names as methods: what they learn by."""


def lddmm(ndim: int) -> Energy:
    """Return eq. 1: squared differences of intensities and λ/2 ∫ ‖Lv‖², for ‖Lv‖² is ⟨v, L²v⟩."""
    return MSE() + LAMBDA * Kinetic(Sobolev(ALPHA, 2 * BETA, GAMMA[ndim]))


def energy_of(variant: str, ndim: int) -> Energy:
    """Return the energy of one of `VARIANTS` for images of so many dimensions."""
    norm, labels = "lddmm" in variant, variant.endswith("labels")
    plain = lddmm(ndim) if norm else SMOOTH
    return plain + (LabelMSE() if norm else SoftDice()) if labels else plain


def time_varying(variant: str, network: str, data: str) -> Recipe:
    """Return the recipe of one of `VARIANTS`, of one of the networks of `unsupervised`, on one of `SETS`."""
    plain, (called, kind, _) = unsupervised(network, data), NETWORKS[network]
    ndim, large = DATASETS[data].ndim, data == "oasis"
    backbone = partial(kind, **LARGE) if large and network == "transmorph" else kind
    return replace(
        plain,
        about=f"{called} with time-varying velocities, {VARIANTS[variant]}, {DATASETS[data].about}",
        network=partial(TimeVarying, ndim=ndim, backbone=backbone, pinned="lddmm" in variant, frugal=large),
        supervision=Unsupervised(energy_of(variant, ndim)),
    )


recipes: Mapping[Key, Recipe] = MappingProxyType(
    {
        Key(variant, network, data): time_varying(variant, network, data)
        for variant in VARIANTS
        for network in ORDER
        for data in SETS
    }
)
