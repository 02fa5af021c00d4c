"""Registration by more than intensity: channels that are computed from each image alone, and what is compared of them.

Of heads the classes of a mixture of Gaussians are called by what they mostly are: fluid, grey and white matter.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from pullback.alignment import Alignment
from pullback.energies import LNCC, MIND, MSE, Diffusion, Energy, OnChannels
from pullback.methods.pair.classical import BALANCED, COARSE, DEFORMED, NEAR_AND_FAR, Classical, stiff
from pullback.numerics.difference import gradient
from pullback.solvers import DeformableStage, Refine
from pullback.space import Image, Transform

CLASSES = 3
DARK = 0.02
"""Of the range: what is darker belongs to no tissue."""


@dataclass(frozen=True)
class WithChannels:
    """A deformable stage that sees further channels of both images.

    Attributes:
        channels: those of an image, `(1, C, *spatial)`, by the image alone.
        stage: sees intensity as channel 0, and these from 1 on.
    """

    channels: Callable[[Image], Tensor]
    stage: DeformableStage

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
        """Align two images, fixed → moving, from a start."""
        one, two = (replace(each, data=torch.cat([each.data, self.channels(each)], 1)) for each in (fixed, moving))
        return self.stage(one, two, start)


def steepness(image: Image) -> Tensor:
    """Return the length of the intensity's gradient, of which the 99th percentile is 1, `(1, 1, *spatial)`."""
    length = gradient(image.data).norm(dim=1, keepdim=True)
    ordered = length.flatten().sort().values
    return length / ordered[int(0.99 * (len(ordered) - 1))]


def tissues(image: Image) -> Tensor:
    """Return how surely each voxel is of each class of intensity, the darkest first, `(1, 3, *spatial)`.

    By a mixture of Gaussians over all voxels that are not dark, after its bias field was taken off by N4 (Tustison et
    al. 2010).
    """
    values = image.data[0, 0].numpy()
    inside = values > DARK
    head = sitk.GetImageFromArray(values)
    mask = sitk.GetImageFromArray(inside.astype(np.uint8))
    correct = sitk.N4BiasFieldCorrectionImageFilter()
    correct.SetMaximumNumberOfIterations([30, 30])
    correct.Execute(sitk.Shrink(head + 1.0, [4] * values.ndim), sitk.Shrink(mask, [4] * values.ndim))
    bias = sitk.GetArrayFromImage(sitk.Exp(correct.GetLogBiasFieldAsImage(head)))
    lit = ((values + 1.0) / bias)[inside][:, None]
    some = lit[:: max(1, len(lit) // 50_000)]
    mixture = GaussianMixture(CLASSES, random_state=0).fit(some)
    out = np.zeros((CLASSES, *values.shape), np.float32)
    out[:, inside] = mixture.predict_proba(lit)[:, mixture.means_[:, 0].argsort()].T
    return torch.from_numpy(out)[None]


def _stage(
    energy: Energy, coarse: Energy = COARSE, displacement: float = 0.5, velocity: float = 0.4
) -> DeformableStage:
    return replace(DEFORMED, energy=stiff(energy, displacement, velocity), coarse=coarse)


def _beside(channels: Callable[[Image], Tensor], intensity: float, energy: Energy) -> WithChannels:
    """Return a stage that compares intensities as `balanced` does, with a weight, and further channels."""
    coarse = OnChannels(LNCC(5, noise=0.03)) + 1.5 * Diffusion()
    return WithChannels(channels, _stage(intensity * OnChannels(NEAR_AND_FAR) + energy, coarse))


WIDE = (1 / 3) * LNCC(3, noise=0.1) + (1 / 3) * LNCC(5, noise=0.1) + (1 / 3) * LNCC(9, noise=0.05)
STAGES: dict[str, Refine] = {
    "LNCC of three windows": _stage(WIDE),
    "and gradient length": _beside(steepness, 0.7, 0.3 * OnChannels(LNCC(5, noise=0.1), 1)),
    "and MIND": _stage(NEAR_AND_FAR + 2.0 * MIND()),
    "and tissues": _beside(tissues, 1.0, 2.0 * OnChannels(MSE(), 1, CLASSES)),
    "tissues alone": _beside(tissues, 0.0, 10.0 * OnChannels(MSE(), 1, CLASSES)),
    "half the regularity": _stage(NEAR_AND_FAR, displacement=0.25, velocity=0.2),
}
FEATURES: dict[str, Classical] = {
    name: replace(BALANCED, initialise=None, linear=(), deformable=stage) for name, stage in STAGES.items()
}
"""`balanced` from the headers on, with other things compared."""
