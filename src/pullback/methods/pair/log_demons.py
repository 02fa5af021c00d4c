"""Log-demons: a stationary velocity, driven by the difference of intensities and smoothed at each step.

Vercauteren, Pennec, Perchant, Ayache: Symmetric log-domain diffeomorphic registration: a demons-based approach (2008).
With `symmetric=False` it takes the steps of Lombaert's Matlab code (Diffeomorphic Log Demons, 2020), which Broken
Geodesics builds on. Decided here: of the symmetric step the terms of first order alone, as ITK does; images end with
their border value, where that code puts zeros around them; levels are as of all registers here.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair, one_by_one
from pullback.energies import ncc
from pullback.energies.similarity import masked_mean
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.metrics import Length, foreground
from pullback.numerics.integrate import exponential, midpoint
from pullback.numerics.sample import sample, voxels
from pullback.numerics.smooth import gaussian
from pullback.solvers import Levels, Stalled
from pullback.space import Affine, Displacement, Image, Transform, Velocity, resample
from pullback.stats import Stats

LONGEST = 0.5  # voxels of the small step that is squared
ALIKE = 0.3  # correlation of intensities below which their differences say little


@dataclass(frozen=True)
class LogDemons:
    """A register of two images whose intensities compare, by an exponential φ = exp(v).

    Each step adds a force to v. It is smoothed before it is added ("fluid"), and so is v after ("diffusion"), which
    keeps φ free of folds. No voxel is pushed by more than 1 / (2 `ratio`) voxels in a step. The answer is the v of the
    least mean squared difference on the last level; of `symmetric` demons, of the least mean of both ways.

    Attributes:
        fluid: sigma of the Gaussian that smooths the force, in voxels of the level; 0 leaves it as it is.
        diffusion: sigma of the one that smooths the velocity, in voxels of the level.
        ratio: σᵢ / σₓ, of noise and of uncertain correspondence; larger ones take smaller steps.
        symmetric: average the force with that of the reverse pair, so that images that are swapped have −v; else only
            the moving image is pulled, in half the time.
        levels: of resolution; at half of the full one, or less, where an image has more than a million voxels.
        iterations: at most, on each level.
        until: looks at the mean squared differences of the level so far and says whether to stop.

    Raises:
        InputError: a fluid below 0, a diffusion below half a voxel, a ratio not above 0, or no iterations.
    """

    fluid: float = 1.0
    diffusion: float = 1.0
    ratio: float = 1.0
    symmetric: bool = True
    levels: Levels = Levels(most=1_000_000)
    iterations: int = 250
    until: Callable[[Sequence[float]], bool] = Stalled()

    def __post_init__(self) -> None:
        if not (self.fluid >= 0 and self.ratio > 0 and self.iterations >= 1):
            raise InputError(
                f"LogDemons: a fluid of 0 or more, a ratio above 0 and one iteration or more expected, got "
                f"{self.fluid:g}, {self.ratio:g} and {self.iterations}"
            )
        if not self.diffusion >= LONGEST:
            raise InputError(
                f"LogDemons: a diffusion of {LONGEST} voxels or more expected, got {self.diffusion:g}: velocities that "
                "are smoothed less fold; for more detail, compose pieces (broken-geodesics)"
            )

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
        """Align two images, fixed → moving, from `start` or as the headers say; each pair of a batch by itself.

        The answer is start ∘ exp(v). The stats have the mean squared differences of all levels, and the length of v.
        Images whose intensities are hardly correlated where they begin are warned of.

        Raises:
            InputError: an image is constant where they overlap, or they do not.
        """
        return one_by_one(self._one, fixed, moving, start)

    @torch.no_grad()
    def _one(self, fixed: Image, moving: Image, start: Transform | None) -> Alignment:
        seen = Pair(fixed, on_fixed_grid(fixed, moving, start))
        check_comparable(seen)
        found, stats = None, Stats(start=start)
        for level in self.levels(seen):
            grid = level.fixed.grid
            begin = found.on(grid) if found else Velocity(Displacement.identity(grid, fixed.data).field, grid)
            found, descent = self._level(level, begin)
            stats = stats.then(descent)
        assert found is not None
        stats = replace(stats, numbers=Length()(Alignment(seen, found)))
        return Alignment(Pair(fixed, moving), found if start is None else start @ found, stats=stats)

    def _level(self, pair: Pair, start: Velocity) -> tuple[Velocity, Stats]:
        """Return the best velocity seen in the steps of one level, and how they went."""
        v, best, values = start.field, start.field, list[float]()
        stopped = "steps"
        for _ in range(self.iterations):
            force, value = self._force(pair, v)
            values.append(value)
            if value <= min(values):
                best = v
            if self.until(values):
                stopped = "converged"
                break
            v = gaussian(v + gaussian(force, self.fluid), self.diffusion)
        return replace(start, field=best), Stats(energies=torch.tensor(values), steps=len(values), stopped=stopped)

    def _force(self, pair: Pair, v: Tensor) -> tuple[Tensor, float]:
        """Return the force on a velocity, before it is smoothed, and the mean squared difference there."""
        squarings = enough_squarings(v)
        force, value = _pulled(pair.fixed, pair.moving, exponential(v, squarings, midpoint), self.ratio)
        if not self.symmetric:
            return force, value
        back, other = _pulled(pair.moving, pair.fixed, exponential(-v, squarings, midpoint), self.ratio)
        return (force - back) / 2, (value + other) / 2


def demons_force(still: Tensor, warped: Tensor, ratio: float = 1.0) -> Tensor:
    """Return the push by which a warped image comes nearer to one that is still, both `(1, C, *spatial)`.

    δ J / (|J|² + ratio² δ²), with δ the difference and J the gradient of the warped image; a mean over the channels,
    `(1, d, *spatial)` in voxels, nowhere longer than 1 / (2 ratio), and 0 where δ or J is 0. Vercauteren et al. 2008,
    eq. 4, with the gradient of the warped image, as in Thirion's symmetric and in Lombaert's forces.
    """
    spatial = tuple(range(2, still.ndim))
    slope = torch.stack(torch.gradient(warped, dim=spatial), 1)  # (1, d, C, *spatial) per voxel
    difference = (still - warped)[:, None]  # (1, 1, C, *spatial)
    square = slope.square().sum(1, keepdim=True) + (ratio * difference).square()
    return torch.where(square > 0, difference * slope / square, 0).mean(2)


def _pulled(still: Image, moving: Image, u: Tensor, ratio: float) -> tuple[Tensor, float]:
    """Return the force on `moving`, pulled by a displacement on one grid, and the mean squared difference."""
    where = voxels(still.grid.shape, u)[None] + u
    warped = sample(moving.data, where, padding="border")
    mask = still.mask
    if moving.mask is not None:
        inside = sample(moving.mask, where, "nearest")
        mask = inside if mask is None else mask & inside
    value = float(masked_mean((warped - still.data).square(), mask))
    force = demons_force(still.data, warped, ratio)
    return (force if mask is None else force * mask), value


def enough_squarings(velocity: Tensor) -> int:
    """Return the least number of squarings whose small step moves no voxel by more than half a voxel."""
    longest = float(velocity.square().sum(1).max().sqrt())
    return max(0, math.ceil(math.log2(longest / LONGEST))) if longest > LONGEST else 0


def on_fixed_grid(fixed: Image, moving: Image, start: Transform | None) -> Image:
    """Return the moving image as it lies on the fixed grid, with a mask of what is in view where it had to be moved."""
    if start is None and moving.grid == fixed.grid:
        return moving
    view = torch.ones_like(moving.data[:, :1], dtype=torch.bool) if moving.mask is None else moving.mask
    return resample(replace(moving, mask=view), fixed.grid, start or Affine.identity(fixed.grid.ndim))


def check_comparable(pair: Pair) -> None:
    """Refuse two images on one grid that have nothing to follow; warn of those whose intensities hardly compare.

    Raises:
        InputError: an image is constant where they overlap, or they do not.
    """
    alignment = Alignment(pair, Affine.identity(pair.fixed.grid.ndim))
    mask = alignment.mask
    if mask is not None and not mask.any():
        raise InputError("the images do not overlap where they begin: lay them on each other first (rigid, affine)")
    for side, image in (("fixed", pair.fixed), ("moving", pair.moving)):
        seen = image.data if mask is None else image.data[mask.expand_as(image.data)]
        if float(seen.min()) == float(seen.max()):
            raise InputError(f"the {side} image is constant where the images overlap: there is nothing to follow")
    inside = foreground(alignment) if mask is None else mask & foreground(alignment)
    correlation = float(ncc(pair.fixed.data, pair.moving.data, inside).mean())
    if correlation < ALIKE:
        warnings.warn(
            f"the images' intensities have a correlation of {correlation:.2f}, and demons follow their differences: "
            "of other contrasts, or of images that lie far apart, these say little. A velocity that local correlation "
            "drives does not need them (pullback register without --method; DeformableStage with LNCC)",
            UserWarning,
            stacklevel=2,
        )


METHOD = Method(
    about="a velocity driven by the difference of intensities and smoothed at each step; no training",
    aligns=("pair",),
    papers=(
        Paper(
            "vercauteren2008symmetric",
            "Vercauteren, Tom and Pennec, Xavier and Perchant, Aymeric and Ayache, Nicholas",
            "Symmetric Log-Domain Diffeomorphic Registration: A Demons-Based Approach",
            "Medical Image Computing and Computer-Assisted Intervention (MICCAI)",
            2008,
            "10.1007/978-3-540-85988-8_90",
            pages="754--761",
        ),
        Paper(
            "thirion1998image",
            "Thirion, Jean-Philippe",
            "Image matching as a diffusion process: an analogy with Maxwell's demons",
            "Medical Image Analysis",
            1998,
            "10.1016/S1361-8415(98)80022-4",
            "article",
            "2",
            "243--260",
        ),
    ),
    register=LogDemons(),
    solves=("identity", "shift", "smooth", "anisotropic", "thin", "batch"),
)
