"""The linear map between matched landmarks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.numerics.fit import distances, fit_most
from pullback.numerics.random import make_generator
from pullback.space.points import Points
from pullback.space.transform import Affine


@dataclass(frozen=True, eq=False)
class LandmarkFit:
    """A linear map between landmarks, and how far it leaves each from its match.

    Attributes:
        affine: fixed → moving.
        off: distances in mm, `(N,)`.
        kept: the landmarks that agree, by which the map was found, `(N,)` bool.
    """

    affine: Affine
    off: Tensor
    kept: Tensor


def fit_landmarks(fixed: Points, moving: Points, kind: str = "rigid", least: float = 1.0, seed: int = 0) -> LandmarkFit:
    """Find the linear map between matched landmarks, by those that agree.

    Args:
        fixed, moving: `(1, N, d)`, in one order.
        kind: rigid, similarity or affine.
        least: in mm, how far off a landmark may be in any case.
        seed: of the subsets that are tried, where there are many.

    Raises:
        InputError: too few landmarks for the kind, or all on one line or plane.
    """
    here, there = (points.data[0].detach().cpu().double() for points in (fixed, moving))
    try:
        matrix, kept = fit_most(here, there, kind, least, make_generator(seed))
    except ValueError as error:
        raise InputError(f"landmarks: {error}; there are {len(here)}") from error
    return LandmarkFit(Affine(matrix), distances(matrix, here, there), kept)


def without(points: Points, which: Sequence[int]) -> Points:
    """Return the points but for some, by their numbers."""
    left = torch.ones(points.data.shape[1], dtype=torch.bool)
    left[list(which)] = False
    return points[left]
