"""Keypoints of flat sections, and what is known of their surroundings, by which they are told again."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from pullback.numerics.components import component_centres
from pullback.numerics.polar import mutual, polar_correlation, polar_patches
from pullback.space import Grid, Image, Labels, keypoints, short_repr

FRAME = 0.2  # of the rim of a section: as much of one value is a frame, not tissue
BESIDE = 8  # px from a frame, within which no corners are sought: the frame's own are as in any other section
APART = 5.0  # px between corners, where they are sought
LONGEST = 640  # px along which corners are sought; larger sections are halved


@dataclass(frozen=True, eq=False)
class Features:
    """Keypoints of a section and their descriptors.

    Attributes:
        points: `(N, 2)` RAS mm of the section's own world, float64.
        descriptors: `(N, rings, angles)` float32, of `polar_patches`, or `(N, bytes)` uint8, of bits.
        spacing: mm of a pixel.
    """

    points: Tensor
    descriptors: Tensor
    spacing: float

    __repr__ = short_repr

    def __len__(self) -> int:
        return len(self.points)

    @property
    def bits(self) -> bool:
        """Whether descriptors are of bits."""
        return self.descriptors.dtype == torch.uint8


def spacing_of(grid: Grid) -> float:
    """Return mm of a pixel of a section: the mean of its edges."""
    return float(grid.spacing.mean())


def mask_centres(labels: Labels, area: int, most: int) -> Tensor:
    """Return the centroids of the components of a mask, `(N, 2)` pixel coordinates, float64.

    Args:
        labels: `(1, 1, X, Y)`; pixels of other labels are other components.
        area: in pixels, below which a component is none.
        most: the largest so many are kept; all of 0.
    """
    centres, areas = component_centres(labels.data[0, 0])
    centres, areas = centres[areas >= area], areas[areas >= area]
    if most and len(areas) > most:
        kept = areas.argsort(descending=True, stable=True)[:most].sort().values
        return centres[kept]
    return centres


def corners(image: Image, most: int) -> Tensor:
    """Return corners of a section by the Förstner operator, `(N, 2)` pixel coordinates, float64, the best first.

    Of a large section they are sought in means of 2 × 2, 4 × 4, … pixels, 640 or fewer along an edge.
    """
    data, factor = image.data[:, :1], 1
    seen = beside_frame(image) if image.mask is None else image.mask
    inside = None if seen is None else seen.to(data.dtype)
    while max(data.shape[2:]) > LONGEST:
        data, factor = F.avg_pool2d(data, 2), 2 * factor
        inside = None if inside is None else F.avg_pool2d(inside, 2)
    grid = Grid(tuple(data.shape[2:]), torch.eye(3, dtype=torch.float64))  # pixel coordinates
    found = keypoints(Image(data, grid, None if inside is None else inside >= 0.5), most or None, APART)
    return (found.data[0] + 0.5) * factor - 0.5


def beside_frame(image: Image) -> Tensor | None:
    """Return where a section is its own, `(1, 1, X, Y)` bool, and not the frame of one value in which it may lie.

    None where the rim is not of one value: then there is no frame.
    """
    data = image.data[:, :1]
    rim = torch.cat([data[..., 0, :], data[..., -1, :], data[..., 0], data[..., -1]], -1).flatten()
    values, counts = rim.unique(return_counts=True)
    if int(counts.max()) < FRAME * len(rim):
        return None
    frame = (data == values[counts.argmax()]).float()
    whole = -_widest(-frame, BESIDE // 2)  # single pixels of that value are none
    return _widest(whole, 3 * BESIDE // 2) == 0


def _widest(values: Tensor, reach: int) -> Tensor:
    """Return the largest value within `reach` pixels along both axes, one after the other."""
    across = F.max_pool2d(values, (2 * reach + 1, 1), 1, (reach, 0))
    return F.max_pool2d(across, (1, 2 * reach + 1), 1, (0, reach))


def described(image: Image, places: Tensor, radius: float) -> Features:
    """Return keypoints at pixel coordinates `(N, 2)` with their polar patches."""
    patches = polar_patches(image.data[:, :1], places, radius)
    return Features(_in_world(image.grid, places), patches, spacing_of(image.grid))


def of_bits(image: Image, places: Tensor, bits: Tensor) -> Features:
    """Return keypoints at pixel coordinates `(N, 2)` with descriptors of bits, `(N, bytes)` uint8."""
    return Features(_in_world(image.grid, places), bits, spacing_of(image.grid))


def alike(one: Features, other: Features) -> Tensor:
    """Return the keypoints of two sections that are each other's most alike, `(K, 2)` indices."""
    return mutual(polar_correlation(one.descriptors, other.descriptors)[0])


def within(image: Image, labels: Labels | None) -> Image:
    """Return a section whose mask is where labels are."""
    return image if labels is None else replace(image, mask=labels.data != 0)


def _in_world(grid: Grid, places: Tensor) -> Tensor:
    return grid.to_world(places.double().mT[None])[0].mT
