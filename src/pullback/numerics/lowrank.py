"""Covariances of low rank: Cholesky's decomposition, stopped where little is left."""

from collections.abc import Callable

import torch
from torch import Tensor

ROUNDING = 1e-14
"""Share of the greatest variance below which what is left of a point's is rounding."""


def pivoted_cholesky(
    diagonal: Tensor, column: Callable[[int], Tensor], tolerance: float, most: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return F and its pivots, K ≈ F Fᵀ, of a covariance K of which a few columns are ever computed.

    The next pivot is the point of which most variance is left (Harbrecht, Peters, Schneider 2012). K − F Fᵀ is positive
    semidefinite, its trace is the error, and at the pivots it is 0: there F is lower triangular.

    Args:
        diagonal: of K, `(M,)`, float64.
        column: of K by its index, `(M,)`.
        tolerance: share of K's trace that may be left; 0 goes on down to rounding.
        most: columns of F, at most; None for M.

    Returns:
        F `(M, r)` and the pivots `(r,)`.
    """
    left, bound, enough = diagonal.clone(), ROUNDING * diagonal.max(), tolerance * diagonal.sum()
    limit = len(diagonal) if most is None else min(most, len(diagonal))
    rows, pivots = diagonal.new_zeros(min(64, limit), len(diagonal)), list[int]()
    while len(pivots) < limit and left.sum() > enough:
        rank, pivot = len(pivots), int(left.argmax())
        if left[pivot] <= bound:
            break
        if rank == len(rows):
            rows = torch.cat([rows, torch.zeros_like(rows)])
        found = (column(pivot) - rows[:rank, pivot] @ rows[:rank]) / left[pivot].sqrt()
        found[pivots] = 0.0
        found[pivot] = left[pivot].sqrt()
        rows[rank] = found
        left = (left - found.square()).clamp(min=0)
        left[pivot] = 0.0
        pivots.append(pivot)
    return rows[: len(pivots)].mT, torch.tensor(pivots, dtype=torch.long, device=diagonal.device)
