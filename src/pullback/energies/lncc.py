"""Local normalised cross-correlation, the costliest energy of all."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pullback.alignment import Alignment, Pair
from pullback.energies.capped import rounded
from pullback.energies.energy import Energy
from pullback.errors import InputError
from pullback.numerics.smooth import box_sum

EPS = 1e-5  # added to the product of the variances, as VoxelMorph does for intensities in [0, 1]


@dataclass(frozen=True)
class LNCC(Energy):
    """The mean squared correlation of both images in a window about each voxel, taken off 1.

    Avants et al. 2008; OFG eq. 5. `window` is the odd edge length in voxels, 9 in VoxelMorph and OFG. Windows are cut
    off at the border and at masks (only voxels inside both count), so the value does not see affine intensity
    anywhere; away from borders and masks it equals the common form by zero-padded convolution. Patches that are
    constant to float precision correlate by 0, and so does their gradient. Expects intensities about 0 … 1.

    Where there is nothing but noise, correlation pulls at random. `noise` is a standard deviation: with it a window
    counts by v / (v + s), where v is the variance of the fixed image in it and s = noise², so contrast below the noise
    hardly counts. With the moved image's variance w and the covariance c, the energy is the mean of
    v / (v + s) · (1 − c² / vw): of the fixed contrast, what no affine change of the moved intensities explains.

    So identical images are least, at 0, for any window, any noise and any masks, since c² ≤ vw (Cauchy and Schwarz) and
    the moved image has no say in the weight. A floor under both variances, c² / ((v + s)(w + s)), has no such law: it
    is in favour of whatever raises the moved image's contrast, and so moves faint textures. (No smooth form that treats
    both images alike can have the law and still give faint windows another value at identical images than others: if
    its slope by w is 0 at w = v, so is that by v, all along.)

    Without noise, the common form, the `EPS` in the denominator is such a floor, though a low one: in a window of n
    voxels with a standard deviation of 0.18 / √n there is 1 % to be gained by contrast, below it more. So there the
    correlation is `capped` at that of the fixed image with itself, the mean of v² / (v² + ε), far above that of images
    that differ. (A mask of the moving image can still gain by hiding what is flat.)

    Raises:
        InputError: the window is even or smaller than 3, or the noise less than none.
    """

    window: int = 9
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.window < 3 or self.window % 2 == 0:
            raise InputError(f"LNCC: the window is an odd number of voxels from 3 on, got {self.window}")
        if not 0 <= self.noise < math.inf:
            raise InputError(f"LNCC: the noise is a standard deviation of 0 or more, got {self.noise}")

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        return self.compared(alignment, ())

    def ready(self, pair: Pair) -> Energy:
        if pair.moving.mask is not None:
            return self  # what is compared depends on where that mask comes to lie
        fixed, mask = pair.fixed.data, pair.fixed.mask
        mask = None if mask is None else mask.to(fixed.dtype)
        with torch.no_grad():
            return _Ready(self, tuple(_known(*one, self.window, self.noise) for one in _each(fixed, mask)))

    def compared(self, alignment: Alignment, known: "Sequence[_Known]") -> dict[str, Tensor]:
        """Return the term, by the statistics of the fixed images where they are `known`."""
        fixed, moved = alignment.pair.fixed.data, alignment.moved.data
        return {"lncc": 1 - lncc(fixed, moved, self.window, alignment.mask, self.noise, known)}


@dataclass(frozen=True)
class _Ready(Energy):
    """The energy `LNCC` of pairs whose fixed images have the statistics `known`."""

    energy: LNCC
    known: "tuple[_Known, ...]"

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        return self.energy.compared(alignment, self.known)


@dataclass(frozen=True, eq=False)
class _Known:
    """The window statistics of one image, all `(1, 1, *spatial)`: one half of a correlation.

    Attributes:
        values: less their mean, 0 outside the mask.
        n: how many voxels of each window count.
        mean: in each window.
        variance: Σ (x − x̄)² + s, where s is the `_floor` of the noise.
        faint: Σ s / variance over all windows, `()`: what does not count, and so counts as alike.
        alone: without noise, Σ of the image's squared correlation with itself, `()`; else, where it is 1 anyway, ∞.
    """

    values: Tensor
    n: Tensor
    mean: Tensor
    variance: Tensor
    faint: Tensor
    alone: Tensor


def lncc(
    fixed: Tensor,
    moved: Tensor,
    window: int = 9,
    mask: Tensor | None = None,
    noise: float = 0.0,
    known: Sequence[_Known] = (),
) -> Tensor:
    """Return the mean squared local correlation of `(B, C, *spatial)` over `mask` `(B, 1, *spatial)`, `()`, 0 … 1.

    With `noise` the share of a window's fixed contrast that is below it counts as correlated, as `LNCC` says.
    Only the gradients are kept for the backward pass, and they cannot be differentiated again. Statistics of the fixed
    images that are `known` are not computed anew.

    Raises:
        ValueError: images of different shapes.
    """
    if fixed.shape[2:] != moved.shape[2:]:
        raise ValueError(f"lncc: images of one shape expected, got {tuple(fixed.shape)} and {tuple(moved.shape)}")
    return _LNCC.apply(fixed, moved, window, None if mask is None else mask.to(moved.dtype), noise, known)


class _LNCC(torch.autograd.Function):
    @staticmethod
    def forward(ctx, fixed, moved, window, mask, noise, known):
        wanted = ctx.needs_input_grad[:2]
        batch = max(fixed.shape[0], moved.shape[0])
        value = moved.new_zeros(())
        gradients: tuple[list, list] = ([], [])
        pairs = zip(_each(fixed, mask, batch), _each(moved, mask, batch), strict=True)
        for number, (one, two) in enumerate(pairs):  # one image at a time: window sums of one volume stay in the cache
            here = known[number % len(known)] if known else _known(*one, window, noise)
            part, *pieces = _correlation(here, _known(*two, window, 0.0, here.n), window, two[1], noise, wanted)
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
        return *grads, None, None, None, None


def _each(values: Tensor, mask: Tensor | None, batch: int = 1) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield the channels of all images, `(1, 1, *spatial)` each with its mask; one image serves a whole batch."""
    for b in range(max(batch, values.shape[0])):
        for channel in values[min(b, values.shape[0] - 1)]:
            yield channel[None, None], None if mask is None else mask[min(b, mask.shape[0] - 1)][None]


