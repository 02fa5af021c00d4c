"""Parts of images that may reach beyond their ends."""

import torch

from pullback.space.grid import Grid
from pullback.space.image import Image, cropped
from pullback.space.pull import least_at_border


def part_of(image: Image, box: tuple[slice, ...]) -> Image:
    """Return a part of an image, a slice per axis, that may go beyond its ends, from below 0 to above its shape.

    Voxels stay where they are in the world. Beyond the ends they have the least value of the image's border, and no
    mask.
    """
    shape = image.grid.shape
    inside = tuple(slice(max(along.start, 0), min(along.stop, n)) for along, n in zip(box, shape, strict=True))
    part = cropped(image, inside)
    if inside == box:
        return part
    before = [within.start - along.start for within, along in zip(inside, box, strict=True)]
    size = tuple(along.stop - along.start for along in box)
    where = (slice(None), slice(None), *(slice(a, a + n) for a, n in zip(before, part.grid.shape, strict=True)))
    data = least_at_border(image.data, image.mask).expand(*image.data.shape[:2], *size).clone()
    data[where] = part.data
    mask = None if part.mask is None else part.mask.new_zeros(*part.mask.shape[:2], *size)
    if mask is not None and part.mask is not None:
        mask[where] = part.mask
    affine = image.grid.affine.clone()
    affine[:-1, -1] += affine[:-1, :-1] @ torch.tensor([float(along.start) for along in box], dtype=torch.float64)
    return Image(data, Grid(size, affine), mask)
