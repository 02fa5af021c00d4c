"""Flows, composition, exponential and inversion of displacement fields, `(B, d, *spatial)` in voxels of one grid."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from pullback.numerics.recompute import checkpointed
from pullback.numerics.sample import sample, voxels

Moving = Callable[[float, Tensor], Tensor]
"""The right-hand side of a flow: the velocity field at time t, given the displacement of the flow so far."""
Scheme = Callable[[Moving, float, float, Tensor], tuple[Tensor, Tensor]]
"""One step in time of a flow: `scheme(velocity, t, step, u)` is the displacement after it, and the velocity it took."""
CHUNK = 2**20  # voxels at once, where each is found by itself


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """Return the displacement of `(id + outer) ∘ (id + inner)`; beyond its border `outer` repeats its border value."""
    where = voxels(tuple(inner.shape[2:]), inner) + inner
    return inner + sample(outer, where, padding="border")


def euler(velocity: Moving, t: float, step: float, u: Tensor) -> tuple[Tensor, Tensor]:
    """Step along the velocity at the beginning of the step: first order."""
    v = velocity(t, u)
    return u + step * _carried(v, u), v


def midpoint(velocity: Moving, t: float, step: float, u: Tensor) -> tuple[Tensor, Tensor]:
    """Step along the velocity half-way, in time and in space: second order, at twice the cost."""
    half = u + step / 2 * _carried(velocity(t, u), u)
    v = velocity(t + step / 2, half)
    return u + step * _carried(v, half), v


def flow(
    velocity: Moving, start: Tensor, steps: int, scheme: Scheme = midpoint, frugal: bool = True
) -> tuple[Tensor, Tensor]:
    """Integrate ∂φ/∂t = vₜ ∘ φ from time 0 to time 1 in equal steps; vₜ may depend on φ itself.

    Args:
        velocity: `velocity(t, u)` is vₜ on the grid, `(B, d, *spatial)` in voxels per unit of time; u is the
            displacement of φ so far. Beyond the border it is continued by its border value.
        start: the displacement at time 0.
        steps: number of steps.
        scheme: `euler` or `midpoint`.
        frugal: compute each step again for the gradient, so that only one displacement per step is kept.

    Returns:
        The displacement at time 1, and the velocities that the steps took, `(steps, B, d, *spatial)`.
    """
    u, seen = start, []
    for n in range(steps):
        step = partial(scheme, velocity, n / steps, 1 / steps)
        u, v = checkpointed(step, u) if frugal else step(u)
        seen.append(v)
    return u, torch.stack(seen)


def _carried(velocity: Tensor, u: Tensor) -> Tensor:
    """Return the velocity at x + u(x)."""
    return sample(velocity, voxels(tuple(u.shape[2:]), u) + u, padding="border")


def exponential(velocity: Tensor, squarings: int = 7, scheme: Scheme = euler) -> Tensor:
    """Return the displacement of the flow of a stationary velocity at time 1, by scaling and squaring.

    Arsigny et al. 2006; 7 squarings as in VoxelMorph (Dalca et al. 2018). The small flow that is squared is one step of
    `scheme`.
    """
    small = velocity / 2**squarings
    displacement = small
    if scheme is not euler:  # which, of one that is stationary, is just that
        displacement, _ = scheme(lambda *_: small, 0.0, 1.0, torch.zeros_like(small))
    for _ in range(squarings):
        displacement = compose(displacement, displacement)
    return displacement


def invert(displacement: Tensor, tolerance: float = 1e-3, iterations: int = 100) -> Tensor:
    """Return the displacement `w` with `(id + u) ∘ (id + w) = id`, by the fixed point `w ← −u(x + w)`.

    Chen et al. 2008. It converges where `u` is a contraction, and somewhat further, for steps are halved when the
    residual grows. Voxels whose residual does not exceed `tolerance` voxels are done, and the others go on; so many are
    looked at together as leave memory to others. Where `u` folds there is no inverse and the residual stays: measure it
    with `compose`.
    """
    inverse = -displacement.flatten(2)  # (B, d, N)
    shape = tuple(displacement.shape[2:])
    for some in torch.arange(inverse.shape[2], device=inverse.device).split(CHUNK):
        at = torch.stack(torch.unravel_index(some, shape)).to(inverse)[None]  # (1, d, n)
        inverse[..., some] = _inverted(displacement, at, inverse[..., some], tolerance, iterations)
    return inverse.reshape(displacement.shape)


def _inverted(displacement: Tensor, at: Tensor, inverse: Tensor, tolerance: float, iterations: int) -> Tensor:
    """Return the inverse at some voxels `(1, d, n)`, from a first guess `(B, d, n)`."""
    relaxation, last = 1.0, float("inf")
    left = torch.arange(at.shape[2], device=at.device)
    for _ in range(iterations):
        found = inverse[..., left]
        residual = found + sample(displacement, at[..., left] + found, padding="border")
        away = residual.abs().amax((0, 1))
        worst = float(away.max())
        if worst <= tolerance:
            break
        if worst > last:
            relaxation = max(relaxation / 2, 0.1)
        far = away > tolerance
        left, last = left[far], worst
        inverse[..., left] = found[..., far] - relaxation * residual[..., far]
    return inverse
