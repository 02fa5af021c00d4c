"""Normalised gradient fields: edges that are parallel, whatever their contrast."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pullback.alignment import Alignment
from pullback.energies.energy import Energy
from pullback.errors import InputError
from pullback.space import Image

ROUNDING = 1000  # units in the last place, within which edges are as steep as others


@dataclass(frozen=True)
class NGF(Energy):
    """Distance of gradient fields, 1 − the mean of ⟨n(F), n(M)⟩² over voxels.

    Here n(I) = ∇I / √(|∇I|² + ε²), and n(M) is no longer than n(F). Haber & Modersitzki 2006. Slopes are central
    differences, per mm, along the axes of the fixed grid, taken to be at right angles. ε is `epsilon` (their noise
    level η) times the mean |∇I| of each image on its own grid within its own mask: much weaker edges have no voice. The
    value does not see affine intensity, nor its sign. Where either image is flat it is 1. A voxel counts where it and
    its neighbours along the axes lie within the masks. Only the moved image receives a gradient.

    Theirs has no bound on n(M), so that, ε being under both norms, steeper moved edges are rewarded and faint textures
    moved. Bounded, a voxel has most, |n(F)|⁴, where M is F, whatever ε; its direction pulls at any length. So identical
    images leave 1 − the mean of |n|⁴, and nothing leaves less but by a mask of the moving image that hides flats.

    Raises:
        InputError: an epsilon that is not above 0.
    """

    epsilon: float = 0.3

    def __post_init__(self) -> None:
        if self.epsilon <= 0:
            raise InputError(f"NGF: epsilon is a positive share of the mean slope, got {self.epsilon}; try 0.3")

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        fixed, moving = alignment.pair.images
        seen = replace(fixed, mask=None if moving.mask is None else alignment.mask)
        edges = [_edge(image, self.epsilon) for image in (fixed, moving, seen)]
        steps = fixed.grid.spacing.tolist()
        return {"ngf": 1 - _NGF.apply(fixed.data, alignment.moved.data, edges, steps, _deep(alignment.mask)).mean()}


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

    With f = ∇F, m = ∇M, a = |f|² + ε² and b = |m|² + δ², where ε and δ are those of F and of M, and with ζ that of F
    where the mask of M lies (the δ of M, were it F),

    1. a voxel has s = ⟨f, m⟩² / ab, where |m| / δ is below |f| / ζ, and n(M) is the shorter;
    2. ∂s/∂m = 2 ⟨f, m⟩ / ab · f − 2 ⟨f, m⟩² / ab² · m = 2p (f − qm), with p = ⟨f, m⟩ / ab and q = ⟨f, m⟩ / b;
    3. elsewhere n(M) is m / |m| times |f| / √(|f|² + ζ²): s = ⟨f, m⟩² / ab with b = |m|² (|f|² + ζ²) / |f|²;
    4. so ∂s/∂m = 2 ⟨f, m⟩ / ab · f − 2 ⟨f, m⟩² / (ab |m|²) · m: as in 2, but q = ⟨f, m⟩ / |m|²;
    5. m = DM is linear, D `_slopes`: ∂s/∂M = Dᵀ ∂s/∂m, D's adjoint axis by axis;
    6. of n voxels that are compared each counts 1/n, the others 0.
    """

    @staticmethod
    def forward(ctx, fixed, moved, edges, steps, mask):
        f, m = _slopes(fixed, steps), _slopes(moved, steps)
        along, f_norm, m_norm = _product(f, m), _product(f, f), _product(m, m)
        a, b = f_norm + edges[0], m_norm + edges[1]
        steep = m_norm * edges[2] > f_norm * (edges[1] * (1 - ROUNDING * torch.finfo(m_norm.dtype).eps))
        q = along / torch.where(steep, m_norm, b)
        p = torch.where(steep, q * f_norm / (f_norm + edges[2]), q) / a
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
