"""Bayesian coherent point drift of labelled clouds: which points belong together, pose and shape, in turns.

Hirose, IEEE TPAMI 2021 (BCPD), with the labels of Joutard et al., WBIR 2022 (MO-BCPD), whose algorithm 1 the steps here
derive anew: each is the closed form that makes the evidence's lower bound greatest in one factor. With one organ, no
pose and without the posterior's variance it is CPD (Myronenko & Song 2010).

Silent there, and decided here: an outlier has the label of any moving point, by their shares, and lies anywhere in
their box. The terms of the posterior's variance are in, which BCPD's code leaves out by default.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.space import Affine

ENTRIES = 4_000_000  # of probabilities at once
LEAST = 1e-4  # mm, of the noise
POSES = ("similarity", "rigid", "none")


@dataclass(frozen=True, eq=False)
class LabelledClouds:
    """Two clouds of points of L organs, in mm about a common origin near both.

    Attributes:
        fixed: `(M, d)`, which are moved.
        organs: `(M,)`, the index of the organ of each.
        moving: `(N, d)`, which stay.
        labels: `(N,)`, the index of the label of each.
        confusion: `(L, L)`, U: the probability of a moving label (column) where the fixed point is of an organ (row).
        outside: `(L,)`, the density in mm⁻ᵈ of outliers of each label.
    """

    fixed: Tensor
    organs: Tensor
    moving: Tensor
    labels: Tensor
    confusion: Tensor
    outside: Tensor

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self.fixed.shape[1]

    @cached_property
    def blocks(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Indices of the fixed points that may have each label, its log probability there, and its moving points."""
        found = []
        for label in range(len(self.confusion)):
            likely = self.confusion[self.organs, label]
            rows = likely.nonzero()[:, 0]
            found.append((rows, likely[rows].log(), (self.labels == label).nonzero()[:, 0]))
        return found


@dataclass(frozen=True, eq=False)
class SimilarityPose:
    """The similarity x → s R x + t.

    Attributes:
        scale: s.
        rotation: `(d, d)`, R.
        shift: `(d,)`, t in mm.
    """

    scale: float
    rotation: Tensor
    shift: Tensor

    def __call__(self, points: Tensor) -> Tensor:
        return self.scale * points @ self.rotation.mT + self.shift

    def back(self, points: Tensor) -> Tensor:
        """Return where points come from."""
        return (points - self.shift) @ self.rotation / self.scale

    def about(self, centre: Tensor) -> Affine:
        """Return the map of the world whose origin lies `centre` mm from the pose's, as one matrix."""
        return Affine.about(self.scale * self.rotation, centre, centre + self.shift)


@dataclass(frozen=True, eq=False)
class Correspondence:
    """The probabilities that points belong together, summed up.

    Attributes:
        shares: `(M, L)`, of each fixed point with all moving points of each label.
        sent: `(M, d)`, the sum of the moving points, weighted by theirs.
        found: `(N,)`, of each moving point with all fixed ones: 1 less that of being an outlier.
        evidence: the log probability of the moving cloud.
    """

    shares: Tensor
    sent: Tensor
    found: Tensor
    evidence: float

    @cached_property
    def partners(self) -> Tensor:
        """The number of partners of each fixed point, `(M,)`."""
        return self.shares.sum(1)


@dataclass(frozen=True, eq=False)
class DriftState:
    """The state of a drift: what is known after a number of turns.

    Attributes:
        pose: of the fixed cloud, moved within, in the moving one.
        at: `(r, d)`, of the displacement F · at.
        displacement: `(M, d)` mm, before the pose.
        variance: `(M,)` mm², of the displacement along an axis, by the posterior.
        sigma: deviation in mm of a moving point from its partner, along an axis.
        chance: `(M,)`, the log of how likely each fixed point has a moving one, α.
        divergence: of the displacement's posterior from its prior, in nats; 0 before the first turn.
        met: which points belong together; None before the first turn.
        bound: the lower bound of the evidence with which the turn began, in nats, where all chances are alike.
    """

    pose: SimilarityPose
    at: Tensor
    displacement: Tensor
    variance: Tensor
    sigma: float
    chance: Tensor
    divergence: float = 0.0
    met: Correspondence | None = None
    bound: float = -math.inf


