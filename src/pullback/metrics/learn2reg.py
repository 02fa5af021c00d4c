"""Metrics exactly as the Learn2Reg challenge computes them (Hering et al. 2023), quirks included.

Bit-compatible with its evaluation; `physical` has the measures to trust. Its count of foldings is left out: it counts
after adding 3 to the determinant and clipping, and so is always 0.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pullback.alignment import Alignment
from pullback.metrics.metric import known_labels, of_one, with_mean
from pullback.metrics.physical import hausdorff
from pullback.numerics.difference import determinant
from pullback.numerics.sample import sample


@dataclass(frozen=True)
class Dice:
    """Dice of the labels that both images have before the warp; the challenge calls that of others NaN."""

    name: ClassVar[str] = "l2r dice"
    higher_is_better: ClassVar[bool] = True

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        pair, moved = alignment.pair, alignment.moved_labels
        if pair.fixed_labels is None or pair.moving_labels is None or moved is None:
            return {}
        fixed, each = pair.fixed_labels.data, {}
        for value in known_labels(pair)[0]:
            a, b = fixed == value, moved.data == value
            each[value] = 2 * int((a & b).sum()) / int(a.sum() + b.sum())
        return with_mean(self.name, each)


@dataclass(frozen=True)
class SDLogJ:
    """The standard deviation of log(clip(det + 3, 1e-9, 1e9)), by central differences of all but two voxels on each
    side."""

    name: ClassVar[str] = "l2r sdlogj"
    higher_is_better: ClassVar[bool] = False

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        return {"l2r sdlogj": sdlogj(alignment.transform.displacement(alignment.pair.fixed.grid))}


def sdlogj(displacement: Tensor) -> float:
    """Return it for a displacement `(1, d, *spatial)` in voxels, with at least five along each axis."""
    u = displacement.double()
    ndim = u.shape[1]
    inner = [slice(None)] * 2 + [slice(2, -2)] * ndim
    columns = []
    for axis in range(2, 2 + ndim):
        ahead, behind = (u.roll(shift, axis) for shift in (-1, 1))  # what wraps round is cropped
        columns.append(((ahead - behind) / 2)[tuple(inner)])
    gradients = torch.stack(columns, 2)
    matrices = gradients + torch.eye(ndim, dtype=u.dtype, device=u.device).view(1, ndim, ndim, *[1] * ndim)
    return float((determinant(matrices) + 3).clamp(1e-9, 1e9).log().std(correction=0))


@dataclass(frozen=True)
class HausdorffDistance:
    """The 95th percentile of surface distances, as in `physical`, but in voxels; of a lost label it is infinite."""

    name: ClassVar[str] = "l2r hd95 voxels"
    higher_is_better: ClassVar[bool] = False

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        pair, moved = alignment.pair, alignment.moved_labels
        if pair.fixed_labels is None or pair.moving_labels is None or moved is None:
            return {}
        fixed = pair.fixed_labels
        found = hausdorff(fixed.data, moved.data, [1.0] * fixed.grid.ndim, (95.0,))[95.0]
        return with_mean(self.name, {value: found.get(value, math.inf) for value in known_labels(pair)[0]})


@dataclass(frozen=True)
class LandmarkError:
    """The mean distance of landmarks, by a cubic spline of the displacement, in voxels × the moving spacing."""

    name: ClassVar[str] = "l2r tre mm"
    higher_is_better: ClassVar[bool] = False

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        pair = alignment.pair
        if pair.fixed_points is None or pair.moving_points is None:
            return {}
        fixed, moving = pair.fixed.grid, pair.moving.grid
        at = fixed.to_voxels(pair.fixed_points.data.double().mT)
        there = moving.to_voxels(pair.moving_points.data.double().mT)
        displacement = alignment.transform.displacement(fixed).double()
        where = fixed.voxels(displacement)[None]
        between = moving.to_voxels(fixed.to_world(where + displacement)) - where  # fixed voxels to moving voxels
        off = at + sample(between, at, "cubic") - there
        mm = off * moving.spacing.to(off).view(1, -1, 1)
        return {"l2r tre mm": float(mm.norm(dim=1).mean())}
