"""Patches of a plane in polar coordinates, which a rotation shifts along one axis, and how alike they are."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pullback.numerics.sample import sample

AT_ONCE = 2**23  # numbers of a block of correlations
FAINT = 1e-3  # of what the most varied patch varies: what varies less has no pattern


def polar_patches(values: Tensor, where: Tensor, radius: float, rings: int = 10, angles: int = 32) -> Tensor:
    """Return the surroundings of places of a plane, each less its mean and of norm 1.

    Rings lie at even steps of the logarithm, from `radius` / 16 to `radius`, and samples as far from each other along
    all of them by angle. An outer ring sees means of 2 × 2, 4 × 4, … pixels, whichever come nearest to what lies
    between its samples, so that grain does not alias. Beyond the image its border goes on.

    Args:
        values: `(1, 1, X, Y)`, float.
        where: `(N, 2)`, pixel coordinates.
        radius: of the outermost ring, px.

    Returns:
        `(N, rings, angles)`; all 0 where nothing varies.
    """
    steps = torch.arange(rings, dtype=torch.float64) / max(rings - 1, 1) - 1
    radii = radius * 16**steps  # (rings,)
    turns = 2 * math.pi * torch.arange(angles, dtype=torch.float64) / angles
    ways = torch.stack([turns.cos(), turns.sin()])  # (2, angles)
    places = where.double().mT[:, :, None]  # (2, N, 1)
    found = []
    level, coarse = 0, values
    for r in radii.tolist():
        wanted = max(0, math.floor(math.log2(max(2 * math.pi * r / angles, 1.0)) + 0.5))
        while level < wanted and min(coarse.shape[2:]) > 1:
            coarse, level = F.avg_pool2d(coarse, 2), level + 1
        at = (places + r * ways[:, None] + 0.5) / 2**level - 0.5  # (2, N, angles) of pixels of 2^level
        found.append(sample(coarse, at[None].to(values), padding="border")[0, 0])
    patches = torch.stack(found, 1)  # (N, rings, angles)
    middle = patches.mean((1, 2), keepdim=True)
    patches = patches - middle
    norms = patches.flatten(1).norm(dim=1)
    rounding = 1e-6 * math.sqrt(rings * angles) * middle.flatten().abs()
    faint = norms <= torch.maximum(FAINT * norms.amax(), rounding) if len(norms) else norms > 0
    return torch.where(faint[:, None, None], 0, patches / norms[:, None, None].clamp(min=1e-30))


def polar_correlation(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return the correlation of patches at their best rotation, and that rotation.

    Args:
        one, other: `(N, rings, angles)` and `(M, rings, angles)`, of `polar_patches`.

    Returns:
        correlations `(N, M)`, −1 … 1, and angles `(N, M)` in radians, 0 … 2π, to a step of the samples: by so much the
        surroundings of the first are turned, from the first axis towards the second, to become those of the other.
    """
    angles = one.shape[2]
    a, b = (torch.fft.rfft(patches.double(), dim=2).to(torch.complex64).permute(2, 0, 1) for patches in (one, other))
    rows = max(1, AT_ONCE // (len(other) * angles))
    found = []
    for first in range(0, len(one), rows):
        product = a[:, first : first + rows].conj() @ b.mT  # (frequencies, rows, M)
        found.append(torch.fft.irfft(product, angles, dim=0).max(0))
    best = [torch.cat([block[n] for block in found]) if found else one.new_zeros(0, len(other)) for n in (0, 1)]
    return best[0], 2 * math.pi / angles * best[1]


def mutual(similarity: Tensor, ratio: float = 1.0) -> Tensor:
    """Return the pairs of rows and columns that are each other's best, `(K, 2)`, ties by the lower index.

    Args:
        similarity: `(N, M)`, more is more alike.
        ratio: at most, of the distance 1 − similarity to the best and to the second best, of the row (Lowe 2004).
    """
    if not similarity.numel():
        return torch.zeros(0, 2, dtype=torch.long)
    rows = torch.arange(len(similarity))
    best = similarity.argmax(1)
    kept = similarity.argmax(0)[best] == rows
    if ratio < 1 and similarity.shape[1] > 1:
        first, second = similarity.topk(2, 1).values.unbind(1)
        kept &= (1 - first) <= ratio * (1 - second)
    return torch.stack([rows, best], 1)[kept]
