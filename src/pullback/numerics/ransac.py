"""Maps between matched points of which many are wrong: random sample consensus, and homographies of the plane."""

import math

import torch
from torch import Tensor

from pullback.numerics.fit import FITS, fit_linear

HOMOGRAPHY = "homography"
MODELS = (*FITS, HOMOGRAPHY)
"""Kinds of maps by one homogeneous matrix, from few to many parameters; homographies are of the plane."""

AT_ONCE = 64  # trials
AGAIN = 10  # fits by those that agree, at most
POLISHED = 10  # Gauss-Newton steps, at most


def ransac(
    points: Tensor,
    there: Tensor,
    kind: str,
    threshold: float,
    generator: torch.Generator,
    trials: int = 2000,
    confidence: float = 0.995,
) -> tuple[Tensor, Tensor]:
    """Return the map of `fit_matrix` by the points that agree, and which these are, `(N,)` bool.

    Random sample consensus (Fischler & Bolles 1981): of maps through the fewest points that tell one, drawn at random,
    the one with the least sum of squared distances, each cut off at `threshold`² (Torr & Zisserman 2000). It is fitted
    again to all points that agree until these stay the same. Many points may be wrong, if it is known how near the
    right ones lie; `fit_most` needs no such distance, and more than half of the points.

    Args:
        points, there: `(N, d)`, matched row by row.
        kind: one of `MODELS`.
        threshold: distance within which points agree, in the unit of the points.
        generator: of the draws.
        trials: at most; fewer are made once a map through right points alone was drawn with this `confidence`, if the
            share of right points is that which agrees.

    Raises:
        ValueError: as of `fit_matrix`, also where no draw tells a map.
    """
    n, few = len(points), fewest(points.shape[1], kind)
    if n < few:
        raise ValueError(f"ransac: {kind} needs {few} points at least, got {n}")
    points, there = points.double(), there.double()
    best, least, done, needed = None, math.inf, 0, float(trials)
    while done < min(needed, trials):
        chosen = torch.rand(AT_ONCE, n, generator=generator).topk(few).indices.to(points.device)
        tried = _through(points[chosen], there[chosen], kind)  # (trials, d+1, d+1)
        off = distances(tried, points, there)
        costs = _cost(off, threshold)
        first = int(costs.argmin())
        if float(costs[first]) < least:
            best, least = tried[first], float(costs[first])
            share = float((off[first] <= threshold).double().mean())
            needed = _needed(share, few, confidence)
        done += AT_ONCE
    if best is None:
        raise ValueError(f"ransac: no {few} of {n} points tell a map ({kind}); they lie in one place or on one line")
    return _by_all_that_agree(best, points, there, kind, threshold)


def fit_matrix(points: Tensor, there: Tensor, kind: str) -> Tensor:
    """Return the map `(d+1, d+1)` of one of `MODELS` that takes points `(N, d)` nearest to others by least squares.

    Raises:
        ValueError: as of `fit_linear` and `fit_homography`.
    """
    return fit_homography(points, there) if kind == HOMOGRAPHY else fit_linear(points, there, kind)


def fit_homography(points: Tensor, there: Tensor) -> Tensor:
    """Return the homography `(3, 3)`, of determinant 1, by which points `(N, 2)` come nearest to others.

    The direct linear transform of normalised coordinates (Hartley & Zisserman 2004, algorithm 4.2), then Gauss-Newton
    steps of the squared distances.

    Raises:
        ValueError: points not of the plane, fewer than four, or lying so that they tell no homography.
    """
    if points.shape[1] != 2 or len(points) < 4:
        raise ValueError(f"fit_homography: four points of the plane or more expected, got {tuple(points.shape)}")
    points, there = points.double(), there.double()
    before, after = _normaliser(points), _normaliser(there)
    if before is None or after is None:
        raise ValueError("fit_homography: all points lie in one place")
    p, q = projected(before, points), projected(after, there)
    _, values, vectors = torch.linalg.svd(_equations(p, q), full_matrices=len(points) == 4)
    if float(values[7]) < 1e-9 * float(values[0]):
        raise ValueError("fit_homography: the points tell no homography: but for one they lie on one line")
    matrix = _polished(vectors[-1].view(3, 3), p, q)
    matrix = torch.linalg.inv(after) @ matrix @ before
    scale = torch.linalg.det(matrix)
    if abs(float(scale)) < 1e-12 * float(matrix.norm()) ** 3:
        raise ValueError("fit_homography: the points tell no homography that has an inverse")
    return matrix / (scale.sign() * scale.abs() ** (1 / 3))


def projected(matrix: Tensor, points: Tensor) -> Tensor:
    """Return points `(N, d)` moved by a homogeneous matrix `(…, d+1, d+1)`: `(…, N, d)`."""
    moved = points @ matrix[..., :-1, :-1].mT + matrix[..., None, :-1, -1]
    return moved / (points @ matrix[..., -1, :-1, None] + matrix[..., -1, -1, None, None])


def distances(matrix: Tensor, points: Tensor, there: Tensor) -> Tensor:
    """Return how far from the others `(N, d)` maps `(…, d+1, d+1)` take points, `(…, N)`.

    It is infinite where a map takes the point beyond infinity, seen from the middle of the points, or is not finite.
    """
    weights = (points @ matrix[..., -1, :-1, None])[..., 0] + matrix[..., -1, -1, None]  # (…, N)
    middle = weights.mean(-1, keepdim=True)
    off = (projected(matrix, points) - there).norm(dim=-1)
    return torch.where((weights * middle > 0) & off.isfinite(), off, math.inf)