@dataclass(frozen=True)
class CoherentDrift:
    """The drift of a labelled cloud onto another.

    Attributes:
        pose: one of `POSES`: what comes after the displacement.
        outliers: ω, the share of moving points without a partner; 0 up to 1.
        start: γ, how wide it begins: σ as a share of the deviation between points of both clouds.
        posterior: count the variance of the displacement, also where the noise and the partners are found.
        concentration: κ, of the prior of how likely each fixed point has a partner; infinity has all alike.
        least_change: of σ in mm, in a turn; less ends it.
        turns: at most.

    Raises:
        InputError: a number out of its range, or a pose that is none of these.
    """

    pose: str = "similarity"
    outliers: float = 0.0
    start: float = 1.0
    posterior: bool = True
    concentration: float = math.inf
    least_change: float = 0.1
    turns: int = 200

    def __post_init__(self) -> None:
        if self.pose not in POSES:
            raise InputError(f"pose: {', '.join(POSES)} expected, got {self.pose!r}")
        if not 0 <= self.outliers < 1:
            raise InputError(f"outliers: a share of the moving points, 0 up to 1, expected, got {self.outliers:g}")
        if not (self.start > 0 and self.concentration > 0 and self.turns >= 1):
            raise InputError(
                f"start and concentration above 0 and one turn or more expected, got {self.start:g}, "
                f"{self.concentration:g} and {self.turns}"
            )

    def __call__(self, clouds: LabelledClouds, factor: Tensor, begin: DriftState) -> tuple[DriftState, list[float]]:
        """Return the state at the end, and σ in mm after each turn.

        Args:
            factor: F `(M, r)`, of the covariance of the fixed points' displacements, F Fᵀ in mm².
            begin: the state to go on from.
        """
        sigmas = [begin.sigma]
        for state in self.states(clouds, factor, begin):
            sigmas.append(state.sigma)
            if abs(sigmas[-1] - sigmas[-2]) < self.least_change or len(sigmas) > self.turns:
                break
        return state, sigmas[1:]

    def begin(self, clouds: LabelledClouds, factor: Tensor) -> DriftState:
        """Return the state before the first turn: nothing moves."""
        fixed, moving = clouds.fixed, clouds.moving
        spread = fixed.var(0, correction=0) + moving.var(0, correction=0) + (fixed.mean(0) - moving.mean(0)).square()
        still = SimilarityPose(1.0, torch.eye(clouds.ndim).to(fixed), torch.zeros_like(fixed[0]))
        chance = torch.full_like(fixed[:, 0], -math.log(len(fixed)))
        at = fixed.new_zeros(factor.shape[1], clouds.ndim)
        sigma = max(self.start * math.sqrt(float(spread.mean())), LEAST)
        return DriftState(still, at, torch.zeros_like(fixed), torch.zeros_like(chance), sigma, chance)

    def states(self, clouds: LabelledClouds, factor: Tensor, begin: DriftState) -> Iterator[DriftState]:
        """Yield the state after each turn, without end."""
        state = begin
        while True:
            met = self.corresponding(clouds, state)
            bound = met.evidence - state.divergence
            state = self._shaped(clouds, factor, replace(state, met=met, bound=bound), met)
            pose = state.pose if self.pose == "none" else self._posed(clouds, state, met)
            state = replace(state, pose=pose, sigma=self._noise(clouds, replace(state, pose=pose), met))
            yield state

    def corresponding(self, clouds: LabelledClouds, state: DriftState) -> Correspondence:
        """Return which points belong together: q(c, e), all in logarithms."""
        fixed, d, variance = clouds.fixed, clouds.ndim, state.sigma**2
        placed = state.pose(fixed + state.displacement)
        doubt = d * state.pose.scale**2 / (2 * variance) * state.variance if self.posterior else 0.0
        normal = d / 2 * math.log(2 * math.pi * variance)
        odds = math.log(self.outliers / (1 - self.outliers)) if self.outliers else -math.inf
        shares, sent = fixed.new_zeros(len(fixed), len(clouds.confusion)), torch.zeros_like(fixed)
        found, evidence = torch.zeros_like(clouds.moving[:, 0]), 0.0
        for label, (rows, likely, columns) in enumerate(clouds.blocks):
            height = ((state.chance - doubt)[rows] + likely)[:, None]
            alone = normal + odds + clouds.outside[label].log()
            for part in columns.split(max(1, ENTRIES // max(1, len(rows)))):
                there = clouds.moving[part]
                apart = torch.cdist(placed[rows], there, compute_mode="donot_use_mm_for_euclid_dist")
                weight = height - apart.square() / (2 * variance)  # (m, n)
                total = torch.logaddexp(weight.logsumexp(0), alone.expand(len(part)))
                known = total.isfinite()
                weight = (weight - total.where(known, 0.0)).exp()
                shares[rows, label] += weight.sum(1)
                sent[rows] += weight @ there
                found[part] = weight.sum(0)
                evidence += float((total[known] - normal).sum()) + len(part) * math.log1p(-self.outliers)
        return Correspondence(shares, sent, found, evidence)

    def _shaped(self, clouds: LabelledClouds, factor: Tensor, state: DriftState, met: Correspondence) -> DriftState:
        """Return the state with the displacement that its partners and the prior want: q(v, α)."""
        precision = state.pose.scale**2 / state.sigma**2
        partners = met.partners[:, None]
        target = met.sent / partners.clamp(min=1e-20)
        off = partners * (state.pose.back(target) - clouds.fixed)
        normal = precision * factor.mT @ (partners * factor)
        normal.diagonal().add_(1.0)
        root = torch.linalg.cholesky(normal)
        at = torch.cholesky_solve(precision * factor.mT @ off, root)
        variance, divergence = state.variance, float(at.square().sum()) / 2
        if self.posterior:
            variance = torch.linalg.solve_triangular(root, factor.mT, upper=False).square().sum(0)
            entropy = torch.cholesky_inverse(root).trace() - len(root) + 2 * root.diagonal().log().sum()
            divergence += clouds.ndim * float(entropy) / 2
        chance, total = state.chance, met.partners.sum()
        if self.concentration < math.inf:
            all_of_them = torch.digamma(self.concentration * len(clouds.fixed) + total)
            chance = torch.digamma(self.concentration + met.partners) - all_of_them
        moved = factor @ at
        return replace(state, at=at, displacement=moved, variance=variance, chance=chance, divergence=divergence)

    def _posed(self, clouds: LabelledClouds, state: DriftState, met: Correspondence) -> SimilarityPose:
        """Return the similarity or rigid map nearest to the partners: Procrustes, weighted."""
        partners, total = met.partners[:, None], met.partners.sum().clamp(min=1e-20)
        shaped = clouds.fixed + state.displacement
        middle, goal = (partners * shaped).sum(0) / total, met.sent.sum(0) / total
        off = shaped - middle
        left, _, right = torch.linalg.svd(met.sent.mT @ off / total)
        flip = torch.ones_like(middle)
        flip[-1] = torch.linalg.det(left @ right).sign()
        rotation = left * flip @ right
        scale = 1.0
        if self.pose == "similarity":
            own = (partners * off.square()).sum() / total + clouds.ndim * self._spread(state, met)
            along = (rotation * (met.sent.mT @ off / total)).sum()
            scale = float(along / own.clamp(min=1e-20))
        return SimilarityPose(scale, rotation, goal - scale * rotation @ middle)

    def _noise(self, clouds: LabelledClouds, state: DriftState, met: Correspondence) -> float:
        """Return σ in mm: how far partners are from each other, along an axis."""
        placed, total = state.pose(clouds.fixed + state.displacement), met.partners.sum().clamp(min=1e-20)
        middle = met.sent.sum(0) / total  # squares lose digits far from it
        here, there = placed - middle, clouds.moving - middle
        apart = (met.found[:, None] * there.square()).sum() + (met.partners[:, None] * here.square()).sum()
        apart = apart - 2 * (here * (met.sent - met.partners[:, None] * middle)).sum()
        variance = apart / (total * clouds.ndim) + state.pose.scale**2 * self._spread(state, met)
        return max(math.sqrt(max(float(variance), 0.0)), LEAST)

    def _spread(self, state: DriftState, met: Correspondence) -> Tensor:
        """Return the mean variance of the displacement over all partners, in mm²."""
        if not self.posterior:
            return state.variance.new_zeros(())
        return (met.partners * state.variance).sum() / met.partners.sum().clamp(min=1e-20)
