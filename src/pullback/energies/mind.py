"""Modality-independent neighbourhood descriptors: how alike the patches about a voxel are, whatever the contrast."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pullback.alignment import Alignment, Pair
from pullback.energies.energy import Energy
from pullback.errors import InputError
from pullback.numerics.smooth import box_sum

LEAST_SPREAD = 1e-3  # of a voxel's distances, as a share of the image's mean: below it, all patches count as alike


@dataclass(frozen=True)
class MIND(Energy):
    """The mean squared difference of `mind` descriptors over voxels within the masks and their channels.

    MIND-SSC (Heinrich et al. 2013), or with `context=False` MIND (Heinrich et al. 2012). It is invariant to affine
    changes of intensity, their sign included. Patches are cut off at masks. Only the moved image receives a gradient.

    Raises:
        InputError: a negative radius, or a dilation below 1.
    """

    radius: int = 1
    dilation: int = 2
    context: bool = True

    def __post_init__(self) -> None:
        if self.radius < 0 or self.dilation < 1:
            raise InputError(
                f"MIND: patches reach 0 voxels or more and lie 1 or more from their voxel, got {self.radius} and "
                f"{self.dilation}; 1 and 2 are common"
            )

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        mask = alignment.mask
        with torch.no_grad():
            fixed = self.descriptor(alignment.pair.fixed.data, mask)
        return {"mind": self.distance(fixed, alignment)}

    def ready(self, pair: Pair) -> Energy:
        if pair.moving.mask is not None:
            return self  # what is compared depends on where that mask comes to lie
        with torch.no_grad():
            return _Ready(self, self.descriptor(pair.fixed.data, pair.fixed.mask))

    def descriptor(self, values: Tensor, mask: Tensor | None) -> Tensor:
        return mind(values, self.radius, self.dilation, mask, self.context)

    def distance(self, fixed: Tensor, alignment: Alignment) -> Tensor:
        """Return the distance of the moved image's descriptor to `fixed`, the fixed image's, `()`."""
        mask = alignment.mask
        moved = self.descriptor(alignment.moved.data, mask)
        fixed, moved = torch.broadcast_tensors(fixed, moved)
        if mask is None:
            return F.mse_loss(moved, fixed)
        voxels = mask.sum().clamp(min=1) * (moved.numel() // mask.numel())
        return F.mse_loss(moved, fixed, reduction="sum") / voxels


@dataclass(frozen=True)
class _Ready(Energy):
    """The energy `MIND` of pairs whose fixed image has the descriptor `fixed`."""

    energy: MIND
    fixed: Tensor

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        return {"mind": self.energy.distance(self.fixed, alignment)}


def mind(
    values: Tensor, radius: int = 1, dilation: int = 2, mask: Tensor | None = None, context: bool = True
) -> Tensor:
    """Return descriptors of self-similarity: `(B, 12 C, *spatial)` of `(B, C, *spatial)` in 3-D, `(B, 4 C, …)` in 2-D.

    The neighbours of a voxel lie `dilation` voxels away along the axes. Each two of them that are not opposite to each
    other (12 in 3-D, 4 in 2-D) have a distance D: the mean squared difference of the patches about them, of edge length
    2 `radius` + 1 (Heinrich et al. 2013). Without `context` the distances are those of the voxel's own patch to each
    neighbour's, as in Heinrich et al. 2012 (6 in 3-D, 4 in 2-D). A channel is exp(−(D − min D) / s), s the mean of
    D − min D over the voxel's channels and, so that noise in flat places stays small, at least a thousandth of the
    image's mean s (constant to the gradient). Values lie in 0 … 1; the most similar patches have 1.

    Beyond the border the image is continued by its outermost values. With a mask, `(B, 1, *spatial)` bool, only
    voxels within it are compared; a channel without any is 0, and so are all voxels outside.
    """
    batch, channels = max(values.shape[0], 1 if mask is None else mask.shape[0]), values.shape[1]
    values = values.expand(batch, *values.shape[1:])
    reach = [radius + dilation] * (2 * (values.ndim - 2))
    padded = F.pad(values.flatten(0, 1)[:, None], reach, "replicate")  # (B·C, 1, …)
    inside = None
    if mask is not None:
        each = mask if mask.shape[0] == 1 else mask.repeat_interleave(channels, 0)
        inside = F.pad(each.to(values.dtype), reach, "replicate")
    # (B·C, K, …) to (B, C·K, …)
    return _Mind.apply(padded, radius, dilation, inside, context).reshape(batch, -1, *values.shape[2:])


class _Mind(torch.autograd.Function):
    """The descriptor of padded images; its backward keeps the images, the descriptor and one volume besides.

    The distances are computed anew in the backward pass.

    1. D = Σ δ² / n over the n voxels of a patch that are compared, δ the difference of its two ends. q = D − min D
       over the channels, s the mean q of the K channels that are known, or the floor, and e = exp(−q / s).
    2. For a gradient g by e, that by q is −ge / s with s fixed, and that by s is Σ geq / s², which is 0 where s is the
       floor. q / s is −log e.
    3. As s is a mean, each q receives 1 / K of the gradient by s too.
    4. As min D is taken off each q, it receives minus the sum of 2 and 3 over the channels. The channels that have the
       least, e = 1, share it equally.
    5. δ receives 2δ times the sum, over the patches that hold it, of the gradient by D / n. It is added to the one end
       and taken off the other.
    """

    @staticmethod
    def forward(ctx, padded, radius, dilation, inside, context):
        r = radius + dilation
        shape = [n - 2 * r for n in padded.shape[2:]]
        pairs = list(_pairs(shape, radius, dilation, context))
        out = padded.new_empty(padded.shape[0], 2 * len(pairs), *shape)
        for pair in pairs:
            difference, weight, count = _compared(padded, inside, pair, radius)
            square = difference.square_() if weight is None else difference.square_().mul_(weight)
            distance = box_sum(square, 2 * radius + 1)
            if count is not None:
                distance = distance.div_(count).masked_fill_(count == 0, torch.inf)
            for channel, where in pair.channels:
                out[:, channel : channel + 1] = distance[where]
        least = out.amin(1, keepdim=True)
        out.sub_(least.masked_fill_(least.isinf(), 0))
        spread, floor = _spread(out, None if inside is None else _middle(inside, r))
        out.div_(spread).neg_().exp_()
        if inside is not None:
            out.mul_(_middle(inside, r))
        ctx.save_for_backward(padded, inside, out, spread, floor)
        ctx.reach = radius, dilation, context
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        padded, inside, out, spread, floor = ctx.saved_tensors
        radius, dilation, context = ctx.reach
        through_spread, through_least, known, alike = (torch.zeros_like(spread) for _ in range(4))
        for g, e in zip(upstream.split(1, 1), out.split(1, 1), strict=True):
            slope = g * e
            through_least.add_(slope)
            through_spread.sub_(slope.mul_(e.clamp(min=1e-30).log_()))
            known.add_(e > 0)
            alike.add_(e == 1)
        through_spread.mul_(spread > floor)  # 2
        through_least.sub_(through_spread).div_(alike.clamp_(min=1)).div_(spread)  # 4
        through_spread.div_(known.clamp_(min=1)).div_(spread)  # 3
        gradient = torch.zeros_like(padded)
        for pair in _pairs(list(out.shape[2:]), radius, dilation, context):
            difference, weight, count = _compared(padded, inside, pair, radius)
            slope = torch.zeros_like(difference)
            for channel, where in pair.channels:
                g, e = (t[:, channel : channel + 1] for t in (upstream, out))
                slope[where].sub_((g * e).div_(spread))  # 2
                slope[where].addcmul_(through_spread, (e > 0).to(e.dtype))
                slope[where].addcmul_(through_least, (e == 1).to(e.dtype))
            if count is not None:
                slope = slope.div_(count.clamp_(min=1))
            pull = box_sum(slope, 2 * radius + 1).mul_(difference).mul_(2)  # 5
            pull = pull if weight is None else pull.mul_(weight)
            gradient[pair.one].add_(pull)
            gradient[pair.other].sub_(pull)
        return gradient, None, None, None, None


def _spread(distances: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the mean over channels, `(B, 1, *spatial)`, 1 where all are alike, and its lower bound, `(B, 1, 1, …)`."""
    axes = tuple(range(2, distances.ndim))
    if inside is None:
        spread = distances.mean(1, keepdim=True)
        mean = spread.mean(axes, keepdim=True)
    else:
        spread, known = torch.zeros_like(distances[:, :1]), torch.zeros_like(distances[:, :1])
        for distance in distances.split(1, 1):
            unknown = distance.isinf()
            spread.add_(distance.masked_fill(unknown, 0))
            known.add_(~unknown)
        spread.div_(known.clamp_(min=1))
        mean = (spread * inside).sum(axes, keepdim=True) / inside.sum(axes, keepdim=True).clamp(min=1)
    floor = LEAST_SPREAD * mean
    spread = torch.maximum(spread, floor)
    return spread.masked_fill_(spread == 0, 1), floor


