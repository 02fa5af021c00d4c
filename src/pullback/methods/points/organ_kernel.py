"""Gaussian processes of several organs: points of one move together, points of two as much as is said.

Joutard et al., WBIR 2022, eq. 3, 5 and 6. As printed the covariance is no covariance where two organs have different
bandwidths: with 20 and 30 mm it has negative eigenvalues. Here it is the one of Gibbs (1997), which is eq. 3 where
bandwidths are alike, as in all the paper's experiments, and positive semidefinite for all.

The paper is silent on points of no organ. A background with a coherence of its own would have to be nearly independent
of all, and then tears at each surface; so between organs the processes of all are averaged by their distance.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.numerics.graph import nearest
from pullback.numerics.lowrank import pivoted_cholesky
from pullback.space import Transform, short_repr

CHUNK = 4096  # points at once
PRECISE = 1e-6
"""Share of the variance that an inverse may leave out."""
NOISE = 1e-2
"""Deviation in mm within which an inverse meets the points."""


def squared(here: Tensor, there: Tensor) -> Tensor:
    """Return the squared distances `(n, m)` of points `(n, d)` and `(m, d)`, exact near the middle of `there`."""
    middle = there.mean(0) if len(there) else here.new_zeros(here.shape[1])
    one, two = here - middle, there - middle
    inner = torch.addmm(two.square().sum(1)[None], one, two.mT, alpha=-2)
    return inner.add_(one.square().sum(1)[:, None]).clamp_(min=0)


@dataclass(frozen=True, eq=False)
class OrganKernel:
    """The covariance of displacements, along each axis, between points of L organs.

    Attributes:
        coherence: `(L, L)`, S: how much two organs move as one, 0 … 1; 1 on the diagonal.
        bandwidth: `(L,)`, B in mm: how far motion reaches within an organ.
        magnitude: `(L,)`, Λ in mm: the deviation of a displacement along an axis.

    Raises:
        InputError: a coherence that is not symmetric, or that no organs can have together; a bandwidth that is not
            above 0 or a magnitude below 0.
    """

    coherence: Tensor
    bandwidth: Tensor
    magnitude: Tensor

    def __post_init__(self) -> None:
        if not bool((self.bandwidth > 0).all()) or not bool((self.magnitude >= 0).all()):
            raise InputError(
                f"bandwidths above 0 mm and magnitudes of 0 mm or more expected, got {self.bandwidth.tolist()} and "
                f"{self.magnitude.tolist()}; 30 and 10 are the paper's"
            )
        off = self.coherence - self.coherence.mT
        if bool((off.abs() > 1e-9).any()) or bool((self.coherence.diagonal() - 1).abs().max() > 1e-9):
            raise InputError(f"coherence: symmetric, with 1 on the diagonal, expected, got {self.coherence.tolist()}")
        values, vectors = torch.linalg.eigh(self.coherence)
        if values[0] < -1e-9:
            possible = vectors * values.clamp(min=0) @ vectors.mT
            scale = possible.diagonal().clamp(min=1e-12).rsqrt()
            wrong = (possible * scale * scale[:, None] - self.coherence).abs()
            one, other = divmod(int(wrong.argmax()), len(wrong))
            raise InputError(
                f"coherence: no organs can move so: the least eigenvalue is {float(values[0]):.2f}, and 0 or more is "
                f"needed. Furthest from what is possible are organs {one + 1} and {other + 1}, in the order of their "
                f"labels, with {float(self.coherence[one, other]):g}: who moves with a third also moves with the other"
            )

    def heights(self, ndim: int) -> tuple[Tensor, Tensor]:
        """Return covariances at one place, `(L, L)` mm², and the squared widths by which they fall, `(L, L)` mm²."""
        one, other = self.bandwidth[:, None], self.bandwidth[None]
        squared = one.square() + other.square()
        scale = self.magnitude[:, None] * self.magnitude[None] * (2 * one * other / squared) ** (ndim / 2)
        return scale * self.coherence, squared

    def of_one(self, points: Tensor, organ: int, there: Tensor, others: Tensor) -> Tensor:
        """Return the covariance `(n, m)` of points `(n, d)` of one organ with points `(m, d)` of organs `(m,)`."""
        height, width = (each[organ][others] for each in self.heights(points.shape[1]))
        return squared(points, there).div_(-width).exp_().mul_(height)

    def between(self, here: Tensor, organs: Tensor, there: Tensor, others: Tensor) -> Tensor:
        """Return the covariance `(n, m)` of points `(n, d)` and `(m, d)` of organs `(n,)` and `(m,)`."""
        found = here.new_empty(len(here), len(there))
        for organ in organs.unique().tolist():
            rows = organs == organ
            found[rows] = self.of_one(here[rows], organ, there, others)
        return found

    def factor(
        self, points: Tensor, organs: Tensor, tolerance: float, most: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return F and its pivots of the covariance of points among themselves, as of `pivoted_cholesky`."""

        def column(pivot: int) -> Tensor:
            one = slice(pivot, pivot + 1)
            return self.of_one(points[one], int(organs[pivot]), points, organs)[0]

        return pivoted_cholesky(self.magnitude[organs].square(), column, tolerance, most)


