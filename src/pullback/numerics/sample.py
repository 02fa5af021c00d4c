"""Interpolation between voxels. This is the only module that calls `grid_sample`."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pullback.numerics.separable import apply_along


def voxels(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return the voxel coordinates of a grid, `(d, *shape)`, in the dtype and on the device of `like`."""
    axes = [torch.arange(n, dtype=like.dtype, device=like.device) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def sample(values: Tensor, where: Tensor, mode: str = "linear", padding: str = "zeros") -> Tensor:
    """Interpolate values at voxel coordinates.

    Args:
        values: `(B, C, *spatial)`; a batch of one serves every batch of `where`.
        where: `(B, d, *out)`, voxel coordinates of `values`, channels i, j, k; `*out` has any length. Doubles are
            used as such, whatever the dtype of the values: at a voxel stands that voxel's own number.
        mode: `"linear"`, `"nearest"` (keeps integers exact), `"cubic"` (interpolating B-spline, mirrored border,
            as `scipy.ndimage.map_coordinates(order=3, mode="mirror")` within the grid), or `"spline"`: the same, of
            values that are its coefficients already, as `spline_coefficients` gives them.
        padding: beyond the outermost voxel centres, `"zeros"` fades to 0 within one voxel (nearest: within half a
            voxel), `"border"` repeats the outermost value.

    Returns:
        `(B, C, *out)` in the dtype of `values`.

    Raises:
        ValueError: coordinates of other dimensions than the values, or no such mode or padding.
    """
    ndim = values.ndim - 2
    if where.ndim < 3 or where.shape[1] != ndim:
        raise ValueError(f"sample: {ndim}-D values need coordinates (B, {ndim}, …), got {tuple(where.shape)}")
    if padding not in ("zeros", "border"):
        raise ValueError(f'sample: padding is "zeros" or "border", not {padding!r}')
    batch = max(values.shape[0], where.shape[0])
    flat = where.expand(batch, *where.shape[1:]).flatten(2)  # (B, d, N)
    values = values.expand(batch, *values.shape[1:])
    if not flat.numel():
        return values.new_zeros(batch, values.shape[1], *where.shape[2:])
    if mode == "linear":
        finer = flat.dtype == torch.float64 and values.dtype != torch.float64
        out = _by_taps(values, flat, padding, _two) if finer else _linear(values, flat, padding)
    elif mode == "nearest":
        out = _nearest(values, flat, padding)
    elif mode in ("cubic", "spline"):
        out = _by_taps(values if mode == "spline" else spline_coefficients(values), flat, padding, _four)
    else:
        raise ValueError(f'sample: mode is "linear", "nearest", "cubic" or "spline", not {mode!r}')
    return out.reshape(*out.shape[:2], *where.shape[2:])


def coverage(where: Tensor, shape: tuple[int, ...], mode: str = "linear") -> Tensor:
    """Return the share of a grid in what `sample` finds with `"zeros"`: 1 within it, 0 where all comes from beyond.

    Args:
        where: `(B, d, *out)`, voxel coordinates on a grid of `shape`.
        mode: as of `sample`; of `"nearest"` the share is 1 or 0.

    Returns:
        `(B, 1, *out)` in the dtype of `where`.
    """
    last = torch.tensor(shape, dtype=where.dtype, device=where.device).view(-1, *[1] * (where.ndim - 2)) - 1
    if mode == "nearest":
        index = torch.floor(where + 0.5)
        return ((index >= 0) & (index <= last)).all(1, keepdim=True).to(where.dtype)
    out = (where - where.clamp(min=torch.zeros_like(last), max=last)).abs()
    return (1 - out).clamp(min=0).prod(1, keepdim=True)


def spline_coefficients(values: Tensor) -> Tensor:
    """Return the coefficients of the cubic B-splines, mirrored at the borders, that meet values `(B, C, *spatial)`."""
    for axis, n in enumerate(values.shape[2:]):
        values = apply_along(_spline_filter(n).to(values), values, axis)
    return values


def scatter(values: Tensor, where: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Lay values down at voxel coordinates, each shared among the voxels around it: the adjoint of linear `sample`.

    ⟨scatter(p, x, shape), v⟩ = ⟨p, sample(v, x, padding="border")⟩, so sums are kept. Its gradient, by the values and
    by the coordinates, cannot be differentiated again.

    Args:
        values: `(B, C, *out)`.
        where: `(B, d, *out)`, voxel coordinates on a grid of `shape`.
        shape: of the answer.

    Returns:
        `(B, C, *shape)`.
    """
    return _Scatter.apply(values, where, shape)


class _Scatter(torch.autograd.Function):
    """The adjoint of linear sampling, with a backward by `sample`; only the inputs are kept.

    1. With S(x) the matrix of linear interpolation at x, scatter(p, x) = S(x)ᵀ p.
    2. For a gradient g by the answer, ⟨g, S(x)ᵀ dp⟩ = ⟨S(x) g, dp⟩: the gradient by p is `sample(g, x)`.
    3. By x it is that of ⟨S(x) g, p⟩, which torch derives from `sample(g, x)`.
    """

    @staticmethod
    def forward(ctx, values, where, shape):
        ctx.save_for_backward(values, where)
        batch = max(len(values), len(where))
        flat, at = values.flatten(2), where.flatten(2)  # (B, C, N) and (B, d, N)
        laid = values.new_zeros(batch, values.shape[1], math.prod(shape))
        base, shares = torch.zeros_like(at[:, 0], dtype=torch.long), []
        for axis, n in enumerate(shape):
            inside = at[:, axis].clamp(0, n - 1)
            low = inside.floor().clamp(max=max(n - 2, 0))
            base, high = base * n + low.long(), (inside - low).to(values)
            shares.append((1 - high, high))
        for corner in itertools.product((0, 1), repeat=len(shape)):
            step = 0
            for side, n in zip(corner, shape, strict=True):
                step = step * n + min(side, n - 1)
            share = functools.reduce(torch.mul, (both[side] for both, side in zip(shares, corner, strict=True)))
            laid.scatter_add_(2, (base + step)[:, None].expand_as(laid[..., : base.shape[1]]), flat * share[:, None])
        return laid.reshape(batch, -1, *shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        values, where = ctx.saved_tensors
        with torch.enable_grad():
            at = where.detach().requires_grad_()
            seen = sample(upstream, at, padding="border")
            (by_place,) = torch.autograd.grad(seen, at, values.expand_as(seen))
        return seen.detach().sum_to_size(values.shape), by_place, None


def _linear(values: Tensor, where: Tensor, padding: str) -> Tensor:
    batch, ndim, count = where.shape
    sizes = values.shape[2:]
    size = torch.tensor(sizes, dtype=where.dtype, device=where.device).flip(0)
    # grid_sample wants x first: the one place where the order of the axes turns round
    unit = where.flip(1).mT * (2 / (size - 1).clamp(min=1)) - 1  # (B, N, d)
    # on the CPU it runs one thread per batch: a lone volume is cut into as many batches as there are threads; into no
    # more than four where the values want a gradient, of which each batch holds its own
    threads = min(torch.get_num_threads(), 4) if values.requires_grad else torch.get_num_threads()
    parts = math.gcd(threads, count) if batch == 1 and where.device.type == "cpu" else 1
    values = values.expand(batch * parts, *values.shape[1:])
    # (B·parts, N / parts, 1, …, d)
    unit = unit.reshape(batch * parts, count // parts, *[1] * (ndim - 1), ndim).to(values.dtype)
    out = F.grid_sample(values, unit, mode="bilinear", padding_mode=padding, align_corners=True)
    out = out.reshape(batch, parts, -1, count // parts)  # (B, parts, C, N / parts)
    out = out.transpose(1, 2).reshape(batch, -1, count)  # (B, C, N)
    thin = [axis for axis, n in enumerate(sizes) if n == 1]  # along which grid_sample tells no places apart
    if thin and padding == "zeros":
        out = out * (1 - where[:, thin].abs()).clamp(min=0).prod(1, keepdim=True).to(out)
    return out


def _nearest(values: Tensor, where: Tensor, padding: str) -> Tensor:
    size = torch.tensor(values.shape[2:], device=where.device).view(1, -1, 1)
    index = torch.floor(where + 0.5).long()
    inside = ((index >= 0) & (index < size)).all(1, keepdim=True)
    nearest = _gather(values, index)
    return nearest * inside if padding == "zeros" else nearest


def _gather(values: Tensor, index: Tensor) -> Tensor:
    """Return values `(B, C, N)` at integer voxels `(B, d, N)`; indices are clamped to the grid."""
    flat = torch.zeros_like(index[:, 0])
    for axis, n in enumerate(values.shape[2:]):
        flat = flat * n + index[:, axis].clamp(0, n - 1)
    return values.flatten(2).gather(2, flat[:, None].expand(-1, values.shape[1], -1))  # (B, C, N)


Taps = list[tuple[Tensor, Tensor]]
"""The neighbours along an axis that have a share in a place: parts of a flat index `(B, N)`, and weights."""


def _by_taps(values: Tensor, where: Tensor, padding: str, taps_of: Callable[[Tensor, int, int], Taps]) -> Tensor:
    """Sum the neighbours of each place by the product of their weights, in the finer dtype of both."""
    last = torch.tensor(values.shape[2:], dtype=where.dtype, device=where.device).view(1, -1, 1) - 1
    at = where.clamp(min=torch.zeros_like(last), max=last)
    strides = [math.prod(values.shape[3 + axis :]) for axis in range(where.shape[1])]
    taps = [taps_of(at[:, axis], n, strides[axis]) for axis, n in enumerate(values.shape[2:])]
    out = _summed(values.flatten(2), taps)
    if padding == "zeros":
        out = out * coverage(where, tuple(values.shape[2:]))
    return out.to(values.dtype)


def _summed(values: Tensor, taps: Sequence[Taps], before: Tensor | int = 0) -> Tensor:
    """Return the weighted sum of values `(B, C, voxels)` over all neighbours; `before` is an index so far, `(B, N)`."""
    (first, *rest), total = taps, None
    for step, weight in first:
        index = before + step
        if rest:
            part = _summed(values, rest, index)
        else:
            part = values.gather(2, index[:, None].expand(-1, values.shape[1], -1))
        part = part * weight[:, None]
        total = part if total is None else total + part
    assert total is not None
    return total


def _two(at: Tensor, n: int, stride: int) -> Taps:
    """Return the two neighbours along an axis of `n` voxels; of one voxel, that one alone."""
    low = at.floor().clamp(max=max(n - 2, 0))
    index, share = low.long() * stride, at - low
    return [(index, 1 - share), (index + stride, share)] if n > 1 else [(index, 1 - share)]


def _four(at: Tensor, n: int, stride: int) -> Taps:
    """Return four neighbours along an axis of `n` voxels, mirrored at its ends."""
    base = torch.floor(at)
    t = at - base
    weights = ((1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6, t**3 / 6)
    period = max(2 * n - 2, 1)
    indices = ((base.long() + offset) % period for offset in range(-1, 3))
    return [(torch.minimum(i, period - i) * stride, w) for i, w in zip(indices, weights, strict=True)]


def _spline_filter(n: int) -> Tensor:
    """Return the matrix that turns `n` samples into cubic B-spline coefficients with mirrored borders."""
    if n == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    band = torch.diag(torch.full((n,), 4.0, dtype=torch.float64))
    band += torch.diag(torch.ones(n - 1, dtype=torch.float64), 1) + torch.diag(
        torch.ones(n - 1, dtype=torch.float64), -1
    )
    band[0, 1] = band[-1, -2] = 2
    return torch.linalg.inv(band / 6)