def _known(values: Tensor, mask: Tensor | None, window: int, noise: float, n: Tensor | None = None) -> _Known:
    inside = torch.ones_like(values) if mask is None else mask
    n = box_sum(inside, window).clamp_(min=1) if n is None else n
    values = values - (values * inside).sum() / inside.sum().clamp(min=1)  # small numbers, before they are squared
    values = values if mask is None else values.mul_(mask)
    mean = box_sum(values, window).div_(n)
    variance = _variance(values, mean, n, window)
    if not noise:
        square = variance * variance
        alone = square.div_(square + EPS).mul_(inside).sum()
        return _Known(values, n, mean, variance, values.new_zeros(()), alone)
    floor = _floor(n, noise)
    variance.add_(floor)
    return _Known(values, n, mean, variance, floor.div_(variance).mul_(inside).sum(), values.new_tensor(math.inf))


def _floor(n: Tensor, noise: float) -> Tensor:
    """Return s = n noise² + √ε, whose second term keeps the least noise above rounding."""
    return torch.mul(n, noise**2).add_(EPS**0.5)


def _correlation(
    fixed: _Known, moved: _Known, window: int, mask: Tensor | None, noise: float, wanted: tuple[bool, bool]
):
    """Return the value and gradients of one image, `(1, 1, *spatial)`.

    1. Over a window, c = Σ(i − ī)(j − j̄), v = Σ(i − ī)² + s and w = Σ(j − j̄)². Its value is c² / vw + s / v, which is
       1 − (v − s) / v · (1 − c² / ((v − s) w)). Without noise s = 0, and it is c² / (vw + ε).
    2. Its slopes are, with a = c / vw, or c / (vw + ε): 2a by c, −a² v by w, and −a² w − s / v² by v.
    3. `_gradient` takes them to i and j.
    4. The mean over voxels within the mask is capped; from the cap on it has no slope.

    Volumes are released, or written over, as soon as possible: this is where registration peaks in memory.
    """
    i, j, v, w = fixed.values, moved.values, fixed.variance, moved.variance
    voxels = i.numel() if mask is None else mask.sum().clamp(min=1)
    c = box_sum(i * j, window).addcmul_(fixed.n * fixed.mean, moved.mean, value=-1)
    a = v * w if noise else torch.addcmul(v.new_tensor(EPS), v, w)
    a = a.reciprocal_().mul_(c).masked_fill_((v == 0) | (w == 0), 0)
    if mask is not None:
        a = a.mul_(mask)
    value = (c.mul_(a).sum() + fixed.faint) / voxels  # 1
    most = rounded(fixed.alone / voxels)
    share = (value < most).to(value.dtype) * (2 / voxels)  # 4
    del c
    gradients = (
        _gradient(i, j, fixed.mean, moved.mean, a, w, window, _faint(fixed, mask, noise)) if wanted[0] else None,
        _gradient(j, i, moved.mean, fixed.mean, a, v, window) if wanted[1] else None,
    )
    one, other = (g if g is None else g.mul_(share if mask is None else mask * share) for g in gradients)
    return torch.minimum(value, most), one, other


def _faint(fixed: _Known, mask: Tensor | None, noise: float) -> Tensor | None:
    """Return s / v², the slope of a window's weight by its contrast; None where there is no weight."""
    if not noise:
        return None
    slope = _floor(fixed.n, noise).div_(fixed.variance).div_(fixed.variance)
    return slope if mask is None else slope.mul_(mask)


def _variance(x: Tensor, mean: Tensor, n: Tensor, window: int) -> Tensor:
    """Return Σ(x − x̄)² over the window, 0 where it is nothing but rounding."""
    squares = box_sum(x * x, window)
    rounding = squares * (8 * torch.finfo(x.dtype).eps)
    variance = squares.addcmul_(n * mean, mean, value=-1)
    return variance.masked_fill_(variance <= rounding, 0)


def _gradient(
    x: Tensor,
    y: Tensor,
    x_mean: Tensor,
    y_mean: Tensor,
    a: Tensor,
    y_variance: Tensor,
    window: int,
    faint: Tensor | None = None,
) -> Tensor:
    """Return half the gradient of the sum of all values by x, of which y is the other image.

    1. In a window, a voxel x moves c by y − ȳ and the variance of x by 2 (x − x̄). By the slopes of `_correlation` half
       the gradient is the sum, over the windows that hold it, of a (y − ȳ) − b (x − x̄), with b = a² var(y) + s / v².
    2. x and y are the voxel's own, means and factors the windows': it is y Σa − x Σb − Σ(a ȳ − b x̄), in sums over
       windows about the voxel.
    """
    b = (a * a).mul_(y_variance)  # 1
    b = b if faint is None else b.add_(faint)
    grad = box_sum((a * y_mean).addcmul_(b, x_mean, value=-1), window).neg_()  # 2
    grad.addcmul_(box_sum(a, window), y)
    return grad.addcmul_(box_sum(b, window), x, value=-1)