@dataclass(frozen=True, eq=False)
class OrganField(Transform):
    """The map φ(x) = x + v(x) of a displacement that is known at points of organs, as their processes continue it.

    Of a point whose organ is not known, v is the mean of what all organs would do there, by weights of distance:
    (δ² + h²)⁻², with δ the distance to an organ's points and h the mean gap between points. So it is smooth between
    organs, and changes within a gap where two of them touch.

    Attributes:
        kernel: the covariance.
        points: `(M, d)` mm, float64, of the organs' surfaces.
        organs: `(M,)`, indices of their organs in the kernel.
        pivots: `(r,)`, indices of the points that carry it.
        weights: `(r, d)`, theirs.
    """

    kernel: OrganKernel
    points: Tensor
    organs: Tensor
    pivots: Tensor
    weights: Tensor

    __repr__ = short_repr

    @classmethod
    def of(
        cls, kernel: OrganKernel, points: Tensor, organs: Tensor, factor: Tensor, pivots: Tensor, at: Tensor
    ) -> "OrganField":
        """Return the field whose displacement at the points is F · `at`, with F and pivots of `kernel.factor`.

        Args:
            at: `(r, d)`.
        """
        weights = torch.linalg.solve_triangular(factor[pivots].mT, at, upper=True)
        return cls(kernel, points, organs, pivots, weights)

    @property
    def ndim(self) -> int:
        return self.points.shape[1]

    @property
    def batch(self) -> int:
        return 1

    @property
    def params(self) -> tuple[Tensor, ...]:
        return (self.weights,)

    def with_params(self, *params: Tensor) -> "OrganField":
        (weights,) = params
        told = self.kernel.coherence, self.kernel.bandwidth, self.kernel.magnitude
        placed = OrganKernel(*(part.to(weights.device) for part in told))
        points, organs, pivots = (part.to(weights.device) for part in (self.points, self.organs, self.pivots))
        return OrganField(placed, points, organs, pivots, weights)

    def nth(self, n: int) -> "OrganField":
        return self

    @cached_property
    def gap(self) -> float:
        """The mean distance in mm of a point to the nearest other of its organ."""
        gaps = [nearest(each, each, 2)[0][:, 1] for each in self._surfaces if len(each) > 1]
        return float(torch.cat(gaps).mean()) if gaps else 1.0

    @property
    def _surfaces(self) -> list[Tensor]:
        return [self.points[self.organs == organ] for organ in range(len(self.kernel.bandwidth))]

    def displace(self, points: Tensor, organs: Tensor) -> Tensor:
        """Return the displacement in mm of points `(n, d)` that belong to organs `(n,)`: eq. 5."""
        there, others = self.points[self.pivots], self.organs[self.pivots]
        parts = zip(points.split(CHUNK), organs.split(CHUNK), strict=True)
        return torch.cat([self.kernel.between(*part, there, others) @ self.weights for part in parts])

    def at(self, where: Tensor) -> Tensor:
        flat = where.movedim(1, -1)
        points = flat.reshape(-1, self.ndim).to(self.weights)
        moved = torch.cat([self._blended(part) for part in points.split(CHUNK)]) if len(points) else points
        return where + moved.view(flat.shape).movedim(-1, 1).to(where)

    def _blended(self, points: Tensor) -> Tensor:
        """Return the displacement of points `(n, d)` of any organ or none."""
        processes, which = self._processes
        there, others = self.points[self.pivots], self.organs[self.pivots]
        heights = self.kernel.heights(self.ndim)[0]
        shares = self._shares(points) if len(processes) > 1 else None
        total = torch.zeros_like(points)
        for number, organ in enumerate(processes):
            near = heights[organ][others] != 0
            seen = self.kernel.of_one(points, organ, there[near], others[near]) @ self.weights[near]
            total = total + (seen if shares is None else shares[:, which == number].sum(1, keepdim=True) * seen)
        return total

    def _shares(self, points: Tensor) -> Tensor:
        """Return the weights `(n, L)` of all organs at points, 1 in sum."""
        far = [
            squared(points, each).amin(1) if len(each) else torch.full_like(points[:, 0], torch.inf)
            for each in self._surfaces
        ]
        weight = (torch.stack(far, 1) + self.gap**2) ** -2
        return weight / weight.sum(1, keepdim=True)

    @cached_property
    def _processes(self) -> tuple[list[int], Tensor]:
        """An organ of each process that differs from the others, and the process of each organ."""
        told = torch.cat([self.kernel.coherence, self.kernel.bandwidth[:, None], self.kernel.magnitude[:, None]], 1)
        which = told.unique(dim=0, return_inverse=True)[1]
        return [int((which == number).nonzero()[0]) for number in range(int(which.max()) + 1)], which

    def inverse(self) -> "OrganField":
        """Return the field that takes the organs' points back within 0.01 mm, and is near the inverse elsewhere."""
        back = -self.displace(self.points, self.organs)
        moved = self.points - back
        factor, pivots = self.kernel.factor(moved, self.organs, PRECISE)
        normal = factor.mT @ factor
        normal.diagonal().add_(NOISE**2)
        at = torch.linalg.solve(normal, factor.mT @ back)
        return OrganField.of(self.kernel, moved, self.organs, factor, pivots, at)
