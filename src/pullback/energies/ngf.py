"""Normalised gradient fields: edges that run alike, whatever their contrast."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pullback.alignment import Alignment
from pullback.energies.energy import Energy
from pullback.energies.similarity import masked_mean
from pullback.errors import InputError
from pullback.space import Image


@dataclass(frozen=True)
class NGF(Energy):
    """1 − the mean over voxels of ⟨n(F), n(M)⟩², where n(I) = ∇I / √(|∇I|² + ε²).

    Haber & Modersitzki 2006. Slopes are central differences, per mm, along the axes of the fixed grid, taken to be at
    right angles. ε is `epsilon` (their noise level η) times the mean |∇I| of each image on its own grid within its
    own mask: much weaker edges have no voice. The value does not see affine intensity, nor its sign. Where either
    image is flat it is 1: identical images leave 1 − the mean of |n|⁴. A voxel counts where it and its neighbours
    along the axes lie within the masks. Only the moved image receives a gradient.

    Raises:
        InputError: an epsilon that is not above 0.
    """

    epsilon: float = 0.3

    def __post_init__(self) -> None:
        if self.epsilon <= 0:
            raise InputError(f"NGF: epsilon is a positive share of the mean slope, got {self.epsilon}; try 0.3")

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        fixed, moving = alignment.pair.fixed, alignment.pair.moving
        edges = [_edge(image, self.epsilon) for image in (fixed, moving)]
        steps = fixed.grid.spacing.tolist()
        return {"ngf": 1 - _NGF.apply(fixed.data, alignment.moved.data, edges, steps, _deep(alignment.mask))}


def _edge(image: Image, epsilon: float) -> Tensor:
    """ε², `(B, C, 1, …)`; 1 where an image is flat, and so is what comes of it."""
    data = image.data.detach()
    slopes = _slopes(data, image.grid.spacing.tolist())
    norm = _product(slopes, slopes).sqrt_()
    axes, mask = tuple(range(2, data.ndim)), _deep(image.mask)
    if mask is None:
        mean = norm.mean(axes, keepdim=True)
    else:
        mean = (norm * mask).sum(axes, keepdim=True) / mask.sum(axes, keepdim=True).clamp(min=1)
    square = (epsilon * mean).square()
    return square.masked_fill(square == 0, 1)


def _deep(mask: Tensor | None) -> Tensor | None:
    """Where all that a slope is made of lies within the mask."""
    if mask is None:
        return None
    deep = mask.clone()
    for axis in range(2, mask.ndim):
        n = mask.shape[axis] - 1
        deep.narrow(axis, 0, n).logical_and_(mask.narrow(axis, 1, n))
        deep.narrow(axis, 1, n).logical_and_(mask.narrow(axis, 0, n))
    return deep


class _NGF(torch.autograd.Function):
    """The mean ⟨n(F), n(M)⟩² and, made in the same sweep, its gradient: all that is kept."""

    @staticmethod
    def forward(ctx, fixed, moved, edges, steps, mask):
        f, m = _slopes(fixed, steps), _slopes(moved, steps)
        along, f_norm, m_norm = _product(f, m), _product(f, f) + edges[0], _product(m, m) + edges[1]
        part = along / f_norm / m_norm  # 2 part (∇F − along / m_norm ∇M) is the slope of the value by ∇M
        alike = part * along
        value = masked_mean(alike, mask)
        gradient = None
        if ctx.needs_input_grad[1]:
            share = 2 / alike.numel() if mask is None else mask * (2 / mask.expand_as(alike).sum().clamp(min=1))
            part, along = part.mul_(share), along.div_(m_norm)
            gradient = torch.zeros_like(alike)
            for axis, (a, b, step) in enumerate(zip(f, m, steps, strict=True)):
                _add_adjoint(gradient, (a - along * b).mul_(part), 2 + axis, step)
            gradient = gradient.sum_to_size(moved.shape)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        (gradient,) = ctx.saved_tensors
        return None, upstream * gradient, None, None, None


def _slopes(values: Tensor, steps: list[float]) -> list[Tensor]:
    """Along each axis per mm, central, one-sided at the border; 0 along an axis of one voxel."""
    return [
        torch.gradient(values, spacing=step, dim=axis)[0] if values.shape[axis] > 1 else torch.zeros_like(values)
        for axis, step in enumerate(steps, 2)
    ]


def _product(one: list[Tensor], other: list[Tensor]) -> Tensor:
    """The scalar product of two vectors per voxel, each given by its components."""
    total = one[0] * other[0]
    for a, b in zip(one[1:], other[1:], strict=True):
        total.addcmul_(a, b)
    return total


def _add_adjoint(to: Tensor, slope: Tensor, axis: int, step: float) -> None:
    """What makes `_slopes` along one axis, the other way round: from slopes to the values they are made of."""
    n = slope.shape[axis] - 1
    if n == 0:
        return
    half = slope.mul_(0.5 / step)
    first, last = half.narrow(axis, 0, 1).mul_(2), half.narrow(axis, n, 1).mul_(2)
    to.narrow(axis, 1, n).add_(half.narrow(axis, 0, n))
    to.narrow(axis, 0, n).sub_(half.narrow(axis, 1, n))
    to.narrow(axis, 0, 1).sub_(first)
    to.narrow(axis, n, 1).add_(last)
