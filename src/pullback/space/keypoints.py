"""Keypoints: corners in images, the centres of labels, and places at random."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pullback.numerics.corners import distinctiveness
from pullback.numerics.random import make_generator
from pullback.space.image import Image, Labels
from pullback.space.points import Points

SIGMA, APART = 1.4, 9.0  # mean edges of a voxel


def keypoints(
    image: Image, most: int | None = None, apart: float | None = None, sigma: float | None = None, least: float = 1e-4
) -> Points:
    """Detect corners, junctions and blobs of an image: the local maxima of the Förstner operator, `distinctiveness`.

    σ of 1.4 voxels and windows of 9 are those of Heinrich, Handels & Simpson, "Estimating large lung motion in COPD
    patients by symmetric regularised correspondence fields", MICCAI 2015, as in the lung keypoints of the same group;
    lengths are in mm here, and `least` is ours. Nothing depends on how the image is stored or scaled.

    Args:
        image: one image; its channels add up. Keypoints lie in its mask, less one voxel at the rim; what is around the
            mask takes part, so that the rim itself makes none.
        most: the greatest number of keypoints; the most distinct are kept.
        apart: edge in mm, along the image's axes, of the window in which no other voxel is as distinct; None: 9 mean
            edges of a voxel.
        sigma: width in mm of the neighbourhood that makes a place distinct; None: 1.4 mean edges.
        least: share of the largest distinctiveness found, below which a place is no keypoint.

    Returns:
        `(1, N, d)` in RAS mm, float64, centres of voxels, the most distinct first; none in the outermost voxels.

    Raises:
        ValueError: several images.
    """
    _refuse_several(image)
    matrix = image.grid.affine[:-1, :-1]
    edge = float(torch.linalg.det(matrix).abs()) ** (1 / image.grid.ndim)
    spacing = image.grid.spacing.tolist()
    wide = [(SIGMA * edge if sigma is None else sigma) / step for step in spacing]
    window = [(APART * edge if apart is None else apart) / step for step in spacing]
    strength = distinctiveness(image.data, wide, matrix)
    highest = _dilated(strength, [max(1, round((n - 1) / 2)) for n in window])
    inside = torch.ones_like(strength, dtype=torch.bool) if image.mask is None else image.mask
    inside = _dilated((~inside).double(), [1] * image.grid.ndim) == 0
    for axis in range(2, strength.ndim):
        inside.narrow(axis, 0, 1).fill_(False)
        inside.narrow(axis, strength.shape[axis] - 1, 1).fill_(False)
    found = ((strength == highest) & inside & (strength > 0))[0, 0].nonzero()
    how = strength[0, 0][tuple(found.mT)]
    order = how.argsort(descending=True, stable=True)
    order = order[how[order] >= least * (how.max() if len(how) else 0)][:most]
    return Points(image.grid.to_world(found[order].double().mT[None]).mT)


@dataclass(frozen=True)
class RandomPoints:
    """Centres of voxels of an image at random, within its mask where it has one; always the same of one image.

    Attributes:
        count: how many, or all where there are fewer.
        seed: of the draw.
    """

    count: int = 2048
    seed: int = 0

    def __call__(self, image: Image) -> Points:
        """Return points `(1, N, d)` in RAS mm, float64.

        Raises:
            ValueError: several images.
        """
        _refuse_several(image)
        inside = torch.ones_like(image.data[0, 0], dtype=torch.bool) if image.mask is None else image.mask[0, 0]
        places = inside.nonzero()
        order = torch.randperm(len(places), generator=make_generator(self.seed))[: self.count]
        return Points(image.grid.to_world(places[order.to(places.device)].double().mT[None]).mT)


def centroids(labels: Labels) -> Points:
    """Return the centre of each label but 0, the mean of its voxels' centres.

    Returns:
        `(1, N, d)` in RAS mm, float64, in the order of the labels, which are the column `label`.

    Raises:
        ValueError: several images.
    """
    _refuse_several(labels)
    where = (labels.data[0, 0] != 0).nonzero()
    found, index = labels.data[0, 0][tuple(where.mT)].unique(return_inverse=True)
    total = torch.zeros(len(found), labels.grid.ndim, dtype=torch.float64, device=where.device)
    total.index_add_(0, index, where.double())
    middle = total / index.bincount(minlength=len(found))[:, None]
    return Points(labels.grid.to_world(middle.mT[None]).mT, {"label": found.long()[None]})


def _refuse_several(thing: Image | Labels) -> None:
    if len(thing.data) != 1:
        raise ValueError(f"one image expected, got {len(thing.data)}: each has other points; take them one by one")


def _dilated(values: Tensor, reach: list[int]) -> Tensor:
    """Return the largest value `(1, 1, *spatial)` within `reach` voxels along each axis."""
    pool = F.max_pool2d if len(reach) == 2 else F.max_pool3d
    for axis, far in enumerate(reach):
        n = min(far, values.shape[2 + axis] - 1)
        along = [n if other == axis else 0 for other in range(len(reach))]
        values = pool(values, [2 * m + 1 for m in along], stride=1, padding=along)
    return values
