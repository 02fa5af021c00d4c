"""Mixtures of Gaussians by expectation-maximisation, many at once."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

AT_ONCE = 2**22  # numbers of the deviations of all points from all means, of the mixtures that are fitted together
LLOYD = 10  # steps of k-means from its seeds, before the first Gaussians
TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Gaussians:
    """A batch of B mixtures of K Gaussians with full covariances, in d dimensions.

    Attributes:
        weights: `(B, K)`, 1 in sum.
        means: `(B, K, d)`.
        covariances: `(B, K, d, d)`.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor

    def log_densities(self, points: Tensor) -> Tensor:
        """Return log(weight · density) of each Gaussian at points `(B, n, d)`: `(B, n, K)`."""
        root = torch.linalg.cholesky(self.covariances)
        off = (points[:, None] - self.means[:, :, None]).mT  # (B, K, d, n)
        scaled = torch.linalg.solve_triangular(root, off, upper=False).square().sum(2)
        half = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)  # of the log determinants
        constant = (self.weights + TINY).log() - half - 0.5 * points.shape[2] * math.log(2 * math.pi)
        return (constant[..., None] - 0.5 * scaled).mT

    def log_likelihood(self, points: Tensor) -> Tensor:
        """Return the log likelihood of points `(B, n, d)`, summed over them: `(B,)`."""
        return self.log_densities(points).logsumexp(2).sum(1)

    def memberships(self, points: Tensor) -> Tensor:
        """Return the probability that each Gaussian made each of points `(B, n, d)`: `(B, n, K)`."""
        return self.log_densities(points).softmax(2)

    def bic(self, points: Tensor) -> Tensor:
        """Return the Bayesian information criterion, more is better, `(B,)`: 2 log L − parameters · log n."""
        count, d = self.means.shape[1:]
        parameters = count - 1 + count * d + count * d * (d + 1) // 2
        return 2 * self.log_likelihood(points) - parameters * math.log(points.shape[1])

    def __getitem__(self, which: Tensor) -> "Gaussians":
        """Return some of the mixtures, by number or bool."""
        return Gaussians(self.weights[which], self.means[which], self.covariances[which])


