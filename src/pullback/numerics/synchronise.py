"""Maps of all members of a group from maps between some of them, by least squares."""

from collections.abc import Mapping

import numpy as np
import torch
from scipy.sparse import coo_array, csc_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu
from torch import Tensor

from pullback.numerics.ransac import HOMOGRAPHY, projected

Edge = tuple[int, int]
ROUNDS = 30
SETTLED = 1e-10  # of the size of the points


def synchronised(
    maps: Mapping[Edge, Tensor],
    count: int,
    kind: str,
    corners: Tensor,
    reference: int = 0,
    scale: float = 1.0,
    weights: Mapping[Edge, float] | None = None,
) -> Tensor:
    """Return the maps Mₙ `(count, d+1, d+1)` from member `reference` to each for which Mⱼ ≈ Mᵢⱼ Mᵢ for all edges.

    The least squares of the matrices' entries, in coordinates in which the corners lie about 0 and 1 away, are linear;
    of rigid maps and similarities the nearest rotations are taken (Martinec & Pajdla 2007). Edges count by
    1 / (1 + r²/s²), r the distance at the corners by which an edge misses; s comes down to `scale` from the median. A
    loop of exact maps is closed exactly.

    Args:
        maps: from i to j, homogeneous, of edges (i, j).
        count: of members.
        kind: of the maps, one of `MODELS`.
        corners: `(K, d)`, where maps are compared: of the reference.
        reference: the member whose map is the identity.
        scale: s, in the unit of the corners.
        weights: of edges; 1 without.

    Raises:
        ValueError: members that no path of edges joins with the reference.
    """
    parts = components(maps, count)
    apart = [n for n, part in enumerate(parts) if part != parts[reference]]
    if apart:
        raise ValueError(f"synchronised: no edges join {apart} with {reference}")
    edges = list(maps)
    middle, size = corners.mean(0), float((corners - corners.mean(0)).norm(dim=1).max())
    frame = torch.eye(len(middle) + 1, dtype=torch.float64)
    frame[:-1, :-1] /= size
    frame[:-1, -1] = -middle / size
    back = torch.linalg.inv(frame)
    known = torch.stack([frame @ maps[edge] @ back for edge in edges])
    given = torch.tensor([1.0 if weights is None else weights[edge] for edge in edges], dtype=torch.float64)
    at = projected(frame, corners)
    found, width, before = torch.zeros(0), np.inf, None
    weight = given
    for _ in range(ROUNDS):
        found = _solved(edges, known, count, kind, reference, weight)
        off = _misses(found, edges, known, at)
        width = max(scale / size, min(width / 2, float(off.median())))
        weight = given / (1 + (off / width).square())
        if before is not None and float((found - before).abs().max()) < SETTLED:
            break
        before = found
    out = back @ found @ frame
    out[reference] = torch.eye(len(frame), dtype=torch.float64)
    return out


def components(edges: Mapping[Edge, Tensor], count: int) -> list[int]:
    """Return for each member the number of the part of the graph that it belongs to."""
    one, other = np.array([*edges], dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(count, count))
    return [int(part) for part in connected_components(graph, directed=False)[1]]


def loops(edges: Mapping[Edge, Tensor], corners: Tensor) -> dict[tuple[int, int, int], float]:
    """Return the error of each loop i < j < k: the mean distance at the corners between i → k and i → j → k."""
    found = {}
    for i, j in edges:
        for k in sorted(k for other, k in edges if other == j and (i, k) in edges):
            off = projected(edges[j, k] @ edges[i, j], corners) - projected(edges[i, k], corners)
            found[i, j, k] = float(off.norm(dim=1).mean())
    return found


def misses(found: Tensor, maps: Mapping[Edge, Tensor], corners: Tensor) -> dict[Edge, float]:
    """Return for each edge the mean distance at the corners between its map and that of the answer."""
    edges = list(maps)
    off = _misses(found, edges, torch.stack([maps[edge] for edge in edges]), corners)
    return {edge: float(distance) for edge, distance in zip(edges, off, strict=True)}


def _misses(found: Tensor, edges: list[Edge], known: Tensor, at: Tensor) -> Tensor:
    i, j = torch.tensor(edges).mT
    return (projected(known @ found[i], at) - projected(found[j], at)).norm(dim=-1).mean(-1)


def _solved(edges: list[Edge], known: Tensor, count: int, kind: str, reference: int, weight: Tensor) -> Tensor:
    """Return the maps, `(count, d+1, d+1)`, for given weights of the edges."""
    side = known.shape[-1]
    still = torch.eye(side, dtype=torch.float64)
    rows = side if kind == HOMOGRAPHY else side - 1  # else the last row is known
    found = _least_squares(edges, known[:, :rows], still, count, reference, weight)
    if kind == HOMOGRAPHY:
        scale = torch.linalg.det(found)
        return found / (scale.sign() * scale.abs() ** (1 / side))[:, None, None]
    if kind == "affine":
        return found
    left, stretches, right = torch.linalg.svd(found[:, :-1, :-1])
    turned = torch.linalg.det(left @ right).sign()
    left = torch.cat([left[..., :-1], left[..., -1:] * turned[:, None, None]], -1)
    size = 1.0 if kind == "rigid" else stretches.mean(1)[:, None, None]
    found[:, :-1, :-1] = size * left @ right
    return found


def _least_squares(
    edges: list[Edge], known: Tensor, still: Tensor, count: int, reference: int, weight: Tensor
) -> Tensor:
    """Return matrices whose first rows solve Mⱼ = Mᵢⱼ Mᵢ; that of the reference, and all further rows, are `still`."""
    rows, side = known.shape[1:]
    root = weight.sqrt()
    blocks: list[tuple[int, int, np.ndarray]] = []
    right = np.zeros((len(edges) * rows, side))
    for n, (i, j) in enumerate(edges):
        inner = (root[n] * known[n, :, :rows]).numpy()
        outer = -float(root[n]) * np.eye(rows)
        if rows < side:  # the last row of Mᵢ is known
            right[n * rows : (n + 1) * rows] -= (root[n] * known[n, :, rows:] @ still[rows:]).numpy()
        for member, block in ((i, inner), (j, outer)):
            if member == reference:
                right[n * rows : (n + 1) * rows] -= block @ still[:rows].numpy()
            else:
                blocks.append((n, member - (member > reference), block))
    at = [(rows * n + a, rows * m + b, block[a, b]) for n, m, block in blocks for a in range(rows) for b in range(rows)]
    one, other, values = (np.array(each) for each in zip(*at, strict=True))
    matrix = coo_array((values, (one, other)), shape=(len(edges) * rows, (count - 1) * rows)).tocsc()
    solved = splu(csc_array(matrix.T @ matrix)).solve(matrix.T @ right)
    free = torch.from_numpy(np.ascontiguousarray(solved)).view(count - 1, rows, side)
    every = torch.cat([free[:reference], still[None, :rows], free[reference:]])
    return torch.cat([every, still[None, rows:].expand(count, -1, -1)], 1)
