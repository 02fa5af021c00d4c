"""ConvexAdam: discrete displacements between self-similar features, then descent.

Siebert, Hansen, Heinrich: Fast 3D registration with accurate optimisation and little learning for Learn2Reg 2021
(2022); Siebert, Großbröhmer, Hansen, Heinrich: ConvexAdam, IEEE TMI 2024. It won Learn2Reg 2021 and learns nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair
from pullback.energies import mind
from pullback.errors import InputError
from pullback.numerics.unfold import pooled, unpooled
from pullback.solvers import CoupledConvex, FeatureDescent, consistent
from pullback.space import Affine, Displacement, Image, Transform, pull


def self_similar(image: Image) -> Tensor:
    """MIND-SSC of radius 1 and dilation 2, as the authors have it."""
    return mind(image.data, 1, 2, image.mask)


@dataclass(frozen=True)
class ConvexAdam:
    """A register of two images of one dimension that lie roughly on each other, of any intensities.

    The defaults are the authors'. Beside their package it does two things otherwise: means at the border are of what
    is there, and both stages put their voxels in the same place.

    Attributes:
        features: of an image, `(B, C, *spatial)` on its grid.
        spacing: of the discrete stage, in voxels.
        discrete: the search for whole steps of that spacing.
        both_ways: makes its answer consistent with that of the reverse pair.
        fine: spacing of the descent, in voxels.
        descent: from there on.
    """

    features: Callable[[Image], Tensor] = self_similar
    spacing: int = 6
    discrete: CoupledConvex = CoupledConvex()
    both_ways: bool = True
    fine: int = 2
    descent: FeatureDescent = FeatureDescent()

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
        """Fixed → moving, from `start` or as the headers say.

        Raises:
            InputError: the fixed image has fewer than two blocks of `spacing` voxels along an axis.
        """
        if min(fixed.grid.shape) < 2 * self.spacing:
            raise InputError(
                f"ConvexAdam looks at blocks of {self.spacing} voxels, at least two along each axis; the fixed image "
                f"has {'×'.join(map(str, fixed.grid.shape))}: take a smaller spacing"
            )
        begin = Affine.identity(fixed.grid.ndim) if start is None else start
        still = start is None and moving.grid == fixed.grid
        seen = moving if still else pull(moving, begin, onto=fixed)
        with torch.no_grad():
            features = [self.features(image) for image in (fixed, seen)]
            field = self._searched(pooled(features[0], self.spacing), pooled(features[1], self.spacing))
            fine = [pooled(each, self.fine) for each in features]
            field = unpooled(field, self.spacing, fine[0].shape[2:], self.fine)
        field = self.descent(fine[0], fine[1], field)
        found = Displacement(unpooled(field, self.fine, fixed.grid.shape), fixed.grid)
        return Alignment(Pair(fixed, moving), found if start is None else begin @ found)

    def _searched(self, fixed: Tensor, moving: Tensor) -> Tensor:
        forward = self.discrete(fixed, moving)
        return consistent(forward, self.discrete(moving, fixed))[0] if self.both_ways else forward