Region = tuple[slice, ...]


@dataclass(frozen=True)
class _TwoPatches:
    """A pair of patches at one offset, which serves two channels.

    Attributes:
        one, other: regions of the padded image at both ends of the offset.
        channels: the two channels, each with the region of the distances that it takes.
    """

    one: Region
    other: Region
    channels: tuple[tuple[int, Region], tuple[int, Region]]


def _pairs(shape: list[int], radius: int, dilation: int, context: bool) -> Iterator[_TwoPatches]:
    """Yield, for each step, the patches at y and at y + dilation × step."""
    d = len(shape)
    for number, (step, shifts) in enumerate(_context(d) if context else _own(d)):
        low = [0 if s > 0 else dilation for s in step]
        size = [n + 2 * radius + (dilation if s else 0) for n, s in zip(shape, step, strict=True)]
        one = _region(low, size)
        other = _region([f + dilation * s for f, s in zip(low, step, strict=True)], size)
        first, second = (
            _region([radius + dilation * (1 + s) - f for s, f in zip(shift, low, strict=True)], shape)
            for shift in shifts
        )
        yield _TwoPatches(one, other, ((2 * number, first), (2 * number + 1, second)))


_Steps = Iterator[tuple[list[int], tuple[list[int], list[int]]]]  # each with the two (y − x) / dilation that it serves


