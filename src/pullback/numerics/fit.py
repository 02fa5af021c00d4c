"""Linear maps between matched points, by least squares and by least medians."""

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

FITS = ("rigid", "similarity", "affine")
"""Kinds of linear maps, from few to many parameters."""

FLAT = 1e-6
"""Of the largest extent: points that extend less than this along an axis lie in a plane."""


def fit_linear(points: Tensor, there: Tensor, kind: str = "affine") -> Tensor:
    """Return the map `(d+1, d+1)` that takes points `(N, d)` nearest to others, the sum of squared distances the least.

    Rigid maps and similarities after Umeyama (1991), which never reflect; affine maps by the normal equations.

    Raises:
        ValueError: no kind of `FITS`, or too few points, or points that lie in too thin a set to tell the map.
    """
    if kind not in FITS:
        raise ValueError(f"fit_linear: one of {', '.join(FITS)} expected, got {kind}")
    d, points, there = points.shape[1], points.double(), there.double()
    here, other = points.mean(0), there.mean(0)
    a, b = points - here, there - other
    extents = torch.linalg.svdvals(a)
    wide = int((extents > FLAT * extents[0]).sum()) if len(a) else 0
    if wide < (d if kind == "affine" else d - 1):
        raise ValueError(_too_thin(d, kind))
    if kind == "affine":
        linear = torch.linalg.lstsq(a, b).solution.mT
    else:
        left, stretches, right = torch.linalg.svd(b.mT @ a)
        signs = torch.ones_like(stretches)
        signs[-1] = torch.linalg.det(left @ right).sign()
        scale = (stretches * signs).sum() / a.square().sum() if kind == "similarity" else 1.0
        linear = scale * (left * signs) @ right
    matrix = torch.eye(d + 1, dtype=torch.float64)
    matrix[:-1, :-1], matrix[:-1, -1] = linear, other - linear @ here
    return matrix


def fit_most(
    points: Tensor, there: Tensor, kind: str, least: float, generator: torch.Generator, subsets: int = 500
) -> tuple[Tensor, Tensor]:
    """Return the map of `fit_linear` by the points that agree, and which these are, `(N,)` bool.

    By the least median of squares (Rousseeuw 1984), which holds while more than half of the points agree: of maps
    through the fewest points that tell one, that with the least median distance. Points farther off than 2.5 of the
    standard deviations that this median stands for do not agree. No distance has to be known in advance.

    Args:
        least: distance within which points agree in any case.
        generator: of the subsets, where there are more than `subsets`.

    Raises:
        ValueError: as `fit_linear`.
    """
    n, few = len(points), _fewest(points.shape[1], kind)
    everything = torch.ones(n, dtype=torch.bool)
    if n < few + 2:  # one wrong point more than these cannot be told from a right one
        return fit_linear(points, there, kind), everything
    middle = (n + few + 1) // 2
    best, kept = math.inf, everything
    for chosen in _subsets(n, few, subsets, generator):
        try:
            matrix = fit_linear(points[chosen], there[chosen], kind)
        except ValueError:
            continue
        off = distances(matrix, points, there)
        median = float(off.kthvalue(middle).values)
        if median < best:
            deviation = 1.4826 * (1 + 5 / (n - few)) * median
            best, kept = median, off <= max(2.5 * deviation, least)
    return fit_linear(points[kept], there[kept], kind), kept


def distances(matrix: Tensor, points: Tensor, there: Tensor) -> Tensor:
    """Return how far from the others `(N, d)` a map `(d+1, d+1)` takes points `(N, d)`, `(N,)`."""
    return (points.double() @ matrix[:-1, :-1].mT + matrix[:-1, -1] - there.double()).norm(dim=1)


def _fewest(d: int, kind: str) -> int:
    return d + 1 if kind == "affine" else d


def _too_thin(d: int, kind: str) -> str:
    least, thin = (d + 1, "plane" if d == 3 else "line") if kind == "affine" else (d, "line" if d == 3 else "place")
    article = "an" if kind == "affine" else "a"
    return f"{article} {kind} map of {d} dimensions needs {least} points at least, not all in one {thin}"


def _subsets(n: int, size: int, count: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Yield all subsets of `size` of n things, or `count` of them at random."""
    if math.comb(n, size) <= count:
        yield from (list(each) for each in itertools.combinations(range(n), size))
        return
    for _ in range(count):
        yield torch.randperm(n, generator=generator)[:size].tolist()
