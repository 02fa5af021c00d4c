"""Graphs of nearest neighbours on clouds of points."""

import torch
from torch import Tensor

CHUNK = 2048  # points at once, so that the distances of a large cloud are never all held


def nearest(points: Tensor, others: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find the `k` of `others` nearest to each point: distances and indices, `(N, k)`, nearest first.

    Args:
        points: `(N, d)`.
        others: `(M, d)`.
        k: at most M.

    Raises:
        ValueError: there are fewer than `k` others.
    """
    if k > len(others):
        raise ValueError(f"nearest: {k} neighbours asked of {len(others)} points; fewer neighbours or more points")
    exact = "donot_use_mm_for_euclid_dist"
    parts = [torch.cdist(part, others, compute_mode=exact).topk(k, largest=False) for part in points.split(CHUNK)]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def neighbours(points: Tensor, k: int) -> Tensor:
    """Return indices `(N, k)` of the `k` nearest other points of each point of a cloud `(N, d)`."""
    index = nearest(points, points, k + 1)[1]
    own = index == torch.arange(len(points), device=index.device)[:, None]
    own[:, -1] |= ~own.any(1)  # points that coincide may hide the point itself
    return index[~own].view(len(points), k)  # (N, k): of k + 1 each loses one


def pairs(index: Tensor) -> Tensor:
    """Return the edges between neighbours `(N, k)` as pairs of points `(E, 2)`: each once, the lower first, sorted."""
    one = torch.arange(len(index), device=index.device)[:, None].expand_as(index)
    both = torch.stack([torch.minimum(one, index), torch.maximum(one, index)], -1).view(-1, 2)  # (N·k, 2)
    return both.unique(dim=0)


def edge_features(values: Tensor, index: Tensor) -> Tensor:
    """Return, along each edge, the neighbour's values less the point's, then the point's: `(N, C)` to `(N, k, 2C)`."""
    own = values[:, None].expand(-1, index.shape[1], -1)
    return torch.cat([gather_rows(values, index) - own, own], -1)


def laplacian(values: Tensor, index: Tensor) -> Tensor:
    """Return the mean of the neighbours' values less the point's own, `(N, C)`."""
    return gather_rows(values, index).mean(1) - values


def gather_rows(values: Tensor, index: Tensor) -> Tensor:
    """Gather the rows of values `(N, …)` at indices `(M, k)`: `(M, k, …)`; gradients add up in a fixed order."""
    # (M·k, …), then (M, k, …)
    return values.index_select(0, index.reshape(-1)).view(*index.shape, *values.shape[1:])
