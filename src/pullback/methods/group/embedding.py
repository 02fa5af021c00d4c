"""Coordinates of people by the distances between them: ISOMAP, and how many dimensions the distances seem to have."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components, shortest_path
from torch import Tensor

from pullback.errors import InputError

LEAST = 5  # neighbours that are tried first
SHARES = (0.01, 0.10)  # of the distances, between which the correlation dimension is fitted


@dataclass(frozen=True, eq=False)
class Embedding:
    """Coordinates of n people.

    Attributes:
        coordinates: `(n, d)` float64, in the unit of the distances, the dimension that tells most first.
        explained: share of the variance of each dimension, `(d,)`: its eigenvalue over the sum of all positive ones.
        neighbours: how many of them each is joined with.
        apart: numbers of those who stand in no one piece with most others where each has five neighbours: outliers, or
            groups of copies.
    """

    coordinates: Tensor
    explained: Tensor
    neighbours: int
    apart: tuple[int, ...] = ()


def isomap(distances: Tensor, dims: int = 4, neighbours: int | None = None) -> Embedding:
    """Embed people by the lengths of the shortest paths between them (Tenenbaum, de Silva & Langford 2000).

    Each is joined with its nearest neighbours, and with whoever has it as one. With the lengths G of the shortest paths
    the coordinates are √λ u of the largest eigenvalues λ of −½ J G² J, J the centring matrix. The number largest in
    size of each dimension is positive.

    Args:
        distances: `(n, n)`, symmetric, 0 on the diagonal.
        dims: of the coordinates, or as many as have a positive eigenvalue.
        neighbours: None takes the fewest from 5 on that join all; n − 1 is classical scaling.

    Raises:
        InputError: no such matrix, no dimension, too many neighbours, or people whom these do not join.
    """
    values = _checked(distances)
    n = len(values)
    if dims < 1 or (neighbours is not None and not 1 <= neighbours < n):
        raise InputError(f"isomap: 1 dimension or more and 1 … {n - 1} neighbours expected, got {dims}, {neighbours}")
    tried = _graphs(values, neighbours)
    chosen, graph, pieces = next(tried)
    apart = tuple(np.flatnonzero(pieces != np.bincount(pieces).argmax()).tolist())
    if apart and neighbours is not None:
        raise InputError(f"isomap: {neighbours} neighbours do not join {', '.join(map(str, apart))} with the others")
    while pieces.any():
        chosen, graph, pieces = next(tried)
    return _embedded(shortest_path(graph, directed=False), dims, chosen, apart)


def _checked(distances: Tensor) -> np.ndarray:
    values = distances.detach().double().cpu().numpy()
    n = len(values)
    if values.shape != (n, n) or n < 3:
        raise InputError(f"isomap: distances `(n, n)` of three people or more expected, got {values.shape}")
    if not np.isfinite(values).all() or values.min() < 0 or np.diag(values).any() or not np.allclose(values, values.T):
        raise InputError("isomap: finite distances from 0 on expected, symmetric, 0 on the diagonal")
    return values


def _graphs(values: np.ndarray, neighbours: int | None) -> Iterator[tuple[int, csr_matrix, np.ndarray]]:
    """Yield numbers of neighbours, the graphs of these, and the piece that each person stands in."""
    n = len(values)
    order = np.argsort(values + np.where(np.eye(n), -1, 0), axis=1, kind="stable")[:, 1:]
    for count in range(min(LEAST, n - 1), n) if neighbours is None else (neighbours,):
        joined = np.zeros((n, n), bool)
        np.put_along_axis(joined, order[:, :count], True, 1)
        one, other = np.nonzero(joined | joined.T)
        graph = csr_matrix((values[one, other], (one, other)), (n, n))  # a distance of 0 is an edge, too
        yield count, graph, connected_components(graph, directed=False)[1]


def scaled(distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates of classical scaling, `(n, d)`, and their d positive eigenvalues, the largest first.

    Raises:
        InputError: there is none.
    """
    squares = distances**2
    rows = squares.mean(0, keepdims=True)
    inner = -0.5 * (squares - rows - rows.T + squares.mean())
    eigenvalues, vectors = np.linalg.eigh((inner + inner.T) / 2)
    positive = eigenvalues > 1e-12 * abs(eigenvalues).max()
    if not positive.any():
        raise InputError("isomap: all distances are 0: everybody is the same")
    eigenvalues, vectors = eigenvalues[positive][::-1], vectors[:, positive][:, ::-1]
    return vectors * np.sqrt(eigenvalues), eigenvalues


def _embedded(paths: np.ndarray, dims: int, neighbours: int, apart: tuple[int, ...]) -> Embedding:
    every, eigenvalues = scaled(paths)
    coordinates = every[:, :dims]
    dims = coordinates.shape[1]
    largest = np.abs(coordinates).argmax(0)
    coordinates = coordinates * np.sign(coordinates[largest, range(dims)])
    explained = eigenvalues[:dims] / eigenvalues.sum()
    return Embedding(torch.from_numpy(coordinates), torch.from_numpy(explained.copy()), neighbours, apart)


def correlation_dimension(distances: Tensor, shares: tuple[float, float] = SHARES) -> float | None:
    """Return the slope of log C(r) on log r, C(r) the share of pairs nearer than r (Grassberger & Procaccia 1983).

    By least squares over the pairs between the `shares` of all in order of distance; the paper does not say where.
    Noise in many directions makes it large: it is a hint at how many dimensions there are, and no more.

    Args:
        distances: `(n, n)`.
        shares: of the pairs, 0 … 1.

    Returns:
        The slope; None where fewer than ten pairs lie between these shares, or none differ.
    """
    n = len(distances)
    pairs = distances[tuple(torch.triu_indices(n, n, 1))].double().cpu().sort().values
    rank = torch.arange(1, len(pairs) + 1, dtype=torch.float64) / max(len(pairs), 1)
    chosen = (rank >= shares[0]) & (rank <= shares[1]) & (pairs > 0)
    r, c = pairs[chosen].log(), rank[chosen].log()
    if len(r) < 10 or r[0] == r[-1]:
        return None
    r = r - r.mean()
    return float((r * c).sum() / (r * r).sum())
