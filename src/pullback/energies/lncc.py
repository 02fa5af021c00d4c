"""Local normalised cross-correlation: the hot spot of the field."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pullback.alignment import Alignment
from pullback.energies.energy import Energy
from pullback.numerics.smooth import box_sum

EPS = 1e-5  # added to the product of the variances, as VoxelMorph does for intensities in [0, 1]


@dataclass(frozen=True)
class LNCC(Energy):
    """1 − the mean over voxels of the squared correlation of both images in a window about the voxel.

    Avants et al. 2008; OFG eq. 5. `window` is the odd edge length in voxels, 9 in VoxelMorph and OFG. Windows are cut
    off at the border and at masks (only voxels inside both count), so the value does not see affine intensity
    anywhere; away from borders and masks it equals the common form by zero-padded convolution. Patches that are
    constant to float precision give 0, and so does their gradient. Expects intensities about 0 … 1.
    """

    window: int = 9

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        return {"lncc": 1 - lncc(alignment.pair.fixed.data, alignment.moved.data, self.window, alignment.mask)}


def lncc(fixed: Tensor, moved: Tensor, window: int = 9, mask: Tensor | None = None) -> Tensor:
    """The mean squared local correlation of `(B, C, *spatial)` images over `mask` `(B, 1, *spatial)`, 0 … 1, a scalar.

    The gradient is made during the forward pass, so that one tensor per image that wants one is all that is kept; it
    cannot be differentiated again.
    """
    if fixed.shape[2:] != moved.shape[2:]:
        raise ValueError(f"lncc: images of one shape expected, got {tuple(fixed.shape)} and {tuple(moved.shape)}")
    return _LNCC.apply(fixed, moved, window, None if mask is None else mask.to(moved.dtype))


class _LNCC(torch.autograd.Function):
    @staticmethod
    def forward(ctx, fixed, moved, window, mask):
        wanted = ctx.needs_input_grad[:2]
        batch = max(fixed.shape[0], moved.shape[0])
        value = moved.new_zeros(())
        gradients: tuple[list, list] = ([], [])
        for b in range(batch):  # one image at a time: window sums of one volume stay in the cache
            for c in range(moved.shape[1]):
                i, j = (t[min(b, t.shape[0] - 1), c][None, None] for t in (fixed, moved))
                m = None if mask is None else mask[min(b, mask.shape[0] - 1)][None]
                part, *pieces = _correlation(i, j, window, m, wanted)
                value = value + part
                for kept, piece in zip(gradients, pieces, strict=True):
                    kept.append(piece)
        count = batch * moved.shape[1]
        ctx.save_for_backward(
            *(
                torch.cat(g).reshape(batch, -1, *moved.shape[2:]).div_(count) if w else None
                for g, w in zip(gradients, wanted, strict=True)
            )
        )
        ctx.shapes = fixed.shape, moved.shape
        return value / count

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        grads = (
            None if g is None else (upstream * g).sum_to_size(s)
            for g, s in zip(ctx.saved_tensors, ctx.shapes, strict=True)
        )
        return *grads, None, None


def _correlation(i: Tensor, j: Tensor, window: int, mask: Tensor | None, wanted: tuple[bool, bool]):
    """Value and gradients for one image, `(1, 1, *spatial)`: means over the window, then covariance and variances.

    With c = Σ(i−ī)(j−j̄), v = Σ(i−ī)², w = Σ(j−j̄)² over a window, the value is the mean of c² / (vw + ε).
    """
    inside = torch.ones_like(i) if mask is None else mask
    n = box_sum(inside, window).clamp_(min=1)
    voxels = inside.sum().clamp(min=1)
    i, j = (t - (t * inside).sum() / voxels for t in (i, j))  # small numbers, before they are squared
    if mask is not None:
        i, j = i * mask, j * mask
    i_sum, j_sum = box_sum(i, window), box_sum(j, window)
    i_mean, j_mean = i_sum / n, j_sum / n
    c = box_sum(i * j, window).addcmul_(i_sum, j_mean, value=-1)
    v, v_flat = _variance(i, i_sum, i_mean, window)
    w, w_flat = _variance(j, j_sum, j_mean, window)
    inverse = (v * w).add_(EPS).reciprocal_().mul_(inside).masked_fill_(v_flat | w_flat, 0)
    a = c * inverse  # d value / dc is 2a, and d value / dw is −a² v … (ε aside exactly: c² v / (vw + ε)²)
    value = (c * a).sum() / voxels
    if not any(wanted):
        return value, None, None
    scale = 2 / voxels
    fixed_grad = _gradient(i, j, i_mean, j_mean, a, w, inside, window).mul_(scale) if wanted[0] else None
    moved_grad = _gradient(j, i, j_mean, i_mean, a, v, inside, window).mul_(scale) if wanted[1] else None
    return value, fixed_grad, moved_grad


def _variance(x: Tensor, x_sum: Tensor, x_mean: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Σ(x−x̄)² over the window, and where it is nothing but rounding."""
    squares = box_sum(x * x, window)
    rounding = squares * (8 * torch.finfo(x.dtype).eps)
    variance = squares.addcmul_(x_sum, x_mean, value=-1)
    return variance.clamp_(min=0), variance <= rounding


def _gradient(x, y, x_mean, y_mean, a, y_variance, inside, window):
    """½ ∂(Σ value)/∂x: Σ over the windows that hold a voxel of a (y−ȳ) − a² var(y) (x−x̄)."""
    b = (a * a).mul_(y_variance)
    mixed = (a * y_mean).addcmul_(b, x_mean, value=-1)
    grad = box_sum(a, window).mul_(y).addcmul_(box_sum(b, window), x, value=-1).sub_(box_sum(mixed, window))
    return grad.mul_(inside)