def fitted_mixtures(
    points: Tensor,
    count: int,
    starts: int,
    generator: torch.Generator,
    floor: float = 1e-4,
    steps: int = 300,
    tolerance: float = 1e-5,
) -> Gaussians:
    """Fit a mixture of `count` Gaussians to each of B sets of points, from several starts, and keep the likeliest.

    A start is k-means from seeds that are drawn far from each other (Arthur & Vassilvitskii 2007).

    Args:
        points: `(B, n, d)` float64.
        count: of Gaussians.
        starts: of each mixture; one Gaussian needs none.
        generator: of the seeds.
        floor: share of the mean variance of a set along an axis, added to all variances.
        steps: most of them.
        tolerance: log likelihood by point, below whose gain a mixture is left as it is.

    Returns:
        B mixtures.
    """
    starts = starts if count > 1 else 1
    size = max(1, AT_ONCE // (points[0].numel() * count * starts))
    best = [_best(some, count, starts, generator, floor, steps, tolerance) for some in points.split(size)]
    return Gaussians(*(torch.cat([getattr(one, name) for one in best]) for name in ("weights", "means", "covariances")))


def _best(
    points: Tensor, count: int, starts: int, generator: torch.Generator, floor: float, steps: int, tolerance: float
) -> Gaussians:
    each = points.repeat_interleave(starts, 0)  # (B · starts, n, d)
    added = floor * each.var(1, correction=0).mean(1)
    found = maximised(each, _clusters(each, count, generator), added)
    likelihood = found.log_likelihood(each)
    going = torch.ones_like(likelihood, dtype=torch.bool)
    for _ in range(steps):
        some = found[going]
        some = maximised(each[going], some.memberships(each[going]), added[going])
        now = some.log_likelihood(each[going])
        gain = (now - likelihood[going]) / points.shape[1]
        for whole, part in zip(_parts(found), _parts(some), strict=True):
            whole[going] = part
        likelihood[going] = now
        going[going.clone()] = gain > tolerance
        if not going.any():
            break
    chosen = likelihood.view(len(points), starts).argmax(1)
    return found[torch.arange(len(points)) * starts + chosen]


def _parts(found: Gaussians) -> tuple[Tensor, Tensor, Tensor]:
    return found.weights, found.means, found.covariances


def maximised(points: Tensor, memberships: Tensor, added: Tensor) -> Gaussians:
    """Return the Gaussians of points `(B, n, d)` that belong to them as `(B, n, K)` says.

    Args:
        points: of each set.
        memberships: weights of the points.
        added: `(B,)`, to all variances.
    """
    total = memberships.sum(1) + TINY  # (B, K)
    means = memberships.mT @ points / total[..., None]
    off = points[:, None] - means[:, :, None]  # (B, K, n, d)
    covariances = (off * memberships.mT[..., None]).mT @ off / total[..., None, None]
    eye = torch.eye(points.shape[2], dtype=points.dtype, device=points.device)
    return Gaussians(total / total.sum(1, keepdim=True), means, covariances + added[:, None, None, None] * eye)


def _clusters(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return which of `count` clusters each point is in, by k-means, `(B, n, count)` of 0 and 1."""
    b, n, _ = points.shape
    which = torch.arange(b)
    seeds = points[which, torch.randint(n, (b,), generator=generator)][:, None]  # (B, 1, d)
    for _ in range(1, count):
        square = torch.cdist(points, seeds).amin(2).square() + TINY
        drawn = torch.multinomial(square.cpu(), 1, generator=generator)[:, 0].to(points.device)
        seeds = torch.cat([seeds, points[which, drawn][:, None]], 1)
    for _ in range(LLOYD):
        inside = torch.nn.functional.one_hot(torch.cdist(points, seeds).argmin(2), count).to(points)
        held = inside.sum(1)[..., None]
        seeds = torch.where(held > 0, inside.mT @ points / held.clamp(min=1), seeds)
    return torch.nn.functional.one_hot(torch.cdist(points, seeds).argmin(2), count).to(points)


def silhouettes(points: Tensor, clusters: Tensor) -> Tensor:
    """Return the silhouette coefficient of each point (Rousseeuw 1987), `(n,)`, −1 … 1; 0 of who is alone.

    Args:
        points: `(n, d)`.
        clusters: of each point, `(n,)` from 0 on.

    Raises:
        ValueError: fewer than two clusters.
    """
    inside = torch.nn.functional.one_hot(clusters).to(points)
    inside = inside[:, inside.any(0)]
    if inside.shape[1] < 2:
        raise ValueError(f"silhouettes: two clusters or more expected, got {inside.shape[1]}")
    sums, sizes = torch.cdist(points, points) @ inside, inside.sum(0)  # (n, K), (K,)
    own, held = (sums * inside).sum(1), inside @ sizes
    within = own / (held - 1).clamp(min=1)
    other = (sums / sizes).masked_fill(inside > 0, math.inf).amin(1)
    return torch.where(held > 1, (other - within) / torch.maximum(other, within).clamp(min=TINY), 0.0)


def adjusted_rand(one: Tensor, other: Tensor) -> float:
    """Return how alike two groupings of people are, `(n,)` each from 0 on (Hubert & Arabie 1985).

    1 of the same, about 0 of unrelated ones; 1, too, where neither parts anybody.
    """
    size = int(max(one.max(), other.max())) + 1
    table = torch.bincount(one * size + other, minlength=size * size).view(size, size).double()
    both, first, second = (float((t * (t - 1) / 2).sum()) for t in (table, table.sum(1), table.sum(0)))
    expected = first * second / max(len(one) * (len(one) - 1) / 2, 1)
    most = (first + second) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)