def _context(d: int) -> _Steps:
    """Yield the steps of MIND-SSC: for axes a < b and a sign t, from e_a to t e_b.

    About a voxel x it leads between two of its neighbours; about another voxel it leads from −t e_b to −e_a.
    """
    for a in range(d):
        for b in range(a + 1, d):
            for t in (1, -1):
                one, other = _unit(d, a, 1), _unit(d, b, t)
                step = [q - p for p, q in zip(one, other, strict=True)]
                yield step, (one, _unit(d, b, -t))


def _own(d: int) -> _Steps:
    """Yield the steps of MIND: for an axis a, from x to x + e_a, which for that neighbour leads from −e_a to itself."""
    for a in range(d):
        yield _unit(d, a, 1), ([0] * d, _unit(d, a, -1))


def _unit(d: int, axis: int, length: int) -> list[int]:
    return [length if a == axis else 0 for a in range(d)]


def _region(corner: list[int], size: list[int]) -> Region:
    return (slice(None), slice(None), *(slice(c, c + n) for c, n in zip(corner, size, strict=True)))


def _compared(
    padded: Tensor, inside: Tensor | None, pair: _TwoPatches, radius: int
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the difference of both ends; with a mask also the voxels within it at both, and their count per patch."""
    difference = padded[pair.one] - padded[pair.other]
    if inside is None:
        return difference, None, None
    weight = inside[pair.one] * inside[pair.other]
    return difference, weight, box_sum(weight, 2 * radius + 1)


def _middle(padded: Tensor, reach: int) -> Tensor:
    return padded[(slice(None), slice(None), *[slice(reach, -reach)] * (padded.ndim - 2))]
