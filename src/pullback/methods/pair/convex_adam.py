"""ConvexAdam: discrete optimisation between self-similar features, then gradient descent.

Siebert, Hansen, Heinrich: Fast 3D registration with accurate optimisation and little learning for Learn2Reg 2021
(2022); Siebert, Großbröhmer, Hansen, Heinrich: ConvexAdam, IEEE TMI 2024. It won Learn2Reg 2021 and learns nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair, one_by_one
from pullback.energies import mind
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.numerics.cost_volume import box_mean, pooled, unpooled
from pullback.solvers import CoupledConvex, Descend, FeatureDescent, consistent
from pullback.space import Affine, Displacement, Image, Transform, pull


def self_similar(image: Image) -> Tensor:
    """Return MIND-SSC of radius 1 and dilation 2, as the authors do."""
    return mind(image.data, 1, 2, image.mask)


@dataclass(frozen=True)
class ConvexAdam:
    """A register of two images of one dimension that are roughly aligned, of any intensities.

    The defaults are the authors'. Two things differ from their package: means at the border are of what is there, and
    both stages put their voxels in the same place. Masks are taken as they lie on each other before the
    search: features are of what lies in both, and differences count there; elsewhere the answer follows.

    Attributes:
        features: of an image, `(B, C, *spatial)` on its grid.
        spacing: of the discrete stage, in voxels.
        discrete: the search for whole steps of that spacing.
        both_ways: make the answer consistent with that of the reverse pair.
        fine: spacing of the descent, in voxels.
        descent: the second stage.
    """

    features: Callable[[Image], Tensor] = self_similar
    spacing: int = 6
    discrete: CoupledConvex = CoupledConvex()
    both_ways: bool = True
    fine: int = 2
    descent: FeatureDescent = FeatureDescent()

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
        """Align two images, fixed → moving, from `start` or as the headers say; each pair of a batch by itself.

        Raises:
            InputError: the fixed image has fewer than two blocks of `spacing` voxels along an axis.
        """
        if min(fixed.grid.shape) < 2 * self.spacing:
            raise InputError(
                f"ConvexAdam looks at blocks of {self.spacing} voxels, at least two along each axis; the fixed image "
                f"has {'×'.join(map(str, fixed.grid.shape))}: take a smaller spacing"
            )
        return one_by_one(self._one, fixed, moving, start)

    def _one(self, fixed: Image, moving: Image, start: Transform | None) -> Alignment:
        begin = Affine.identity(fixed.grid.ndim) if start is None else start
        still = start is None and moving.grid == fixed.grid
        pair = Pair(fixed, moving)
        with torch.no_grad():
            before = Alignment(pair, begin)
            seen = (fixed, moving if still else before.moved)
            features = [self.features(replace(image, mask=before.mask)) for image in seen]
            field = self._searched(*_blocks(features, before.mask, self.spacing))
            one, two, weight = _blocks(features, before.mask, self.fine)
            field = unpooled(field, self.spacing, one.shape[2:], self.fine)
        field = self.descent(one, two, field, weight)
        found = Displacement(unpooled(field, self.fine, fixed.grid.shape), fixed.grid)
        return Alignment(pair, found if start is None else begin @ found)

    def _searched(self, fixed: Tensor, moving: Tensor, weight: Tensor | None) -> Tensor:
        forward = self.discrete(fixed, moving, weight)
        return consistent(forward, self.discrete(moving, fixed, weight))[0] if self.both_ways else forward


@dataclass(frozen=True)
class FeatureOptimised:
    """The descent on features alone, from any start: the instance optimisation of VoxelMorph++.

    Heinrich & Hansen 2022, section 2, whose steps and weight are the defaults. A start that deforms is gone on from as
    a displacement on the fixed grid, means of blocks of `fine` voxels, so that its own roughness counts; before one
    that is linear a displacement of zero begins.

    Where both images have masks, features are 0 outside, each image's own, and all voxels count: so the border of an
    organ is brought onto the other's. A mask of one image alone is not looked at.

    Attributes:
        features: of an image, `(B, C, *spatial)` on its grid.
        fine: spacing of the descent, in voxels.
        descent: on the features.
        smoothed: average the displacement at full size three times more, as the authors' code does.
    """

    features: Callable[[Image], Tensor] = self_similar
    fine: int = 2
    descent: FeatureDescent = FeatureDescent(0.65, Descend(steps=50, step_size=1.0))
    smoothed: bool = False

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
        """Align two images, fixed → moving, from `start` or as the headers say; each pair of a batch by itself.

        Raises:
            InputError: the fixed image has fewer than two blocks of `fine` voxels along an axis.
        """
        if min(fixed.grid.shape) < 2 * self.fine:
            raise InputError(
                f"FeatureOptimised looks at blocks of {self.fine} voxels, at least two along each axis; the fixed "
                f"image has {'×'.join(map(str, fixed.grid.shape))}: take a smaller `fine`"
            )
        return one_by_one(self._one, fixed, moving, start)

    def _one(self, fixed: Image, moving: Image, start: Transform | None) -> Alignment:
        grid, pair = fixed.grid, Pair(fixed, moving)
        begin: Transform = Affine.identity(grid.ndim) if start is None else start
        linear = begin.as_affine is not None
        with torch.no_grad():
            to_grid = begin if linear else Affine.identity(grid.ndim)
            still = moving.grid == grid and (start is None or not linear)
            seen = moving if still else pull(moving, to_grid, onto=fixed)
            both = fixed.mask is not None and seen.mask is not None
            one, two = (self._means(image, both) for image in (fixed, seen))
            known = one.new_zeros(1, grid.ndim, *grid.shape) if linear else begin.displacement(grid).to(one)
            field = pooled(known, self.fine) / self.fine
        field = unpooled(self.descent(one, two, field), self.fine, grid.shape)
        for _ in range(3 if self.smoothed else 0):
            field = box_mean(field, self.descent.smoothing)
        found = Displacement(field, grid)
        return Alignment(pair, found if start is None or not linear else begin @ found)

    def _means(self, image: Image, masked: bool) -> Tensor:
        """Return means of an image's features over blocks of voxels, of features that are 0 outside its mask or not."""
        if not masked or image.mask is None:
            return pooled(self.features(replace(image, mask=None)), self.fine)
        return pooled(self.features(image) * image.mask, self.fine)


