"""Rivals of a linear answer: the other ways in which two images may lie on each other, and its lead over them."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from pullback.alignment import Alignment, Pair
from pullback.energies import NMI
from pullback.errors import InputError
from pullback.numerics.random import make_generator
from pullback.numerics.rotation import of_vector, uniform
from pullback.numerics.smooth import gaussian
from pullback.solvers.descend import Descend
from pullback.solvers.initialise import foreground
from pullback.solvers.levels import Levels
from pullback.solvers.linear_stage import within_view
from pullback.space import Affine, Image, Motion, around, cropped, resampled

SIMILARITY = NMI()
BLUR = 1.0  # voxels, of the fixed image that is compared with itself: else no motion is as good as none, for its noise
AROUND = 2  # voxels about the foreground that are compared, so that outlines count
SHIFTS = (0.15, 0.3, 0.5)  # of the foreground's extent along an axis
PERIODS = 6  # at most
REPEATS = 0.2  # of the autocorrelation at rest: a peak from here on is a period
LEAST = 0.5  # of the answer's overlap: what has less gains nothing
STANDS_OUT = 5.0  # standard deviations of chance: a gain of so many leads nothing, whatever its rivals
BETTER = 1.15  # times the answer's gain: a rival, however alike
TINY = 1e-4  # of normalised mutual information: less gain is none
TILT = 35.0  # degrees
ANSWER, MIRROR, TURN, SHIFT = "answer", "mirror", "turn", "shift"


@dataclass(frozen=True, eq=False)
class Standing:
    """An answer's place among its rivals.

    Attributes:
        lead: the least over its rivals, −1 at least. 1 is what two images of one contrast have that lie on each other,
            at 0 a rival is as good as the answer, below 0 it is better. Infinite where there is no rival.
        held: what the answer gains, as a share of what it gains after a short descent: 1 on a peak.
        mirrored: what the best mirror image of the answer gains, as a share of the answer's gain.
        rival: that of the least lead, fixed → moving; None where there is none.
    """

    lead: float
    held: float
    mirrored: float
    rival: Affine | None


@dataclass(frozen=True)
class Rivals:
    """A test of a linear answer against the other ways in which the same two images may lie on each other.

    1. Rivals are the answer after motions of the fixed world: random turns, half turns and tilts about the middle of
       the foreground, shifts along the axes of the grid, and the periods of the fixed image. Mirror images are counted
       apart, for people are nearly symmetric.
    2. The gain of each is its normalised mutual information over chance, by the share of the answer's overlap that it
       keeps. Chance is the median over turns, or over shifts, by whichever the fixed image is less alike to itself:
       turns change nothing of what is round, shifts nothing of what is even.
    3. The likeness of the fixed image to itself after a motion is measured in the same way, as a share of that without
       motion. A motion that hardly changes it makes no rival, unless it gains much more. The lead over any other is
       (1 − its share of the answer's gain) / (1 − likeness).
    4. Nor does the answer lead by more than what stands out of chance: 1 − 5 σ / gain, where σ is that of the
       gains of turns and shifts less what their likeness explains.
    5. Unless the lead is clear, the answer and the best rival of each kind descend shortly before they are compared,
       and so does a mirror image that comes near.

    Attributes:
        turns: number of random ones.
        level: the resolution of all this.
        descent: of the answer and its best rivals, in voxels of the level.
        alike: likeness from which a motion changes nothing.
        clear: lead from which nothing descends.
        near: share of the answer's gain from which a mirror image descends.
        seed: of the random turns.
    """

    turns: int = 24
    level: Levels = Levels(coarsest=16, most=20_000)
    descent: Descend = Descend(steps=16, step_size=0.5, last=0.2)
    alike: float = 0.75
    clear: float = 0.6
    near: float = 0.5
    seed: int = 0

    @torch.no_grad()
    def __call__(self, pair: Pair, answer: Affine) -> Standing:
        """Return how `answer`, fixed → moving, stands, for one pair of images with intensities 0 … 1.

        They are compared near what stands out of the fixed image, within the masks. Where they do not overlap all
        numbers are 0.
        """
        both, itself = self._compared(pair)
        fixed = both.fixed
        kinds, motions = self._motions(fixed)
        seen, own = _seen(both, answer.matrix @ motions), _seen(itself, motions)
        if not seen[0][0]:
            return Standing(0.0, 0.0, 0.0, None)
        chance, own_chance = _chances(kinds, seen, own)
        first = _Contest(
            kinds, answer.matrix @ motions, _gains(seen, chance), _likeness(own, own, own_chance), self.alike
        )
        chosen = first.chosen(self.clear, self.near)
        if not chosen:
            return first.standing(1.0)
        starts = first.matrices[[0, *chosen]]
        ends = self._descended(both, starts)
        after, before = _gains(_seen(both, ends), chance, float(seen[0][0])), first.gains[[0, *chosen]]
        ends, after = torch.where((after > before)[:, None, None], ends, starts), after.maximum(before)
        alike = _likeness(_seen(itself, torch.linalg.inv(ends[0]) @ ends), own, own_chance)
        return first.then(chosen, ends, after, alike).standing(float(before[0] / after[0].clamp(min=TINY)))

    def _compared(self, pair: Pair) -> tuple[Pair, Pair]:
        """Return the pair, and the fixed image with itself: coarse, the fixed one cut to what is compared, its mask."""
        lit, view = _foreground(pair.fixed), _view(pair.fixed)
        margin = 2 * AROUND * float(pair.fixed.grid.spacing.min())
        part = around(lit, pair.fixed.grid, margin)
        spacing = self.level.of(cropped(pair.fixed, part).grid)[-1]
        shown, seen = (resampled(cropped(replace(pair.fixed, mask=mask), part), spacing) for mask in (lit, view))
        assert shown.mask is not None
        assert seen.mask is not None
        near = seen.mask & (_greatest(shown.mask.to(shown.data), AROUND) > 0)
        fixed = replace(seen, mask=near if near.any() else seen.mask)
        other = resampled(replace(pair.fixed, mask=None), spacing)
        moving = resampled(pair.moving, [max(edge, min(spacing)) for edge in pair.moving.grid.spacing.tolist()])
        itself = Image(gaussian(other.data, BLUR), other.grid)
        return Pair(fixed, within_view(moving)), Pair(fixed, within_view(itself))

    def _motions(self, fixed: Image) -> tuple[list[str], Tensor]:
        """Return motions of the fixed world, `(N, d+1, d+1)`, the first of them none, and the kind of each."""
        d, grid = fixed.grid.ndim, fixed.grid
        assert fixed.mask is not None
        points = grid.to_world(fixed.mask[0, 0].nonzero().T.double().cpu()[None])[0]  # (d, N)
        middle, axes = points.mean(1), (grid.affine[:-1, :-1] / grid.spacing).cpu()
        mirrors = [torch.eye(d, dtype=torch.float64) - 2 * torch.outer(axis, axis) for axis in axes.T]
        turned = torch.eye(1 if d == 2 else 3, dtype=torch.float64) * math.radians(TILT)
        tilts = axes @ of_vector(torch.cat([turned, -turned])) @ torch.linalg.inv(axes)
        along = (axes.T @ points).sort(1).values
        ends = [round(share * (along.shape[1] - 1)) for share in (0.02, 0.98)]
        extents = torch.diag(along[:, ends[1]] - along[:, ends[0]]) @ axes.T  # (d, d), one a row
        motions = {
            ANSWER: torch.eye(d + 1, dtype=torch.float64)[None],
            TURN: _about(uniform(d, self.turns, make_generator(self.seed)), middle),
            "half turn": _about([a @ b for a, b in itertools.combinations(mirrors, 2)], middle),
            "tilt": _about(tilts, middle),
            SHIFT: _shifts(torch.cat([sign * share * extents for share in SHIFTS for sign in (1, -1)])),
            "period": _shifts(periods(fixed)),
            MIRROR: _about(mirrors, middle),
        }
        return [kind for kind, some in motions.items() for _ in some], torch.cat(list(motions.values()))

    def _descended(self, pair: Pair, matrices: Tensor) -> Tensor:
        """Return maps `(N, d+1, d+1)` after a rigid descent of each."""
        solver = replace(self.descent, step_size=self.descent.step_size * float(pair.fixed.grid.spacing.min()))
        start = Motion.rigid(Affine(matrices), pair.fixed.grid)
        found, _ = solver(lambda motion: -SIMILARITY.each(Alignment(pair, motion)).sum(), start)
        return found.matrix


@dataclass(frozen=True, eq=False)
class _Contest:
    """An answer, the first, and others.

    Attributes:
        kinds: of each.
        matrices: `(N, d+1, d+1)`, fixed → moving.
        gains: `(N,)`.
        likeness: `(N,)`, of the fixed image to itself when it is moved from the answer to each.
        alike: likeness from which two are the same.
    """

    kinds: Sequence[str]
    matrices: Tensor
    gains: Tensor
    likeness: Tensor
    alike: float

    @property
    def by_luck(self) -> float:
        """The lead over a gain of `STANDS_OUT` standard deviations of chance.

        These are of the gains of turns and shifts less what their likeness explains, by median absolute deviation.
        """
        these = torch.tensor([kind in (TURN, SHIFT) for kind in self.kinds])
        left = (self.gains - self.gains[0] * self.likeness)[these]
        spread = 1.4826 * float((left - left.median()).abs().median())
        return 1 - STANDS_OUT * spread / float(self.gains[0].clamp(min=TINY))

    @property
    def leads(self) -> Tensor:
        """The leads over each, `(N,)`; infinite over what is no rival."""
        share = self.gains / self.gains[0].clamp(min=TINY)
        differs = (self.likeness < self.alike) | (share > BETTER)
        rival = torch.tensor([kind not in (ANSWER, MIRROR) for kind in self.kinds]) & differs
        lost = (self.gains[0] - self.gains) / self.gains[0].clamp(min=TINY)
        lead = lost / (1 - self.likeness).clamp(min=1 - self.alike)
        return lead.clamp(min=-1).where(rival, math.inf)

    @property
    def shares(self) -> Tensor:
        """The shares of the answer's gain, `(N,)`; −infinite but for mirror images."""
        mirror = torch.tensor([kind == MIRROR for kind in self.kinds])
        return (self.gains / self.gains[0].clamp(min=TINY)).where(mirror, -math.inf)

    def chosen(self, clear: float, near: float) -> list[int]:
        """Return the best of each kind, where the lead over it is less than `clear` or a mirror image comes near."""
        best = []
        for kind in dict.fromkeys(self.kinds):
            these = [n for n, one in enumerate(self.kinds) if one == kind]
            best += [min(these, key=lambda n: float(self.leads[n]))] if kind != MIRROR else []
        chosen = [n for n in best if self.leads[n] < clear]
        return chosen + ([int(self.shares.argmax())] if self.shares.max() >= near else [])

    def then(self, chosen: list[int], matrices: Tensor, gains: Tensor, likeness: Tensor) -> "_Contest":
        """Return the contest when the answer and the chosen have descended; the others stay as they are."""
        return _Contest(
            [*self.kinds, *(self.kinds[n] for n in chosen)],
            torch.cat([matrices[:1], self.matrices[1:], matrices[1:]]),
            torch.cat([gains[:1], self.gains[1:], gains[1:]]),
            torch.cat([likeness[:1], self.likeness[1:], likeness[1:]]),
            self.alike,
        )

    def standing(self, held: float) -> Standing:
        leads = self.leads
        nearest = None if leads.min() == math.inf else Affine(self.matrices[int(leads.argmin())])
        lead = max(min(float(leads.min()), self.by_luck), -1.0)
        return Standing(lead, max(held, 0.0), max(float(self.shares.max()), 0.0), nearest)


def _seen(pair: Pair, matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return the share of the fixed mask that is in view, and the mutual information there, `(N,)` each."""
    found = Alignment(pair, Affine(matrices))
    assert found.mask is not None
    assert pair.fixed.mask is not None
    return (found.mask.flatten(1).sum(1) / pair.fixed.mask.sum()).double().cpu(), SIMILARITY.each(found).double().cpu()


def _chances(kinds: Sequence[str], seen: tuple[Tensor, Tensor], own: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Return the information by chance, of the pair and of the fixed image with itself."""
    medians = []
    for kind in (TURN, SHIFT):
        of_kind = torch.tensor([one == kind for one in kinds])
        fair = [of_kind & (overlap >= LEAST * overlap[0]) for overlap, _ in (own, seen)]
        fair = [one if one.any() else of_kind for one in fair]
        medians.append([float(shared[one].median()) for (_, shared), one in zip((own, seen), fair, strict=True)])
    own_chance, chance = min(medians)
    return chance, own_chance


def _gains(seen: tuple[Tensor, Tensor], chance: float, whole: float | None = None) -> Tensor:
    """Return gains over chance, `(N,)`, by the share of the overlap `whole`, by default the first's."""
    overlap, shared = seen
    share = overlap / (overlap[0] if whole is None else whole)
    return ((shared - chance) * share.clamp(max=1)).where(share >= LEAST, 0)


def _likeness(seen: tuple[Tensor, Tensor], rest: tuple[Tensor, Tensor], chance: float) -> Tensor:
    """Return the gains of the fixed image with itself, `(N,)`, as shares of that at rest."""
    most = _gains(rest, chance)[0]
    return _gains(seen, chance, float(rest[0][0])) / most.clamp(min=TINY)


def _about(linear: Tensor | Sequence[Tensor], middle: Tensor) -> Tensor:
    return torch.stack([Affine.about(one, middle).matrix for one in linear])


def _shifts(steps: Tensor) -> Tensor:
    """Return shifts `(N, d)` as matrices."""
    matrices = torch.eye(steps.shape[1] + 1, dtype=torch.float64).repeat(len(steps), 1, 1)
    matrices[:, :-1, -1] = steps
    return matrices


def periods(fixed: Image) -> Tensor:
    """Return the shifts, `(K, d)` in mm, after which an image is most alike to itself within its mask.

    These are the peaks of its normalised autocorrelation but for that at rest, the high and near ones first,
    `PERIODS` at most.
    """
    grid, axes = fixed.grid, tuple(range(2, fixed.data.ndim))
    inside = torch.ones_like(fixed.data[:, :1]) if fixed.mask is None else fixed.mask.to(fixed.data)
    data = fixed.data.mean(1, keepdim=True)
    data = (data - (data * inside).sum() / inside.sum()) * inside
    padded = [2 * n for n in grid.shape]
    spectra = (torch.fft.rfftn(part, s=padded, dim=axes) for part in (data, inside))
    products, counts = (torch.fft.irfftn(one.abs().square(), s=padded, dim=axes) for one in spectra)
    found = torch.fft.fftshift(products / counts.clamp(min=0.25 * float(counts.max())), axes)
    products = torch.fft.fftshift(products, axes)  # which fall with the distance
    peak = (found == _greatest(found, 1)) & (found > REPEATS * found[(0, 0, *grid.shape)])
    heights, where = products[peak], peak[0, 0].nonzero() - torch.tensor(grid.shape, device=peak.device)
    order = heights.argsort(descending=True, stable=True)[: PERIODS + 1]
    steps = _refined(found[0, 0], where[order], grid.shape)
    return steps[where[order].abs().sum(1).cpu() > 0][:PERIODS] @ grid.affine[:-1, :-1].T.cpu()


def _refined(values: Tensor, where: Tensor, middle: Sequence[int]) -> Tensor:
    """Return peaks, `(K, d)` in voxels about `middle`, moved to the tops of the parabolas along each axis."""
    refined = where.double().cpu()
    for k, peak in enumerate((where + torch.tensor(middle, device=where.device)).tolist()):
        for axis, at in enumerate(peak):
            line = values[tuple(slice(None) if n == axis else p for n, p in enumerate(peak))]
            before, top, after = (float(line[(at + step) % len(line)]) for step in (-1, 0, 1))
            bend = 2 * top - before - after
            refined[k, axis] += 0.5 * (after - before) / bend if bend > 0 else 0.0
    return refined


def _view(image: Image) -> Tensor:
    return torch.ones_like(image.data[:, :1], dtype=torch.bool) if image.mask is None else image.mask


def _foreground(image: Image) -> Tensor:
    """Return what stands out of the background, `(1, 1, *spatial)` bool; all that is seen where nothing does."""
    try:
        lit = (foreground(image) > 0)[None, None]
    except InputError:
        return _view(image)
    return lit if lit.any() else _view(image)


def _greatest(values: Tensor, reach: int) -> Tensor:
    """Return the greatest value within `reach` voxels of each, along every axis."""
    pool = functional.max_pool2d if values.ndim == 4 else functional.max_pool3d
    return pool(values, 2 * reach + 1, 1, reach)
