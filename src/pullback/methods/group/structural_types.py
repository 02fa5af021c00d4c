"""Structural types: whether a population is of one type, before it is registered to one template.

Kruggel: Distinct structural patterns of the human brain: a caveat for registration, WBIR 2022. Every person is a
partition of one surface or grid into regions, and perhaps a matrix of connections between these. Distances between
people become coordinates by ISOMAP, and a Gaussian mixture says how many types there are.

The paper is silent on the NMI, the neighbours, where the dimension is fitted, the scale of the two kinds of coordinates
to each other, and on what speaks for one type alone; it takes the silhouette, which cannot. Here the Bayesian
information criterion chooses, and more than one type is claimed only if a parametric bootstrap rejects a single one. It
draws people from one Gaussian in all dimensions of the distances, and goes through ISOMAP with them: shortest paths
bend even a single Gaussian so that mixtures of its coordinates find several.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.methods.group.embedding import Embedding, correlation_dimension, isomap, scaled
from pullback.methods.method import Method, Paper
from pullback.numerics.mixture import Gaussians, fitted_mixtures, silhouettes
from pullback.numerics.random import make_generator

FEWEST = 20
"""People, below whom no number of types is claimed."""
SURE = 50
"""People of each type, below whom a number of types means at least so many."""
LEVEL = 0.05
BOOTSTRAP_STARTS = 3  # of each mixture of a bootstrap, and of the one that it is compared with


@dataclass(frozen=True, eq=False)
class Typed:
    """The types that were found among n people.

    Attributes:
        embeddings: of each kind of distance.
        scores: coordinates of all kinds, `(n, D)` float64, each kind divided by the root of its total variance.
        dimension: correlation dimension of each kind of distance; None where it cannot be told.
        types: of each person, `(n,)` from 0 on, in order of the mean of the first score.
        membership: probability of each type, `(n, types)`.
        bic: Bayesian information criterion of each number of types, more is better; empty where people are too few.
        silhouette: mean silhouette coefficient of each number of types from 2 on, −1 … 1.
        p: of one type alone against two, by the bootstrap; None where `bic` chose one.
        distances: `(n, n)`, the mean of the kinds, each divided by its mean.
    """

    embeddings: tuple[Embedding, ...]
    scores: Tensor
    dimension: tuple[float | None, ...]
    types: Tensor
    membership: Tensor
    bic: Mapping[int, float]
    silhouette: Mapping[int, float]
    p: float | None
    distances: Tensor

    @property
    def count(self) -> int | None:
        """Number of types that is claimed; None where people are too few for any."""
        return self.membership.shape[1] if self.bic else None

    @property
    def by_bic(self) -> int | None:
        """Number of types that the information criterion alone chooses."""
        return max(self.bic, key=lambda k: self.bic[k]) if self.bic else None

    @property
    def by_silhouette(self) -> int | None:
        """Number of types that the silhouette alone chooses: never one."""
        return max(self.silhouette, key=lambda k: self.silhouette[k]) if self.silhouette else None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of people of each type."""
        return tuple(torch.bincount(self.types, minlength=self.membership.shape[1]).tolist())

    def typical(self, k: int | None = None) -> int:
        """Return who is nearest to all of type `k`, or of everybody: the template to take for them.

        Raises:
            InputError: there is no such type.
        """
        if k is not None and not 0 <= k < self.membership.shape[1]:
            raise InputError(f"types: there are types 0 … {self.membership.shape[1] - 1}, not {k}")
        who = torch.arange(len(self.types)) if k is None else (self.types == k).nonzero()[:, 0]
        return int(who[self.distances[who][:, who].sum(1).argmin()])

    @property
    def in_words(self) -> str:
        """The verdict in a sentence."""
        n = len(self.types)
        if self.count is None:
            return f"{n} people are too few to tell types apart: {FEWEST} or more are needed."
        if self.count == 1:
            rejected = "" if self.p is None else f", for the {self.by_bic} of the BIC are not sure (p = {self.p:.2g})"
            return f"One type of {n} people{rejected}."
        others = [self.count, *(() if self.by_silhouette is None else (self.by_silhouette,))]
        least = "At least " if min(self.sizes) < SURE or len({*others}) > 1 else ""
        told = "" if len({*others}) == 1 else f" ({others[0]} by the BIC, {others[1]} by the silhouette)"
        sizes = ", ".join(map(str, self.sizes))
        return f"{least}{min(others)} types of {n} people{told}; one alone has p = {self.p:.2g}; {sizes} of each."