def _blocks(features: Sequence[Tensor], mask: Tensor | None, factor: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return means of both images' features over blocks of voxels within the mask, and the share of each in it."""
    if mask is None:
        return pooled(features[0], factor), pooled(features[1], factor), None
    inside = mask.to(features[0])
    share = pooled(inside, factor)
    one, two = (pooled(each * inside, factor) / share.clamp(min=1e-6) for each in features)
    return one, two, share


METHOD = Method(
    about="discrete displacements between self-similar features, then descent; no training",
    aligns=("pair",),
    papers=(
        Paper(
            "siebert2022fast",
            "Siebert, Hanna and Hansen, Lasse and Heinrich, Mattias P.",
            "Fast 3D Registration with Accurate Optimisation and Little Learning for Learn2Reg 2021",
            "Biomedical Image Registration, Domain Generalisation and Out-of-Distribution Analysis (MICCAI 2021)",
            2022,
            "10.1007/978-3-030-97281-3_25",
        ),
        Paper(
            "siebert2024convexadam",
            "Siebert, Hanna and Großbröhmer, Christoph and Hansen, Lasse and Heinrich, Mattias P.",
            "ConvexAdam: Self-Configuring Dual-Optimisation-Based 3D Multitask Medical Image Registration",
            "IEEE Transactions on Medical Imaging",
            2024,
            "10.1109/TMI.2024.3462248",
            "article",
        ),
    ),
    register=ConvexAdam(),
    solves=("identity", "shift", "contrast", "anisotropic", "batch"),
)
