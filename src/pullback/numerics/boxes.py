"""Boxes along the axes of voxels: those of labels, those of an annotator who errs, and their indicator images.

A box is two faces along each axis, in voxel coordinates: tight ones lie half a voxel beyond the outermost voxels.
"""

import torch
from torch import Tensor

from pullback.numerics.random import make_generator

FINE = 64  # parts of a voxel by which boxes are told apart
BEYOND = 2**20  # voxels that a face may lie before the first one


def extents(labels: Tensor, values: Tensor) -> Tensor:
    """Return the tight boxes of labels.

    Args:
        labels: `(B, 1, *spatial)` integers.
        values: `(L,)`, those whose boxes are wanted.

    Returns:
        faces, low and high, `(B, L, d, 2)` float64 in voxels; NaN where an image lacks the label.
    """
    there = labels == values.to(labels).view(1, -1, *[1] * (labels.ndim - 2))  # (B, L, *spatial)
    axes, faces = range(2, labels.ndim), []
    for axis in axes:
        line = there.any(tuple(other for other in axes if other != axis))  # (B, L, n)
        at = torch.arange(line.shape[2], device=line.device, dtype=torch.float64)
        first = torch.where(line, at, torch.inf).amin(2)
        last = torch.where(line, at, -torch.inf).amax(2)
        faces.append(torch.stack([first - 0.5, last + 0.5], 2))
    found = torch.stack(faces, 2)
    return torch.where(found.isfinite(), found, torch.nan)


def with_error(faces: Tensor, values: Tensor, share: float, seed: int) -> Tensor:
    """Return boxes whose sides each moved by a number of its own, uniform up to a share of the box's length there.

    What is drawn depends on the seed, the label and the tight box alone: an annotator errs on one structure of one
    image once, whatever image it is aligned with.

    Args:
        faces: `(B, L, d, 2)`.
        values: `(L,)`, the labels.
        share: of the box's length along the axis, the most that a side moves.
        seed: of the error.

    Returns:
        faces of the same shape.
    """
    moved = faces.clone()
    for pair, label in faces.isfinite().all(-1).all(-1).nonzero().tolist():
        box = faces[pair, label]
        key = [round(FINE * (face + BEYOND)) for face in box.flatten().tolist()]
        generator = make_generator(seed, *key, 1 + abs(int(values[label])))
        off = 2 * torch.rand(box.shape, generator=generator, dtype=torch.float64) - 1
        moved[pair, label] = box + share * off.to(box) * (box[:, 1:] - box[:, :1])
    return moved


def indicators(faces: Tensor, shape: tuple[int, ...], soft: bool = False) -> Tensor:
    """Return boxes as images: 1 for voxels whose middle lies inside, and else 0.

    Args:
        faces: `(B, L, d, 2)`, in voxels.
        shape: of the images, d numbers.
        soft: whether a voxel gets the share of it that a box covers.

    Returns:
        `(B, L, *shape)`, of the faces' dtype; 0 everywhere of a box that is not known.
    """
    covered = faces.new_ones(*faces.shape[:2], *[1] * len(shape))
    for axis, n in enumerate(shape):
        at = torch.arange(n, device=faces.device, dtype=faces.dtype)
        low, high = faces[:, :, axis, :1], faces[:, :, axis, 1:]  # (B, L, 1)
        if soft:
            share = (torch.minimum(high, at + 0.5) - torch.maximum(low, at - 0.5)).clamp(0, 1).nan_to_num()
        else:
            share = ((at >= low) & (at <= high)).to(faces)
        covered = covered * share.view(*share.shape[:2], *[n if other == axis else 1 for other in range(len(shape))])
    return covered