@dataclass(frozen=True)
class Types:
    """The search for types among people, of whom distances are known.

    Attributes:
        dims: of the coordinates of each kind of distance; four in the paper.
        most: types that are tried.
        starts: of each mixture; the likeliest is kept.
        neighbours: of ISOMAP; None takes the fewest from 5 on that join all.
        samples: of the bootstrap; with fewer than 20 nothing is ever sure.
        seed: of all draws.

    Raises:
        InputError: a number below 1.
    """

    dims: int = 4
    most: int = 8
    starts: int = 20
    neighbours: int | None = None
    samples: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.dims, self.most, self.starts, self.samples) < 1 or self.seed < 0:
            raise InputError(f"Types: numbers from 1 on, and a seed from 0 on, expected, got {self}")

    def __call__(self, *distances: Tensor, regions: Tensor | None = None) -> Typed:
        """Return the types of people.

        Args:
            distances: `(n, n)`, of one kind or several: `structural`, `hellinger`.
            regions: how many of them each person has, `(n,)`. The sign of a dimension means nothing: it is chosen so
                that it grows with them.

        Raises:
            InputError: no distances, or of several sizes; or as of `isomap`.
        """
        if not distances or len({len(each) for each in distances}) > 1:
            raise InputError(f"Types: distances of the same people expected, got {[len(each) for each in distances]}")
        embeddings = tuple(_turned(isomap(each, self.dims, self.neighbours), regions) for each in distances)
        scores = _joined(embeddings)
        fits = self._fits(scores)
        bic = {k: float(fit.bic(scores[None])) for k, fit in fits.items()}
        found, p = max(bic, key=lambda k: bic[k], default=1), None
        if found > 1:
            p = self._alone(distances, scores)
            found = found if p < LEVEL else 1
        members = _members(fits[found], scores) if fits else torch.ones(len(scores), 1, dtype=torch.float64)
        return Typed(
            embeddings=embeddings,
            scores=scores,
            dimension=tuple(correlation_dimension(each) for each in distances),
            types=members.argmax(1),
            membership=members,
            bic=bic,
            silhouette=_silhouettes(fits, scores),
            p=p,
            distances=sum((each.double().cpu() / each.mean() for each in distances), torch.zeros(())) / len(distances),
        )

    def _fits(self, scores: Tensor) -> dict[int, Gaussians]:
        """Return mixtures of 1 … `most` types, as far as there are people for them; none of too few people."""
        n, d = scores.shape
        most = min(self.most, n // (d + 1)) if n >= FEWEST else 0
        return {
            k: fitted_mixtures(scores[None], k, self.starts, make_generator(self.seed, k)) for k in range(1, most + 1)
        }

    def _alone(self, distances: Sequence[Tensor], scores: Tensor) -> float:
        """Return p of one type, by the likelihood ratios of people drawn from a single Gaussian.

        McLachlan 1987, with the coordinates of classical scaling, all of them, as what the Gaussian is fitted to.
        """
        n, generator = len(scores), make_generator(self.seed, 0, 1)
        known = [torch.from_numpy(scaled(each.double().cpu().numpy())[0]) for each in distances]
        sets = [scores]
        for _ in range(self.samples):
            mixed = torch.randn(n, n, generator=generator, dtype=torch.float64) / (n - 1) ** 0.5
            drawn = [mixed @ each for each in known]
            apart = [torch.cdist(each, each, compute_mode="donot_use_mm_for_euclid_dist") for each in drawn]
            sets.append(_joined([isomap(each, self.dims, self.neighbours) for each in apart]))
        ratios = self._ratios(torch.stack(sets), generator)
        return float(1 + (ratios[1:] >= ratios[0]).sum()) / (1 + self.samples)

    def _ratios(self, sets: Tensor, generator: torch.Generator) -> Tensor:
        """Return log L of two Gaussians less that of one, of each of sets of points `(B, n, d)`: `(B,)`."""
        starts = min(self.starts, BOOTSTRAP_STARTS)
        one, two = (fitted_mixtures(sets, k, starts, generator).log_likelihood(sets) for k in (1, 2))
        return two - one


def _joined(embeddings: Sequence[Embedding]) -> Tensor:
    """Return the coordinates of all kinds beside each other, `(n, D)`, each kind of total variance 1."""
    return torch.cat([each.coordinates / each.coordinates.var(0).sum().sqrt() for each in embeddings], 1)


def _turned(found: Embedding, regions: Tensor | None) -> Embedding:
    """Return coordinates that grow with the number of regions, where that varies."""
    if regions is None:
        return found
    if len(regions) != len(found.coordinates):
        raise InputError(f"Types: {len(regions)} numbers of regions of {len(found.coordinates)} people")
    counts = regions.double().cpu()
    sign = torch.sign((counts - counts.mean()) @ found.coordinates)
    sign[sign == 0] = 1
    return Embedding(found.coordinates * sign, found.explained, found.neighbours, found.apart)


def _members(fit: Gaussians, scores: Tensor) -> Tensor:
    """Return the probabilities of the types, `(n, types)`, in order of the mean of the first score."""
    return fit.memberships(scores[None])[0][:, fit.means[0, :, 0].argsort(stable=True)]


def _silhouettes(fits: Mapping[int, Gaussians], scores: Tensor) -> dict[int, float]:
    """Return the mean coefficient of each number of types, where two types or more have people."""
    types = {k: fit.memberships(scores[None])[0].argmax(1) for k, fit in fits.items()}
    return {k: float(silhouettes(scores, each).mean()) for k, each in types.items() if len(each.unique()) > 1}


def variance(distances: Tensor, groups: Tensor | None = None) -> float:
    """Return the variance of people: the mean of their squared distances over all pairs.

    Args:
        distances: `(n, n)`.
        groups: `(n,)`; where given, only pairs within one group count.

    Raises:
        InputError: no pair.
    """
    n = len(distances)
    one, other = torch.triu_indices(n, n, 1)
    alike = torch.ones_like(one, dtype=torch.bool) if groups is None else groups[one] == groups[other]
    if not alike.any():
        raise InputError("variance: no two people of one group")
    return float(distances[one[alike], other[alike]].double().square().mean())


def removed(before: Tensor, after: Tensor, groups: Tensor | None = None) -> float:
    """Return the share of the variance that an alignment took away: 1 − V_after / V_before, below 0 where it adds.

    Raises:
        InputError: as of `variance`, or everybody was the same before.
    """
    start = variance(before, groups)
    if start == 0:
        raise InputError("removed: everybody was the same before, so that there was nothing to remove")
    return 1 - variance(after, groups) / start


def stage_numbers(
    found: Typed | None, distances: Tensor, before: Tensor, types: Tensor | None = None
) -> dict[str, float]:
    """Return what is told of a stage of registration: variance, what is removed, types and spectrum.

    Args:
        found: the types after it; None where they were not asked for.
        distances: after it.
        before: distances before any registration.
        types: within which pairs count, too; None leaves that out.
    """
    numbers: dict[str, float] = {}
    if found is not None:
        numbers |= {"people": len(distances), "variance": variance(distances), "removed": removed(before, distances)}
    if types is not None:
        within = {"variance within": variance(distances, types), "removed within": removed(before, distances, types)}
        numbers |= within
    if found is None:
        return numbers
    told = {"types": found.count, "by BIC": found.by_bic, "by silhouette": found.by_silhouette, "p of one": found.p}
    shares = {f"explained {d + 1}": float(share) for d, share in enumerate(found.embeddings[0].explained)}
    return numbers | {name: number for name, number in told.items() if number is not None} | shares


METHOD = Method(
    about="whether a population is of one type or of several, before it is registered to one template",
    aligns=("group",),
    papers=(
        Paper(
            "kruggel2022distinct",
            "Kruggel, Frithjof",
            "Distinct structural patterns of the human brain: a caveat for registration",
            "Workshop on Biomedical Image Registration (WBIR)",
            2022,
        ),
    ),
    commands=("subtypes --data DIR",),
)
