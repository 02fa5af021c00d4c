"""Initial transforms: cheap guesses of how two images lie to each other, fixed → moving in the world."""

import itertools

import torch
from torch import Tensor

from pullback.alignment import Pair
from pullback.errors import InputError
from pullback.space import Affine, Image

BRIGHTEST = 99.9  # percentile of the distances from the background at which they are cut off


def header(fixed: Image, moving: Image) -> Affine:
    """Return the identity: the images lie as the headers say."""
    _check(fixed, moving)
    return Affine.identity(fixed.grid.ndim)


def centres(fixed: Image, moving: Image) -> Affine:
    """Return the shift that takes the middle of the fixed grid to the middle of the moving one."""
    _check(fixed, moving)
    return Affine.about(torch.eye(fixed.grid.ndim, dtype=torch.float64), fixed.grid.centre, moving.grid.centre)


def masses(fixed: Image, moving: Image) -> Affine:
    """Return the shift that takes the fixed centre of mass to the moving one.

    Mass is what stands out of the background, as in `foreground`. `InputError` where nothing does.
    """
    _check(fixed, moving)
    here, there = (_moments(image)[0] for image in (fixed, moving))
    return Affine.about(torch.eye(len(here), dtype=torch.float64), here, there)


def moments(fixed: Image, moving: Image) -> list[Affine]:
    """Return the rigid motions that take centre of mass to centre of mass and principal axes to principal axes.

    Axes are matched by the order of their second moments; each has no sign, so there are 2^(d−1) proper rotations: 2 in
    2-D, 4 in 3-D, the smallest rotation first. Where two moments are equal, as those of a ball, the axes mean little.
    `InputError` where nothing stands out.
    """
    _check(fixed, moving)
    (one, one_spread), (two, two_spread) = (_moments(image) for image in (fixed, moving))
    from_axes, to_axes = (torch.linalg.eigh(spread).eigenvectors for spread in (one_spread, two_spread))
    turns = []
    for signs in itertools.product((1.0, -1.0), repeat=fixed.grid.ndim):
        turn = to_axes * torch.tensor(signs, dtype=torch.float64) @ from_axes.T
        if torch.linalg.det(turn) > 0:
            turns.append(turn)
    return [Affine.about(turn, one, two) for turn in sorted(turns, key=lambda turn: -float(turn.trace()))]


def foreground(image: Image) -> Tensor:
    """Return how far each voxel stands out of the background, `(*spatial)` float64, 0 … 1; 0 outside the mask.

    Background is the median along the border of the field of view, so it may be dark, bright, or −1000. Distances from
    it, averaged over channels, are cut off at their 99.9th percentile, so that vessels and clips do not decide; those
    below Otsu's threshold are taken for noise and give 0.

    Raises:
        InputError: nothing stands out.
    """
    data = image.data[0].double()
    border = torch.ones_like(data[0], dtype=torch.bool)
    border[tuple(slice(1, -1) for _ in image.grid.shape)] = False
    background = data[:, border].median(1).values
    away = (data - background.view(-1, *[1] * image.grid.ndim)).abs().mean(0)
    if image.mask is not None:
        away = away * image.mask[0, 0]
    lit = away[away > 0].sort().values
    if not len(lit):
        raise InputError("nothing stands out of the image's background where it may be looked at; start from its grid")
    away = away.clamp(max=lit[round(BRIGHTEST / 100 * (len(lit) - 1))])
    return away.where(away > otsu(away), 0) / away.max()


def otsu(values: Tensor, bins: int = 256) -> float:
    """Return the threshold between two classes of values with the largest variance between them (Otsu 1979)."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return low
    counts = torch.histc(values, bins, low, high).cpu()
    middles = low + (high - low) * (torch.arange(bins, dtype=counts.dtype) + 0.5) / bins
    below, sums = counts.cumsum(0)[:-1], (counts * middles).cumsum(0)
    above = counts.sum() - below
    mean_below, mean_above = sums[:-1] / below, (sums[-1] - sums[:-1]) / above
    between = below * above * (mean_below - mean_above) ** 2
    return low + (high - low) * (int(between.argmax()) + 1) / bins


def _moments(image: Image) -> tuple[Tensor, Tensor]:
    """Return the centre of mass `(d,)` in mm and the covariance `(d, d)` in mm² of the foreground."""
    weight = foreground(image).flatten()
    weight = weight / weight.sum()
    where = image.grid.to_world(image.grid.voxels(weight)[None])[0].flatten(1)  # (d, N)
    centre = where @ weight
    spread = (where - centre[:, None]) * weight @ (where - centre[:, None]).T
    return centre.cpu(), spread.cpu()


def _check(fixed: Image, moving: Image) -> None:
    """Refuse images that are not one pair of one dimension."""
    Pair(fixed, moving)
    for image in (fixed, moving):
        if image.data.shape[0] != 1:
            raise ValueError(f"a start is found for one pair at a time; got a batch of {image.data.shape[0]}")
