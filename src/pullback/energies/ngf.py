"""Normalised gradient fields: edges that are parallel, whatever their contrast."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pullback.energies.capped import Capped
from pullback.errors import InputError
from pullback.space import Image


@dataclass(frozen=True)
class NGF(Capped):
    """The mean over voxels of ⟨n(F), n(M)⟩², taken off 1, where n(I) = ∇I / √(|∇I|² + ε²).

    Haber & Modersitzki 2006. Slopes are central differences, per mm, along the axes of the fixed grid, taken to be at
    right angles. ε is `epsilon` (their noise level η) times the mean |∇I| of each image on its own grid within its
    own mask: much weaker edges have no voice. The value does not see affine intensity, nor its sign. Where either
    image is flat it is 1. A voxel counts where it and its neighbours along the axes lie within the masks. Only the
    moved image receives a gradient.

    Identical images leave 1 − the mean of |n|⁴, for ε is under both norms; steeper moved edges would leave less, and so
    the mean is `Capped` there.

    Raises:
        InputError: an epsilon that is not above 0.
    """

    epsilon: float = 0.3

    def __post_init__(self) -> None:
        if self.epsilon <= 0:
            raise InputError(f"NGF: epsilon is a positive share of the mean slope, got {self.epsilon}; try 0.3")

    def likeness(self, fixed: Image, moved: Tensor, moving: Image, mask: Tensor | None) -> Tensor:
        edges = [_edge(image, self.epsilon) for image in (fixed, moving)]
        return _NGF.apply(fixed.data, moved, edges, fixed.grid.spacing.tolist(), _deep(mask))

    def by(self, likeness: Tensor) -> dict[str, Tensor]:
        return {"ngf": 1 - likeness}


def _edge(image: Image, epsilon: float) -> Tensor:
    """Return ε², `(B, C, 1, …)`; 1 where an image is flat, so that n is 0 there."""
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
    """Return the mask of voxels whose slopes are made of voxels within `mask` alone."""
    if mask is None:
        return None
    deep = mask.clone()
    for axis in range(2, mask.ndim):
        n = mask.shape[axis] - 1
        deep.narrow(axis, 0, n).logical_and_(mask.narrow(axis, 1, n))
        deep.narrow(axis, 1, n).logical_and_(mask.narrow(axis, 0, n))
    return deep


class _NGF(torch.autograd.Function):
    """The mean ⟨n(F), n(M)⟩² of each pair and channel, `(B, C)`, and in the same sweep its gradient: all that is kept.

    With f = ∇F, m = ∇M, a = |f|² + ε², b = |m|² + ε² (each image's own), a voxel has s = ⟨f, m⟩² / ab, and

    1. ∂s/∂m = 2 ⟨f, m⟩ / ab · f − 2 ⟨f, m⟩² / ab² · m = 2p (f − qm), with p = ⟨f, m⟩ / ab and q = ⟨f, m⟩ / b;
    2. m = DM is linear, D `_slopes`: ∂s/∂M = Dᵀ ∂s/∂m, D's adjoint axis by axis;
    3. of n voxels that are compared each counts 1/n, the others 0.
    """

    @staticmethod
    def forward(ctx, fixed, moved, edges, steps, mask):
        f, m = _slopes(fixed, steps), _slopes(moved, steps)
        along, a, b = _product(f, m), _product(f, f) + edges[0], _product(m, m) + edges[1]
        q = along / b
        p = q / a
        axes = tuple(range(2, p.ndim))
        share = 1 / p[0, 0].numel()
        if mask is not None:
            share = mask.to(p.dtype) / mask.sum(axes, keepdim=True).clamp(min=1)
        value = (along * p * share).sum(axes)
        gradient = None
        if ctx.needs_input_grad[1]:
            p = p * (2 * share)
            gradient = torch.zeros_like(p)
            for axis, (f_along, m_along, step) in enumerate(zip(f, m, steps, strict=True), 2):
                _add_adjoint(gradient, (f_along - q * m_along).mul_(p), axis, step)
        ctx.save_for_backward(gradient)
        ctx.shape = moved.shape
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        (gradient,) = ctx.saved_tensors
        each = upstream[(...,) + (None,) * (gradient.ndim - 2)]
        return None, (each * gradient).sum_to_size(ctx.shape), None, None, None


def _slopes(values: Tensor, steps: list[float]) -> list[Tensor]:
    """Return slopes along each axis per mm, central, one-sided at the border; 0 along an axis of one voxel."""
    return [
        torch.gradient(values, spacing=step, dim=axis)[0] if values.shape[axis] > 1 else torch.zeros_like(values)
        for axis, step in enumerate(steps, 2)
    ]


def _product(one: list[Tensor], other: list[Tensor]) -> Tensor:
    """Return the scalar product of two vectors per voxel, each given by its components."""
    total = one[0] * other[0]
    for a, b in zip(one[1:], other[1:], strict=True):
        total.addcmul_(a, b)
    return total


def _add_adjoint(to: Tensor, slope: Tensor, axis: int, step: float) -> None:
    """Add the adjoint of `_slopes` along one axis to `to`: from slopes to the values they are made of."""
    n = slope.shape[axis] - 1
    if n == 0:
        return
    half = slope.mul_(0.5 / step)
    first, last = half.narrow(axis, 0, 1).mul_(2), half.narrow(axis, n, 1).mul_(2)
    to.narrow(axis, 1, n).add_(half.narrow(axis, 0, n))
    to.narrow(axis, 0, n).sub_(half.narrow(axis, 1, n))
    to.narrow(axis, 0, 1).sub_(first)
    to.narrow(axis, n, 1).add_(last)
