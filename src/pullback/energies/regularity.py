"""Regularity: how rough a field is."""

from dataclasses import dataclass, replace
from typing import TypeGuard

import torch
from torch import Tensor

from pullback.alignment import Alignment
from pullback.energies.energy import Energy, Sum, Weighted, parts
from pullback.numerics.autograd import value_with_gradient


class Regularity(Energy):
    """An energy of the field alone, a mean over its whole grid."""


@dataclass(frozen=True)
class Diffusion(Regularity):
    """The mean squared forward difference of the field, averaged over channels and axes (‖∇u‖² per voxel ÷ d²).

    Balakrishnan et al. 2019 (the l2 gradient loss of VoxelMorph and OFG). The field is the one that the transform is
    made of: a displacement, or a velocity, in voxels of its own grid; for other transforms, the displacement on the
    fixed grid. With `displacement` it is the displacement that a velocity or spline amounts to, on its own grid: that
    resists stretching more than squeezing, which the velocity's own roughness does not.
    """

    displacement: bool = False

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        return {"diffusion": roughness(field_of(alignment, self.displacement))}


@dataclass(frozen=True)
class Bending(Regularity):
    """The mean squared second derivative of the field, over channels and all d² pairs of axes.

    Rueckert et al. 1999. Zero for affine maps. Looks at the same field as `Diffusion`; axes too short for a difference
    count as straight.
    """

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        field = field_of(alignment)
        axes = range(2, field.ndim)
        total = field.new_zeros(())
        for a in axes:
            if field.shape[a] > 2:
                total = total + field.diff(n=2, dim=a).square().mean()
            for b in range(a + 1, field.ndim):
                if min(field.shape[a], field.shape[b]) > 1:
                    total = total + 2 * field.diff(dim=a).diff(dim=b).square().mean()
        return {"bending": total / len(axes) ** 2}


def is_regularity(part: Energy) -> TypeGuard[Weighted]:
    """Return whether a part of an energy is the weighted roughness of a field."""
    return isinstance(part, Weighted) and isinstance(part.energy, Regularity)


def stiffened(energy: Energy, factor: float) -> Energy:
    """Return the energy with the weights of its regularity times `factor`."""
    return Sum(
        tuple(replace(part, weight=factor * part.weight) if is_regularity(part) else part for part in parts(energy))
    )


def field_of(alignment: Alignment, displacement: bool = False) -> Tensor:
    """Return the field whose regularity is measured, `(B, d, *spatial)`; with `displacement` that of the transform."""
    fixed = alignment.pair.fixed
    return alignment.transform.field_on(fixed.grid, displacement).to(fixed.data.device)


def roughness(field: Tensor) -> Tensor:
    """Return the mean squared forward difference of a field `(B, d, *spatial)`, over places, channels and axes."""
    return value_with_gradient(_roughness, field)


def _roughness(wanted: tuple[bool], field: Tensor) -> tuple[Tensor, tuple[Tensor | None]]:
    """Return the mean squared forward difference of `(B, d, *spatial)`, and its gradient where it is `wanted`.

    1. E = Σₐ Σₓ δ² / dN over the axes a, with δ(x) = u(x + eₐ) − u(x) at N places.
    2. ∂E/∂δ = 2δ / dN.
    3. δ has a slope of 1 by u(x + eₐ) and of −1 by u(x): ∂E/∂δ is added to the one and taken off the other.
    """
    value, gradient = field.new_zeros(()), torch.zeros_like(field) if wanted[0] else None
    ndim = field.ndim - 2
    for axis in range(2, field.ndim):
        if field.shape[axis] < 2:
            continue
        step = field.diff(dim=axis)
        value = value + step.square().mean() / ndim  # 1
        if gradient is not None:
            step.mul_(2 / (step.numel() * ndim))  # 2
            n = field.shape[axis] - 1
            gradient.narrow(axis, 1, n).add_(step)  # 3
            gradient.narrow(axis, 0, n).sub_(step)
    return value, (gradient,)
