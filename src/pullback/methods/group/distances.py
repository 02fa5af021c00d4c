"""Distances between people: of their partitions into regions, and of the connections between these."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pullback.errors import InputError

AT_ONCE = 2**23  # entries of a table that is counted at a time


def structural(
    labels: Sequence[Tensor], within: Tensor | None = None, background: bool = False, joint: bool = False
) -> Tensor:
    """Return the structural distances D_M of partitions, `(n, n)` float64, 0 … 1.

    D_M = 1 − NMI of the co-occurrence of the labels of two people. The paper does not say which NMI: here it is
    2 I / (H_a + H_b), as scikit-learn's. It knows no names of labels, so that D_M is 0 just where two maps part the
    same voxels in the same way; of two maps that have one region each and agree, too.

    Args:
        labels: whole numbers from 0 on, of voxels or vertices that lie on each other: all of one shape.
        within: of that shape, bool: where to look; None for everywhere.
        background: all voxels count. Without, those do where anybody has a label, so that the size of the field of
            view plays no part; 0 is a region there. (Where only one of the two had to have one, two maps without a
            voxel in common would part their voxels in the same way, at a distance of 0.)
        joint: I / H_ab in place of it, whose distance is a metric.

    Raises:
        InputError: fewer than two maps, of several shapes, of other numbers, or one without a label.
    """
    codes, size = _codes(labels, within)
    seen = (codes > 0).any(0)
    unseen = int((~seen).sum()) if background else 0
    codes = codes[:, seen]
    n = len(codes)
    out = torch.zeros(n, n, dtype=torch.float64)
    step = max(1, AT_ONCE // max(codes.shape[1], size * size, 1))
    for i in range(n - 1):
        for first in range(i + 1, n, step):
            counts = _counts(codes[i], codes[first : first + step], size)
            counts[:, 0, 0] += unseen
            out[i, first : first + step] = 1 - _information(counts, joint).cpu()
    out.clamp_(0, 1)
    return out + out.mT


def _codes(labels: Sequence[Tensor], within: Tensor | None) -> tuple[Tensor, int]:
    """Return the labels of each map, numbered anew from 0, which stays, `(n, V)`; and the most that a map has."""
    shapes = {tuple(each.shape) for each in labels}
    if len(labels) < 2 or len(shapes) > 1:
        raise InputError(
            f"structural: two label maps or more on one grid expected, got {len(labels)} of shapes "
            f"{', '.join(map(str, sorted(shapes)))}; bring them onto one grid first (`pullback prepare`, or --centred)"
        )
    if within is not None and tuple(within.shape) not in shapes:
        raise InputError(f"structural: a mask of shape {tuple(within.shape)} for label maps of {shapes.pop()}")
    rows, size = [], 1
    for number, each in enumerate(labels):
        values = each.flatten() if within is None else each[within.to(each.device)]
        if values.is_floating_point() or not values.numel() or int(values.min()) < 0:
            raise InputError(f"structural: map {number}: whole numbers from 0 on expected; 0 is no region")
        known, codes = torch.cat([values.new_zeros(1), values]).unique(return_inverse=True)
        if len(known) == 1:
            raise InputError(f"structural: map {number} has no label where it is looked at; leave it out")
        rows.append(codes[1:])
        size = max(size, len(known))
    return torch.stack(rows), size


def _counts(one: Tensor, others: Tensor, size: int) -> Tensor:
    """Return how often the labels of one map meet those of each of the others, `(m, size, size)` float64."""
    m = len(others)
    which = torch.arange(m, device=one.device)[:, None] * size
    cells = ((which + one) * size + others).flatten()
    return torch.bincount(cells, minlength=m * size * size).view(m, size, size).double()


def _information(counts: Tensor, joint: bool) -> Tensor:
    """Return the normalised mutual information of tables `(m, a, b)`; 1 where neither side tells anything apart."""
    p = counts / counts.sum((1, 2), keepdim=True)
    one, two, both = (_entropy(each) for each in (p.sum(2), p.sum(1), p.flatten(1)))
    whole = both if joint else (one + two) / 2
    return torch.where(whole > 0, (one + two - both) / whole, torch.ones_like(whole))


def _entropy(p: Tensor) -> Tensor:
    return -torch.xlogy(p, p).sum(1)


def hellinger(
    matrices: Sequence[Tensor],
    names: Sequence[Sequence[str]] | None = None,
    rows: Sequence[str] | None = None,
    printed: bool = False,
) -> Tensor:
    """Return the distances D_C of connection matrices, `(n, n)` float64: Hellinger's, √2 where nothing is in common.

    Each matrix is made symmetric, without its diagonal, and of sum 1, a density over pairs of regions. With the
    Bhattacharyya coefficient BC = Σ √(C_a C_b), D_C = √(2 (1 − BC)) = |√C_a − √C_b|₂, a metric. Eq. 1 of the paper has
    one more root, over BC, and cannot hold as printed where its sum runs over all i and j: it is imaginary for C_a =
    C_b. Read with i < j it is √(2 (1 − √BC)), a monotone map of D_C: the neighbours are the same, the lengths others.

    Args:
        matrices: `(m, m)` each, not negative; row i of each is the same region, unless `names` say otherwise.
        names: of the rows of each matrix. What one lacks, its row is 0.
        rows: names, or numbers without names, of the regions whose connections count, each with all; None for all.
        printed: the distance with the paper's second root.

    Raises:
        InputError: fewer than two matrices, no square ones, of several sizes without names, negative or not finite
            numbers, a matrix without connections, or rows that are not known.
    """
    laid, known = _laid(matrices, names)
    chosen = laid
    if rows is not None:
        unknown = [row for row in rows if row not in known]
        if unknown or not rows:
            raise InputError(f"hellinger: no region {', '.join(unknown)}; there is {', '.join(known)}")
        chosen = laid[:, [known.index(row) for row in rows]]
    total = chosen.sum((1, 2))
    if (total <= 0).any():
        none = ", ".join(map(str, (total <= 0).nonzero()[:, 0].tolist()))
        raise InputError(f"hellinger: matrix {none}: no connection beside the diagonal; leave it out")
    roots = (chosen / total[:, None, None]).sqrt().flatten(1)
    out = torch.cdist(roots, roots, compute_mode="donot_use_mm_for_euclid_dist")
    if printed:
        alike = (1 - out.square() / 2).clamp(0, 1)  # BC
        out = (2 * (1 - alike.sqrt())).sqrt()
    return out


def _laid(matrices: Sequence[Tensor], names: Sequence[Sequence[str]] | None) -> tuple[Tensor, list[str]]:
    """Return symmetric matrices without diagonals, `(n, m, m)` float64, whose rows mean the same, and their names."""
    sizes = {tuple(each.shape) for each in matrices}
    if len(matrices) < 2 or any(len(size) != 2 or size[0] != size[1] for size in sizes):
        raise InputError(f"hellinger: two square matrices or more expected, got {len(matrices)} of {sorted(sizes)}")
    if names is None and len(sizes) > 1:
        raise InputError(f"hellinger: matrices of sizes {sorted(sizes)}; name their rows, so that they can be matched")
    if names is None:
        names = [[str(row) for row in range(len(each))] for each in matrices]
    if len(names) != len(matrices):
        raise InputError(f"hellinger: {len(names)} lists of names for {len(matrices)} matrices")
    known = list(dict.fromkeys(name for each in names for name in each))
    out = torch.zeros(len(matrices), len(known), len(known), dtype=torch.float64)
    for number, (each, own) in enumerate(zip(matrices, names, strict=True)):
        values = each.double().cpu()
        if not values.isfinite().all() or values.min() < 0:
            raise InputError(f"hellinger: matrix {number}: finite numbers from 0 on expected")
        if len(own) != len(values) or len({*own}) != len(own):
            raise InputError(f"hellinger: matrix {number}: {len(values)} rows and {len({*own})} names of their own")
        at = torch.tensor([known.index(name) for name in own])
        out[number, at[:, None], at] = (values + values.mT) / 2
        out[number].fill_diagonal_(0)
    return out, known
