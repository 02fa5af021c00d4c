"""Images along a geodesic, shot from a scalar momentum: they flow, and where that is allowed intensity is added.

Trouvé & Younes: Metamorphoses through Lie group action, 2005; François et al.: Weighted Metamorphosis for registration
of images with different topologies, WBIR 2022. Scalar momenta are theirs, geodesics of velocities alone are
`pullback.space.Geodesic`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair
from pullback.energies import Energy
from pullback.errors import InputError
from pullback.numerics.difference import determinant, jacobian
from pullback.numerics.integrate import compose
from pullback.numerics.kernel import Gaussian, Kernel
from pullback.numerics.recompute import checkpointed
from pullback.numerics.sample import sample, voxels
from pullback.solvers import Descend, FusedAdam, Levels
from pullback.space import Affine, Displacement, Flow, Grid, Image, pull, resampled
from pullback.stats import Stats

KEPT = 4_000_000  # voxels of all steps, up to which nothing is computed again for the gradient
ADDED = 0.5  # of the image's range, that may be added where a voxel may move by one
FLAT = 1e-6  # of the steepest slope: what Adam takes for next to none


@dataclass(frozen=True, eq=False)
class Shot:
    """The path of an image I from a momentum p₀, in equal steps of time from 0 to 1; its parameter is p₀.

    1. v = −K(p ∇I), ∂p/∂t = −∇·(p v), ∂I/∂t = −⟨∇I, v⟩ + ν M p: eq. 4 of François et al. 2022 with p = ρ z / μ and
       ν = μ² / ρ. They enter by ν alone: a pair (μ, ρ) and (c μ, c² ρ) are one model.
    2. With φₜ the flow of v, pₜ = det(Dφₜ⁻¹) p₀∘φₜ⁻¹, for mass is kept, and Iₜ = I₀∘φₜ⁻¹ + Aₜ, where A flows with the
       image and gains ν M p. So the image is interpolated once, however many the steps.
    3. A step is φ⁻¹ ← φ⁻¹ ∘ (id − v/n), and A ← (A + ν M p / n) ∘ (id − v/n).
    4. H = ½⟨v, K⁻¹v⟩ + ½ν⟨p, M p⟩ is conserved where M does not change in time, and ½⟨v, K⁻¹v⟩ alone where ν is 0;
       else dH/dt = ½ν⟨p, ∂M/∂t p⟩.

    Attributes:
        momentum: p₀, `(1, C, *grid.shape)`; of C channels the velocity is of the sum.
        image: I₀, `(1, C, *grid.shape)`.
        weight: M, from 0 to 1, `(1, 1, *grid.shape)`, or for each step `(steps, 1, *grid.shape)`.
        addition: ν, 0 for a flow alone.
        kernel: K.
        steps: n.
        along: whether `kinetic` and `added` are means over the path; else they are those at its beginning.
    """

    momentum: Tensor
    image: Image
    weight: Tensor
    addition: float
    kernel: Kernel
    steps: int
    along: bool = True

    @property
    def grid(self) -> Grid:
        """The grid of the image."""
        return self.image.grid

    @property
    def params(self) -> tuple[Tensor, ...]:
        return (self.momentum,)

    def with_params(self, *params: Tensor) -> "Shot":
        return replace(self, momentum=params[0])

    def on(self, image: Image, weight: Tensor) -> "Shot":
        """Return the shot of the same momentum for the image, and its weight, on another grid."""
        p = Image(self.momentum, self.grid)
        momentum = p if image.grid == self.grid else pull(p, Affine.identity(self.grid.ndim), image.grid, outside=0.0)
        return replace(self, momentum=momentum.data, image=image, weight=weight)

    # ---- what it leads to

    @property
    def flow(self) -> Flow:
        """The transform φ₁⁻¹, which takes points of the end to points of the image, as a flow of one piece a step."""
        velocities, _, _, _ = self._end
        return Flow(-velocities.flatten(0, 1) / self.steps, self.grid, self.steps, squarings=0)

    @property
    def appearance(self) -> Tensor:
        """The intensity that was added, A₁, `(1, C, *grid.shape)`."""
        return self._end[2]

    @property
    def final(self) -> Image:
        """The end of the path, I₁; its mask is the image's, pulled."""
        _, displacement, added, _ = self._end
        moved = pull(self.image, Displacement(displacement, self.grid), onto=self.grid)
        return replace(moved, data=moved.data + added)

    @property
    def kinetic(self) -> Tensor:
        """The energy of the velocity, ½⟨v, K⁻¹v⟩, a mean over voxels, `()`, as `energies.Kinetic` has it."""
        return self._of_path(self.norms[0])

    @property
    def added(self) -> Tensor:
        """The energy of the addition, ½ν⟨p, M p⟩, a mean over voxels, `()`."""
        return self._of_path(self.norms[1])

    @property
    def norms(self) -> Tensor:
        """The energies ½⟨v, K⁻¹v⟩ and ½ν⟨p, M p⟩, means over voxels, at the beginning of each step, `(2, steps)`."""
        return self._end[3]

    def _of_path(self, by_step: Tensor) -> Tensor:
        return by_step.mean() if self.along else by_step[0]

    @torch.no_grad()
    def path(self) -> Iterator[tuple[Image, Tensor]]:
        """Yield the image that has flowed, and what was added to it, at the beginning and after each step."""
        u, added = self.beginning
        for n in range(self.steps + 1):
            yield pull(self.image, Displacement(u, self.grid), onto=self.grid), added
            if n < self.steps:
                u, added, *_ = self.step(n, u, added)

    # ---- step by step

    @property
    def beginning(self) -> tuple[Tensor, Tensor]:
        """The displacement and what was added at time 0: nothing."""
        data = self.image.data.detach()
        return data.new_zeros(1, self.grid.ndim, *self.grid.shape), torch.zeros_like(data)

    @cached_property
    def _end(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The velocities `(steps, 1, d, …)`, the displacement of φ₁⁻¹, A₁, and `norms`."""
        (u, added), seen = self.beginning, []
        frugal = self.steps * math.prod(self.grid.shape) > KEPT
        for n in range(self.steps):
            u, added, *more = checkpointed(partial(self.step, n), u, added) if frugal else self.step(n, u, added)
            seen.append(more)
        velocities, norms = (torch.stack(each) for each in zip(*seen, strict=True))
        return velocities, u, added, norms.mT

    def step(self, n: int, u: Tensor, added: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the displacement of φ⁻¹ and A after step n, its velocity, and both norms before it.

        Raises:
            InputError: a voxel moves by more than the image is long.
        """
        p, m = self.momenta(u, added)
        v = self.kernel.smooth(m, self.grid.spacing.tolist())
        new = self.addition * self.weight[n if len(self.weight) > 1 else 0] * p
        norms = torch.stack([(v * m).sum(1).mean(), (new * p).sum(1).mean()]) / 2
        back = -v / self.steps
        fastest = float(back.detach().abs().max())
        if not fastest <= max(self.grid.shape):  # nor is it NaN
            raise InputError(
                f"the image moves by {fastest:.3g} voxels in one of {self.steps} steps: take more steps in time, a "
                "wider kernel, or a descent of smaller steps"
            )
        if self.addition:
            added = sample(added + new / self.steps, voxels(self.grid.shape, u) + back)
        return compose(u, back), added, v, norms

    def momenta(self, u: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
        """Return p and the momentum of the velocity, −p ∇I summed over channels, after a flow with φ⁻¹ = id + u."""
        where = voxels(self.grid.shape, u) + u
        p = determinant(jacobian(u)) * sample(self.momentum, where)
        image = pull(replace(self.image, mask=None), Displacement(u, self.grid), onto=self.grid).data + added
        slopes = torch.stack(torch.gradient(image, dim=tuple(range(2, image.ndim))), 2)  # (1, C, d, …)
        return p, -(p[:, :, None] * slopes).sum(1)


@dataclass(frozen=True)
class Shooting:
    """The search for the momentum whose shot ends as the fixed image, coarse to fine.

    It descends J(p₀) = similarity(I₁, fixed) + λ H, with H as in `Shot`. Momenta have no unit by themselves, so the
    step of the descent is told in voxels: the rate of Adam is the one that moves the fastest voxel so far by its first
    step, or a smaller one where that would add more than half of the image's range for each voxel of it. What is
    found on one level begins the next; a last shot is on the grid itself.

    Attributes:
        kernel, addition, steps, along: as of `Shot`.
        similarity: of the image at the end of the path with the fixed one.
        penalty: λ.
        solver: on each level; its `step_size` is in voxels of the level, its optimiser is Adam.
        levels: of resolution; those with voxels longer than the kernel's narrowest width are left out.

    Raises:
        InputError: fewer steps than one, or an addition or a penalty below 0.
    """

    kernel: Gaussian
    addition: float
    steps: int
    along: bool
    similarity: Energy
    penalty: float
    solver: Descend
    levels: Levels

    def __post_init__(self) -> None:
        if self.steps < 1 or not (0 <= self.addition < math.inf and 0 <= self.penalty < math.inf):
            raise InputError(
                f"a path of one step or more, and an addition and a penalty of 0 or more, expected; got {self.steps}, "
                f"{self.addition:g} and {self.penalty:g}"
            )

    def __call__(self, fixed: Image, image: Image, weight: Tensor) -> tuple[Shot, Stats]:
        """Return the shot that was found, without gradient, and how.

        Args:
            fixed: one image; within its mask the two are compared.
            image: that is shot, on the same grid.
            weight: as of `Shot`, on that grid.

        Raises:
            InputError: the kernel is narrower than a voxel, or a step in time moves by more than the image is long.
        """
        shot, stats = self._begun(image, weight), Stats()
        for level in self._levels(fixed, image):
            spacing = level.fixed.grid.spacing.tolist()
            shot = shot.on(level.moving, resampled(Image(weight, fixed.grid), spacing).data)
            shot, descent = self._descended(level.fixed, shot)
            stats = stats.then(descent)
        with torch.no_grad():
            return shot.on(image, weight), stats

    def _begun(self, image: Image, weight: Tensor) -> Shot:
        nothing = torch.zeros_like(image.data)
        return Shot(nothing, image, weight, self.addition, self.kernel, self.steps, self.along)

    def _levels(self, fixed: Image, image: Image) -> list[Pair]:
        """Return the levels with voxels that the kernel is not narrower than."""
        width = self.kernel.sigma if isinstance(self.kernel.sigma, float | int) else min(self.kernel.sigma)
        edge = min(self.kernel.edges(fixed.grid.shape, fixed.grid.spacing.tolist()))
        if width < edge:
            raise InputError(
                f"a kernel of {width:g} is narrower than a voxel of {edge:g} ({self.kernel.unit}): take a wider one"
            )
        longest = width / edge * float(fixed.grid.spacing.min())  # mm
        every = list(self.levels(Pair(fixed, image)))
        return [level for level in every if float(level.fixed.grid.spacing.min()) <= longest] or every[-1:]

    def _descended(self, fixed: Image, start: Shot) -> tuple[Shot, Stats]:
        still = Affine.identity(fixed.grid.ndim)

        def objective(shot: Shot) -> Tensor:
            seen = Alignment(Pair(fixed, shot.final), still)
            return self.similarity(seen) + self.penalty * (shot.kinetic + shot.added)

        with torch.enable_grad():
            params = [start.momentum.detach().requires_grad_()]
            (slope,) = torch.autograd.grad(objective(start.with_params(*params)), params)
        flat = FLAT * float(slope.abs().max())
        if not flat:
            return start, Stats()
        rate = self._rate(start.with_params(slope / (slope.abs() + flat)))
        if not rate:  # no slope of the image is where the images differ
            return start, Stats()
        return replace(self.solver, step_size=rate, optimiser=partial(FusedAdam, eps=flat))(objective, start)

    @torch.no_grad()
    def _rate(self, first: Shot) -> float:
        """Return the rate of Adam whose first step moves or adds as much as it may; 0 where it does neither.

        Args:
            first: the shot of the step by a rate of 1.
        """
        p, momentum = first.momenta(*first.beginning)
        speed = self.kernel.smooth(momentum, first.grid.spacing.tolist()).norm(dim=1).max()
        gain = self.addition * (first.weight * p).abs().max()
        image = first.image.data
        most = self.solver.step_size * ADDED * (image.max() - image.min())
        limits = [limit / size for limit, size in ((self.solver.step_size, speed), (most, gain)) if size > 0]
        return float(min(limits, default=0.0))
