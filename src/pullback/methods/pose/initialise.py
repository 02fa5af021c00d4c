"""The initialisation of a registration: cheap guesses first, measured, and a global search where none is good."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from pullback.alignment import Alignment, Pair, one_by_one
from pullback.energies import NMI
from pullback.errors import InputError
from pullback.methods.method import Method
from pullback.methods.pose.cross_ngf import METHOD as CROSS_NGF, SMALL, CrossNGF
from pullback.numerics.random import make_generator
from pullback.numerics.rotation import uniform
from pullback.solvers import Converged, Descend, Levels, LinearStage, within_view
from pullback.solvers.initialise import centres, header, masses, moments
from pullback.solvers.rivals import Rivals, Standing
from pullback.space import Affine, Grid, Image, Motion, Transform
from pullback.stats import Stats

SIMILARITY = NMI()
AS_GOOD = 0.95  # of the best guess's gain over chance, from which an earlier guess is preferred
WHOLE = 2**31  # voxels: no level coarser than the first
Guess = Callable[[Image, Image], list[Affine]]


def from_header(fixed: Image, moving: Image) -> list[Affine]:
    return [header(fixed, moving)]


def from_centres(fixed: Image, moving: Image) -> list[Affine]:
    return [centres(fixed, moving)]


def from_masses(fixed: Image, moving: Image) -> list[Affine]:
    return [masses(fixed, moving)]


@dataclass(frozen=True, eq=False)
class _Begun:
    """A guess, and how it stands among its rivals."""

    origin: str
    transform: Affine
    standing: Standing


@dataclass(frozen=True)
class Initialise:
    """A register that tries cheap guesses, measures the best against its rivals, and if it fails searches globally.

    1. Each guess is improved by a short descent of a rigid `motion` by normalised mutual information at low resolution.
    2. Of several the best is taken by its gain over chance, the similarity that random rotations about the middle reach
       without it, weighted by the share of the smaller image that it explains: two edges that happen to meet in a
       corner are no alignment.
    3. Where it does not lead its rivals by enough, the search is asked.

    Attributes:
        guesses: by name, in the order in which they are preferred among equals.
        search: the global search; None does without.
        sure: lead over its rivals from which a guess is good enough.
        tried: number of guesses, the best as they are, that are improved; the first always is.
        random: number of random rotations that measure chance.
        least: share of the smaller image that must lie within the other for a guess to count.
        level: the resolution of all this.
        motion: of the short descent: `Motion.rigid`, or `Motion.translation` where nothing is turned.
        solver: the short descent, in voxels of the level.
        rivals: the test of the best guess.
        seed: of the random rotations.
    """

    guesses: tuple[tuple[str, Guess], ...] = (
        ("header", from_header),
        ("centres", from_centres),
        ("masses", from_masses),
        ("moments", moments),
    )
    search: CrossNGF | None = SMALL
    sure: float = 0.5
    tried: int = 4
    random: int = 24
    least: float = 0.25
    level: Levels = Levels(coarsest=24, most=30_000)
    motion: Callable[[Affine, Grid], Motion] = Motion.rigid
    solver: Descend = Descend(steps=40, step_size=0.5, until=Converged())
    rivals: Rivals = Rivals()
    seed: int = 0

    def __call__(self, fixed: Image, moving: Image) -> Alignment:
        """Return a rigid start, fixed → moving, for images with intensities 0 … 1; each pair of a batch by itself.

        Its stats hold the origin ("header", "centres", "masses", "moments" or "search") and the confidence: its lead
        over its rivals. Below `sure` it may be wrong.

        Raises:
            InputError: nowhere do the images share the least part of the smaller one.
        """
        return one_by_one(self._one, fixed, moving)

    def _one(self, fixed: Image, moving: Image, start: Transform | None) -> Alignment:
        coarse = list(self.level(Pair(fixed, moving)))[-1]
        seen = Pair(within_view(coarse.fixed), within_view(coarse.moving))
        best = self._measured(seen, self._guessed(fixed, moving))
        if self.search is not None and (best is None or best.standing.lead < self.sure):
            known = [] if best is None else [(best.origin, best.transform)]
            with contextlib.suppress(InputError):  # nowhere enough overlap to search: what is known remains
                found = self.search(fixed, moving).transform.as_affine
                known += [] if found is None else [("search", found)]
            best = self._measured(seen, known)
        if best is None:
            raise InputError(
                f"no start found: nowhere do the images share {self.least:.0%} of the smaller one; are they of the "
                f"same body part, and their voxel sizes in mm?"
            )
        stats = Stats(best.transform, best.origin, best.standing.lead)
        return Alignment(Pair(fixed, moving), best.transform, stats=stats)

    def _guessed(self, fixed: Image, moving: Image) -> list[tuple[str, Affine]]:
        guessed: list[tuple[str, Affine]] = []
        for name, guess in self.guesses:
            with contextlib.suppress(InputError):  # nothing stands out of the background: no masses, no moments
                guessed += [(name, affine) for affine in guess(fixed, moving)]
        return guessed

    def _measured(self, pair: Pair, guesses: list[tuple[str, Affine]]) -> "_Begun | None":
        """Return the best guess and how it stands."""
        best = self._best(pair, guesses)
        if best is None:
            return None
        return _Begun(*best, replace(self.rivals, seed=self.seed)(pair, best[1]))

    def _best(self, pair: Pair, guesses: list[tuple[str, Affine]]) -> tuple[str, Affine] | None:
        """Return the best guess: its origin and its transform."""
        tried = [(name, affine) for name, affine in guesses if self._overlap(pair, affine) >= self.least]
        if not tried:
            return None
        tried = self._promising(pair, tried)
        posed = LinearStage(self.motion, SIMILARITY, Levels(coarsest=WHOLE), self.solver)
        improved = ((name, posed(pair.fixed, pair.moving, affine).transform.as_affine) for name, affine in tried)
        moved = [(name, affine) for name, affine in improved if affine is not None]
        moved = [known for known in moved if self._overlap(pair, known[1]) >= self.least]  # none may slip away
        if not moved:
            return None
        if len(moved) == 1:
            return moved[0]
        scores = [self._score(pair, affine) for _, affine in moved]
        _, winner = moved[scores.index(max(scores))]
        turned = (Affine(winner.matrix @ turn.matrix) for turn in self._turns(pair.fixed))
        chance = torch.tensor([self._score(pair, affine) for affine in turned])
        shares = [self._overlap(pair, affine) for _, affine in moved]
        gains = [share * (score - float(chance.mean())) for share, score in zip(shares, scores, strict=True)]
        most = max(gains)
        first = next(n for n, gain in enumerate(gains) if gain >= most - (1 - AS_GOOD) * abs(most))
        return moved[first]

    def _promising(self, pair: Pair, guesses: list[tuple[str, Affine]]) -> list[tuple[str, Affine]]:
        """Return the preferred guess and the best as they are, in their order; of equal guesses, the first."""
        grid = pair.fixed.grid
        placed = [Grid(grid.shape, affine.matrix @ grid.affine) for _, affine in guesses]
        new = [guess for n, guess in enumerate(guesses) if placed[n] not in placed[:n]]
        scores = [self._score(pair, affine) for _, affine in new]
        least = sorted(scores, reverse=True)[: self.tried][-1]
        return [guess for n, guess in enumerate(new) if n == 0 or scores[n] >= least]

    def _score(self, pair: Pair, affine: Affine) -> float:
        return 1 - float(SIMILARITY(Alignment(pair, affine)))

    def _overlap(self, pair: Pair, affine: Affine) -> float:
        """Return the share of the smaller image, or mask, that lies in the other."""
        seen = Alignment(pair, affine).mask
        counts = [float(m.sum()) for m in (pair.fixed.mask, pair.moving.mask, seen) if m is not None]
        edges = [float(torch.linalg.det(image.grid.affine).abs()) for image in (pair.fixed, pair.moving)]
        return counts[2] * edges[0] / min(counts[0] * edges[0], counts[1] * edges[1])

    def _turns(self, image: Image) -> list[Affine]:
        """Return random rotations about the middle of the image."""
        rotations = uniform(image.grid.ndim, self.random, make_generator(self.seed))
        return [Affine.about(rotation, image.grid.centre) for rotation in rotations]


METHOD = Method(
    about="a rough rigid start: cheap guesses, measured, and a global search where none is good",
    aligns=("pose",),
    papers=CROSS_NGF.papers,
    register=Initialise(),
    solves=("identity", "shift", "rotation", "contrast", "mask", "anisotropic", "thin", "batch"),
)
