"""Mutual information of two images by their joint histogram, for images of different contrast."""

from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pullback.alignment import Alignment, Pair
from pullback.energies.energy import Energy
from pullback.energies.similarity import intensity_range
from pullback.errors import InputError
from pullback.space import Image

# the four cubic B-splines that reach a point `u` between two bins, as polynomials: 1, u, u², u³
SPLINES = [[1 / 6, -1 / 2, 1 / 2, -1 / 6], [2 / 3, 0, -1, 1 / 2], [1 / 6, 1 / 2, 1 / 2, -1 / 2], [0, 0, 0, 1 / 6]]


ROUNDING = 1000  # units in the last place: some hundred times what resampling at the identity takes from the value


@dataclass(frozen=True)
class Information(Energy):
    """An energy that falls with what both images share by their joint histogram, up to what the fixed has with itself.

    Windows blur, so that images of more contrast would share more. But by the data-processing inequality no image tells
    more of the fixed one than it tells itself: what an estimate gains beyond is the windows' own, so there it is flat,
    and identical images are a minimum, for all parameters and any masks. Images that differ lie far below, where
    nothing changes, unless a few outliers make the range of the fixed one, so that it tells next to nothing: cut them
    off (`data.normalised`).

    Where the moving image has a mask, what is compared changes with the transform, and a part of an image may tell more
    of itself than the whole. With `in_view` what is shared is then measured against what the fixed image has with
    itself in the same voxels: its share of that, times what the whole fixed image has with itself. It takes a second
    histogram a step. Without, there is no bound, and a moving mask can gain by hiding what is unlike.

    Attributes:
        bins: of each image's range.
        in_view: whether identical images are a minimum where the moving image has a mask, too.

    Raises:
        InputError: fewer than 4 bins.
    """

    bins: int
    in_view: bool

    def __post_init__(self) -> None:
        if self.bins < 4:
            raise InputError(f"{type(self).__name__}: 4 bins at least, got {self.bins}; 32 are common")

    @abstractmethod
    def shared(self, fixed: Tensor, moved: Tensor, joint: Tensor) -> Tensor:
        """Return what is shared, `(B, C)`, by the entropies of both and of their joint histogram, `(B, C)` each."""

    @abstractmethod
    def by(self, shared: Tensor) -> dict[str, Tensor]:
        """Return the terms, by the mean of what is shared, `()`."""

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        return self.compared(alignment, self.most(alignment.pair))

    def ready(self, pair: Pair) -> Energy:
        return _Ready(self, self.most(pair))

    def most(self, pair: Pair) -> Tensor:
        """Return what the fixed image shares with itself, `(B, C)`; infinite where there is no bound, `()`."""
        if pair.moving.mask is not None and not self.in_view:
            return pair.fixed.data.new_tensor(torch.inf)
        return self._own(pair, pair.fixed.mask)

    def _own(self, pair: Pair, mask: Tensor | None) -> Tensor:
        """Return what the fixed image, in the moving one's place, shares with itself within a mask."""
        fixed = pair.fixed
        moving = replace(fixed, mask=None if pair.moving.mask is None else mask)  # whose range is of what it shows
        with torch.no_grad():
            return self.shared(*_entropies(_joint_histogram(fixed, fixed.data, moving, mask, self.bins)))

    def each(self, alignment: Alignment) -> Tensor:
        """Return what each pair of a batch shares, `(B,)`, the mean over channels, without a bound."""
        return self.shared(*_entropies(joint_histogram(alignment, self.bins))).mean(1)

    def compared(self, alignment: Alignment, most: Tensor) -> dict[str, Tensor]:
        """Return the terms, where that is known."""
        found = self.shared(*_entropies(joint_histogram(alignment, self.bins)))
        if alignment.pair.moving.mask is not None and self.in_view:
            own = self._own(alignment.pair, alignment.mask)
            found = found * most / own.clamp(min=torch.finfo(own.dtype).tiny)
        most = most * (1 - ROUNDING * torch.finfo(alignment.moved.data.dtype).eps)
        bounded = torch.where(found < most, found, most)  # no slope from there on
        return self.by(bounded.mean().to(alignment.moved.data.dtype))


@dataclass(frozen=True, eq=False)
class _Ready(Energy):
    """Information of pairs whose fixed images share so much with themselves."""

    energy: Information
    most: Tensor

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        return self.energy.compared(alignment, self.most)


@dataclass(frozen=True)
class MI(Information):
    """Minus the mutual information of both images over the masks, in nats: from −log(bins) up to 0, nothing shared.

    Mattes et al. 2003, after Viola & Wells 1997 and Thévenaz & Unser 2000. The range of each image within its own
    mask is cut into `bins` of one width. A fixed voxel falls into one of them; a moved one is spread over four by a
    cubic B-spline, its Parzen window. The bins are those of the moving image itself, so that they stay while the
    transform changes; what lies beyond counts at their end. The value does not see affine intensity, nor its sign.
    Identical images stay above −log(bins), for windows blur, and nothing lies lower (`Information`). Only the moved
    image receives a gradient.
    """

    bins: int = 32
    in_view: bool = False

    def shared(self, fixed: Tensor, moved: Tensor, joint: Tensor) -> Tensor:
        return fixed + moved - joint

    def by(self, shared: Tensor) -> dict[str, Tensor]:
        return {"mi": -shared}


