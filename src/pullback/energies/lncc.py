"""Local normalised cross-correlation: the hot spot of the field."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pullback.alignment import Alignment
from pullback.energies.energy import Energy
from pullback.errors import InputError
from pullback.numerics.smooth import box_sum

EPS = 1e-5  # added to the product of the variances, as VoxelMorph does for intensities in [0, 1]


@dataclass(frozen=True)
class LNCC(Energy):
    """1 − the mean over voxels of the squared correlation of both images in a window about the voxel.

    Avants et al. 2008; OFG eq. 5. `window` is the odd edge length in voxels, 9 in VoxelMorph and OFG. Windows are cut
    off at the border and at masks (only voxels inside both count), so the value does not see affine intensity
    anywhere; away from borders and masks it equals the common form by zero-padded convolution. Patches that are
    constant to float precision give 0, and so does their gradient. Expects intensities about 0 … 1.

    Where there is nothing but noise, correlation pulls at random. `noise` is a standard deviation whose square is added
    to both variances in each window, so that contrast below it hardly counts; 0 is the common form.
    """

    window: int = 9
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.window < 3 or self.window % 2 == 0:
            raise InputError(f"LNCC: the window is an odd number of voxels from 3 on, got {self.window}")

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        fixed, moved = alignment.pair.fixed.data, alignment.moved.data
        return {"lncc": 1 - lncc(fixed, moved, self.window, alignment.mask, self.noise)}


def lncc(fixed: Tensor, moved: Tensor, window: int = 9, mask: Tensor | None = None, noise: float = 0.0) -> Tensor:
    """The mean squared local correlation of `(B, C, *spatial)` images over `mask` `(B, 1, *spatial)`, 0 … 1, a scalar.

    The gradient is made during the forward pass, so that one tensor per image that wants one is all that is kept; it
    cannot be differentiated again.
    """
    if fixed.shape[2:] != moved.shape[2:]:
        raise ValueError(f"lncc: images of one shape expected, got {tuple(fixed.shape)} and {tuple(moved.shape)}")
    return _LNCC.apply(fixed, moved, window, None if mask is None else mask.to(moved.dtype), noise)


class _LNCC(torch.autograd.Function):
    @staticmethod
    def forward(ctx, fixed, moved, window, mask, noise):
        wanted = ctx.needs_input_grad[:2]
        batch = max(fixed.shape[0], moved.shape[0])
        value = moved.new_zeros(())
        gradients: tuple[list, list] = ([], [])
        for b in range(batch):  # one image at a time: window sums of one volume stay in the cache
            for c in range(moved.shape[1]):
                i, j = (t[min(b, t.shape[0] - 1), c][None, None] for t in (fixed, moved))
                m = None if mask is None else mask[min(b, mask.shape[0] - 1)][None]
                part, *pieces = _correlation(i, j, window, m, noise, wanted)
                value = value + part
                for kept, piece in zip(gradients, pieces, strict=True):
                    kept.append(piece)
        count = batch * moved.shape[1]
        ctx.save_for_backward(
            *(
                (g[0] if len(g) == 1 else torch.cat(g).reshape(batch, -1, *moved.shape[2:])).div_(count) if w else None
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
        return *grads, None, None, None


def _correlation(i: Tensor, j: Tensor, window: int, mask: Tensor | None, noise: float, wanted: tuple[bool, bool]):
    """Value and gradients for one image, `(1, 1, *spatial)`: means over the window, then covariance and variances.

    With c = Σ(i−ī)(j−j̄), v = Σ(i−ī)² + n noise², w = Σ(j−j̄)² + n noise² over a window of n voxels, the value is the
    mean of c² / (vw + ε). Volumes are let go, or written over, as soon as they have served: this is where registration
    peaks in memory.
    """
    inside = torch.ones_like(i) if mask is None else mask
    n, voxels = box_sum(inside, window).clamp_(min=1), inside.sum().clamp(min=1)
    i, j = (t - (t * inside).sum() / voxels for t in (i, j))  # small numbers, before they are squared
    if mask is None:
        del inside
    else:
        i, j = i.mul_(mask), j.mul_(mask)
    i_mean, j_mean = (box_sum(t, window).div_(n) for t in (i, j))
    v, w = (_variance(*t, n, window).add_(n, alpha=noise**2) for t in ((i, i_mean), (j, j_mean)))
    c = box_sum(i * j, window).addcmul_(n.mul_(i_mean), j_mean, value=-1)
    del n
    a = torch.addcmul(v.new_tensor(EPS), v, w).reciprocal_().mul_(c).masked_fill_((v == 0) | (w == 0), 0)
    if mask is not None:
        a = a.mul_(mask)
    value = c.mul_(a).sum() / voxels  # d value / dc is 2a, and d value / dw is −a² v
    del c
    if not wanted[0]:
        del w
    gradients = (
        _gradient(i, j, i_mean, j_mean, a, w, window) if wanted[0] else None,
        _gradient(j, i, j_mean, i_mean, a, v, window) if wanted[1] else None,
    )
    return value, *(g if g is None else g.mul_(2 / voxels if mask is None else mask * (2 / voxels)) for g in gradients)


def _variance(x: Tensor, mean: Tensor, n: Tensor, window: int) -> Tensor:
    """Σ(x−x̄)² over the window, 0 where it is nothing but rounding."""
    squares = box_sum(x * x, window)
    rounding = squares * (8 * torch.finfo(x.dtype).eps)
    variance = squares.addcmul_(n * mean, mean, value=-1)
    return variance.masked_fill_(variance <= rounding, 0)


def _gradient(
    x: Tensor, y: Tensor, x_mean: Tensor, y_mean: Tensor, a: Tensor, y_variance: Tensor, window: int
) -> Tensor:
    """½ ∂(Σ value)/∂x: Σ over the windows that hold a voxel of a (y−ȳ) − a² var(y) (x−x̄)."""
    b = (a * a).mul_(y_variance)
    grad = box_sum((a * y_mean).addcmul_(b, x_mean, value=-1), window).neg_()
    grad.addcmul_(box_sum(a, window), y)
    return grad.addcmul_(box_sum(b, window), x, value=-1)