def fewest(d: int, kind: str) -> int:
    """Return how many points tell a map of this kind.

    Raises:
        ValueError: no kind of `MODELS`, or homographies of space.
    """
    if kind not in MODELS or (kind == HOMOGRAPHY and d != 2):
        raise ValueError(f"one of {', '.join(MODELS)} expected, homographies of the plane alone; got {kind} in {d}-D")
    return {HOMOGRAPHY: 4, "affine": d + 1}.get(kind, d)


def _needed(share: float, few: int, confidence: float) -> float:
    """Return how many draws contain one of right points alone, with this confidence."""
    right = share**few
    if right >= 1:
        return 0.0
    return math.log(1 - confidence) / math.log1p(-right) if right > 0 else math.inf


def _cost(off: Tensor, threshold: float) -> Tensor:
    return off.clamp(max=threshold).square().sum(-1)


def _by_all_that_agree(
    matrix: Tensor, points: Tensor, there: Tensor, kind: str, threshold: float
) -> tuple[Tensor, Tensor]:
    """Return the map fitted to those that agree, again and again, as long as the cost falls."""
    off = distances(matrix, points, there)
    agree, least, best = off <= threshold, math.inf, None
    for _ in range(AGAIN):
        try:
            matrix = fit_matrix(points[agree], there[agree], kind)
        except ValueError:
            if best is None:
                raise
            break
        off = distances(matrix, points, there)
        cost, now = float(_cost(off, threshold)), off <= threshold
        if cost >= least:
            break
        best, least = (matrix, now), cost
        if bool((now == agree).all()):
            break
        agree = now
    assert best is not None
    return best


def _through(points: Tensor, there: Tensor, kind: str) -> Tensor:
    """Return maps `(T, d+1, d+1)` through the fewest points `(T, few, d)`; not finite where these tell none."""
    here, other = points.mean(1, keepdim=True), there.mean(1, keepdim=True)
    a, b = points - here, there - other
    d = points.shape[2]
    if kind == HOMOGRAPHY:
        scale = a.square().sum((1, 2)).sqrt()[:, None, None], b.square().sum((1, 2)).sqrt()[:, None, None]
        equations = _equations(a / scale[0], b / scale[1]).nan_to_num()
        eight = torch.linalg.solve_ex(equations[..., :8], -equations[..., 8])[
            0
        ]  # the middle stays finite: the ninth is 1
        inner = torch.cat([eight, torch.ones_like(eight[:, :1])], 1).view(-1, 3, 3)
        before, after = _scaled(here, scale[0]), _scaled(other, scale[1])
        return torch.linalg.solve_ex(after, inner @ before)[0]
    if kind == "affine":
        linear = torch.linalg.solve_ex(a[:, 1:] - a[:, :1], b[:, 1:] - b[:, :1])[0].mT
    else:
        left, stretches, right = torch.linalg.svd(b.mT @ a)
        signs = torch.ones_like(stretches)
        signs[:, -1] = torch.linalg.det(left @ right).sign()
        linear = (left * signs[:, None]) @ right
        if kind == "similarity":
            linear = linear * ((stretches * signs).sum(1) / a.square().sum((1, 2)))[:, None, None]
    matrix = torch.eye(d + 1, dtype=a.dtype, device=a.device).repeat(len(a), 1, 1)
    matrix[:, :-1, :-1], matrix[:, :-1, -1:] = linear, other.mT - linear @ here.mT
    return matrix


def _scaled(middle: Tensor, scale: Tensor) -> Tensor:
    """Return matrices `(T, 3, 3)` that take `middle` `(T, 1, 2)` to 0, and are of 1 / `scale`."""
    matrix = torch.eye(3, dtype=middle.dtype, device=middle.device).repeat(len(middle), 1, 1)
    matrix[:, :2, 2] = -middle[:, 0]
    matrix[:, 2, 2] = scale[:, 0, 0]
    return matrix / scale


def _normaliser(points: Tensor) -> Tensor | None:
    """Return the matrix that takes points to mean 0 and mean square distance 2; None where they lie in one place."""
    middle = points.mean(0)
    spread = float((points - middle).square().sum(1).mean())
    if spread <= 0:
        return None
    scale = math.sqrt(2 / spread)
    matrix = torch.diag(points.new_tensor([scale, scale, 1.0]))
    matrix[:2, 2] = -scale * middle
    return matrix


def _equations(p: Tensor, q: Tensor) -> Tensor:
    """Return the matrix `(…, 2N, 9)` whose null vector is a homography, row by row, of points `(…, N, 2)`."""
    one = torch.cat([p, torch.ones_like(p[..., :1])], -1)
    zero = torch.zeros_like(one)
    first = torch.cat([one, zero, -q[..., :1] * one], -1)
    second = torch.cat([zero, one, -q[..., 1:] * one], -1)
    return torch.cat([first, second], -2)


def _polished(matrix: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """Return the homography after Gauss-Newton steps of the squared distances, as long as these fall."""
    one = torch.cat([p, torch.ones_like(p[:, :1])], 1)
    matrix = matrix / matrix.norm()
    least = (projected(matrix, p) - q).square().sum()
    for _ in range(POLISHED):
        weight = (one @ matrix[2])[:, None]
        here = projected(matrix, p)
        zero, base = torch.zeros_like(one), one / weight
        slope = torch.cat(
            [torch.cat([base, zero, -here[:, :1] * base], 1), torch.cat([zero, base, -here[:, 1:] * base], 1)]
        )
        off = torch.cat([q[:, 0] - here[:, 0], q[:, 1] - here[:, 1]])
        step = torch.linalg.lstsq(slope, off[:, None], driver="gelsd").solution.view(3, 3)  # the scale stays: rank 8
        tried = matrix + step
        now = (projected(tried, p) - q).square().sum()
        if not bool(now < least):
            break
        matrix, least = tried / tried.norm(), now
    return matrix