@dataclass(frozen=True)
class NMI(Information):
    """Normalised distance 2 − (H(F) + H(M)) / H(F, M), by entropies: from 0 to 1, nothing shared.

    Studholme et al. 1999, by the entropies of the histogram of `MI`: it depends less than `MI` on how much of both
    images overlaps. Identical images would give 0 but for the Parzen window, whose own entropy (about 0.87 nats) is
    part of H(F, M): with 32 bins about 0.2 is left, and as in `MI` nothing gives less.
    """

    bins: int = 32
    in_view: bool = False

    def shared(self, fixed: Tensor, moved: Tensor, joint: Tensor) -> Tensor:
        return (fixed + moved - joint) / joint.clamp(min=torch.finfo(joint.dtype).tiny)

    def by(self, shared: Tensor) -> dict[str, Tensor]:
        return {"nmi": 1 - shared}


def joint_histogram(alignment: Alignment, bins: int) -> Tensor:
    """Return the joint histogram of both images within the masks, `(B, C, bins, bins + 2)` float64, in voxels.

    Rows are the fixed image's bins, columns the moving one's, whose window reaches one bin beyond either end.
    """
    pair = alignment.pair
    return _joint_histogram(pair.fixed, alignment.moved.data, pair.moving, alignment.mask, bins)


def _joint_histogram(fixed: Image, moved: Tensor, moving: Image, mask: Tensor | None, bins: int) -> Tensor:
    rows = _scaled(fixed.data, fixed, bins).clamp_(max=bins - 1).long()
    columns = _scaled(moved, moving, bins - 1)
    return _Histogram.apply(*torch.broadcast_tensors(rows, columns), mask, bins)


def _entropies(joint: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the entropies of the fixed image, the moved one and both, in nats, `(B, C)` each."""
    joint = joint / joint.sum((2, 3), keepdim=True).clamp(min=1)
    return _entropy(joint.sum(3)), _entropy(joint.sum(2)), _entropy(joint.flatten(2))


def _entropy(p: Tensor) -> Tensor:
    return -(p * p.clamp(min=1e-30).log()).sum(2)  # finite slopes also at 0


def _scaled(values: Tensor, image: Image, steps: int) -> Tensor:
    """Scale intensities from the least and greatest within the mask of `image` to 0 … `steps`; 0 if these are one."""
    low, high = intensity_range(image)
    varied = high > low  # neither in constant images nor under empty masks
    scale = torch.where(varied, steps / (high - low), 0)
    return ((values - torch.where(varied, low, 0)) * scale).clamp(0, steps)


class _Histogram(torch.autograd.Function):
    """The joint histogram, with a gradient by the columns, the scaled moved intensities.

    1. A voxel at column k + u, with 0 ≤ u ≤ 1, adds Sₚ(u) to the bins k + p, p = 0 … 3: Sₚ(u) = Σₘ `SPLINES[p][m]` uᵐ.
    2. The sum over the voxels of a cell, a row and a k, is Σₘ `SPLINES[p][m]` Σ uᵐ. So voxels are counted cell by cell
       with the powers of u, and the polynomials come in afterwards.
    3. For a gradient g by the histogram, that by the column is Σₚ g(k + p) Sₚ′(u), with Sₚ′(u) = Σₘ m `SPLINES[p][m]`
       uᵐ⁻¹. Its three coefficients are made cell by cell, and evaluated at the u of each voxel.
    """

    @staticmethod
    def forward(ctx, rows, columns, mask, bins):
        batch, channels = columns.shape[:2]
        base = columns.floor().clamp_(max=bins - 2)
        u = (columns - base).flatten()
        images = torch.arange(batch * channels, device=u.device).view(batch, channels, *[1] * (columns.ndim - 2))
        cell = base.long().add_((images * bins + rows) * (bins - 1))
        cells = batch * channels * bins * (bins - 1)
        if mask is not None:
            cell.masked_fill_(~mask, cells)  # a last cell, for what does not count
        cell = cell.flatten()
        moments, power = [torch.bincount(cell, minlength=cells + 1).double()], torch.ones_like(u, dtype=torch.float64)
        for _ in range(3):
            moments.append(torch.bincount(cell, power.mul_(u), minlength=cells + 1))
        table = torch.stack(moments)[:, :-1].view(4, batch, channels, bins, bins - 1)  # 2: by power, then by cell
        ctx.save_for_backward(cell, u)
        ctx.shape = columns.shape
        return sum(
            torch.nn.functional.pad(torch.einsum("p,p...->...", table.new_tensor(spline), table), (k, 3 - k))
            for k, spline in enumerate(SPLINES)
        )

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        cell, u = ctx.saved_tensors
        windows = upstream.unfold(3, 4, 1)  # (B, C, bins, bins - 1, 4)
        slopes = windows @ (windows.new_tensor(SPLINES)[:, 1:] * windows.new_tensor([1, 2, 3]))  # 3
        # (B·C·bins·(bins − 1), 3) by power, with a 0 for the last cell
        first, second, third = torch.nn.functional.pad(slopes.flatten(0, 3).to(u.dtype).T, (0, 1))
        gradient = third.take(cell).mul_(u).add_(second.take(cell)).mul_(u).add_(first.take(cell))
        return None, gradient.view(ctx.shape), None, None
