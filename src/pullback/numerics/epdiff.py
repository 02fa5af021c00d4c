"""Geodesic shooting: EPDiff, solved by transporting the initial momentum along the flow."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pullback.numerics.difference import cofactors, determinant, jacobian
from pullback.numerics.integrate import Scheme, flow, midpoint
from pullback.numerics.kernel import Kernel
from pullback.numerics.sample import scatter, voxels

FLATTEST = 0.01  # det Dφ, below which a flow is lost whatever is done


def carried(momentum: Tensor, displacement: Tensor) -> Tensor:
    """Carry a momentum, which is dual to velocities, along φ = id + u: the coadjoint action Ad*.

    m ↦ det(Dφ⁻¹) (Dφ⁻¹)ᵀ m ∘ φ⁻¹, without the inverse: each voxel's share (Dφ)⁻ᵀ m is laid down where φ puts it. So m,
    which may be as rough as noise, is never interpolated; only velocities are, and these are smooth.

    Args:
        momentum: `(B, d, *spatial)`, covectors per voxel.
        displacement: `(B, d, *spatial)` in voxels.
    """
    slopes = jacobian(displacement)
    share = (cofactors(slopes) * momentum[:, None]).sum(2) / determinant(slopes).clamp(min=FLATTEST)
    shape = tuple(momentum.shape[2:])
    return scatter(share, voxels(shape, displacement) + displacement, shape)


def shoot(
    velocity: Tensor,
    kernel: Kernel,
    spacing: Sequence[float],
    steps: int = 10,
    scheme: Scheme = midpoint,
    frugal: bool = True,
) -> tuple[Tensor, Tensor]:
    """Compute the geodesic that begins with `velocity`: ∂φ/∂t = vₜ ∘ φ with vₜ = K Ad*φ K⁻¹ v₀, from φ = id to time 1.

    Miller, Trouvé & Younes 2006: along a geodesic the momentum is conserved, which is EPDiff integrated once. So the
    momentum, with its many derivatives, is never differentiated. ⟨vₜ, K⁻¹ vₜ⟩ is conserved, but for the loss by linear
    interpolation: for a wave of k radians per voxel up to k²/4 of its square, along each axis.

    Args:
        velocity: v₀, `(B, d, *spatial)` in voxels per unit of time.
        kernel: K.
        spacing: edges of a voxel in mm.
        steps: number of steps in time.
        scheme: `midpoint`, or `euler`.
        frugal: as in `flow`.

    Returns:
        The velocities of the steps, `(steps, B, d, *spatial)`, and the displacement of φ at time 1.
    """
    momentum = kernel.sharpen(velocity, spacing)

    def at(t: float, u: Tensor) -> Tensor:
        return kernel.smooth(carried(momentum, u), spacing)

    u, velocities = flow(at, torch.zeros_like(velocity), steps, scheme, frugal)
    return velocities, u


def transported(velocity: Tensor, displacement: Tensor, kernel: Kernel, spacing: Sequence[float]) -> Tensor:
    """Return K Ad*φ K⁻¹ v₀: the velocity that the geodesic of v₀ has when its flow is φ = id + u."""
    return kernel.smooth(carried(kernel.sharpen(velocity, spacing), displacement), spacing)
