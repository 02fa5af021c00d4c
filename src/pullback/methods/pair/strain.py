"""The comparison of a guess with its label, strains included: in H¹, where mean squares compare in L².

Networks that learn derivatives along with values are known from Czarnecki et al., Sobolev Training for Neural Networks,
2017, arXiv:1706.04859. What follows is why guidance wants them, in the linear order of one small update.

1. Let g be the slope of the energy at the guess u. Unsupervised training moves the guess by −Θ g. Θ is what the network
   makes of a wish: it answers long waves of the field sooner than short ones.
2. The label is ℓ = u − M g. Ten steps of Adam go nearly all the way to the minimum, so that M is about the inverse of
   the energy's curvature. The slope of ½‖u − ℓ‖² by u is M g, and the guess moves by −Θ M g.
3. The curvature of a similarity with a regularity grows with the square of the frequency, so M is small for short
   waves, as Θ is. What is fine is learned slowly twice, however good the label.
4. The slope of ½(‖u − ℓ‖² + γ Σₐ‖∂ₐ(u − ℓ)‖²) is (1 − γΔ) M g. A wave of frequency k counts 1 + γ|k|² times, which
   makes up for M from |k|² ≈ 1/γ on. The label is the same, and with it where the guess is led to.
5. What is noise in a label counts as much more. How much there is shows in the label: ρ = Σₐ‖∂ₐ(u − ℓ)‖² / ‖u − ℓ‖² is
   the Rayleigh quotient of −Δ, the mean of |k|² over the power of u − ℓ. With γ = κ/ρ strains count κ times what
   displacements do, be the label smooth or rough.

Fields are compared in voxels of the network's grid, along whose axes differences of neighbours are taken. So γ is in
voxels², and axes count alike whatever the edges of a voxel are: with voxels of 1 × 1 × 3 mm a wave across thick slices
counts as one in the plane with as many voxels a period, which is three times shorter in mm. The strain along an axis is
a length over a length and does not depend on the edges; the shear of axis a along axis b does, by their ratio.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.energies.regularity import roughness
from pullback.errors import InputError
from pullback.space import Dense


@dataclass(frozen=True)
class Relative:
    """The weight of strain γ = κ/ρ, of each pair by its own label.

    It depends on nothing but the guess and the label that are compared, so a run that is resumed and a batch know it.

    Attributes:
        factor: κ, how many times as much strains count as displacements do.

    Raises:
        InputError: a factor below 0.
    """

    factor: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.factor < math.inf:
            raise InputError(f"Relative: a factor of 0 or more, got {self.factor}")


@dataclass(frozen=True)
class Ramp:
    """A number that rises, or falls, with progress along a line from `start` to `end`."""

    start: float = 0.0
    end: float = 8.0

    def __call__(self, progress: float) -> float:
        return self.start + (self.end - self.start) * progress


Strain = float | Relative | Callable[[float], float]
"""The weight of strain γ, in voxels²: a number, `Relative` to the label's roughness, or a function of progress."""


def is_paced(strain: Strain) -> bool:
    """Return whether a weight of strain changes with progress."""
    return callable(strain)


def compared(
    guess: Dense, label: Dense, strain: Strain = 0.0, progress: float = 0.0, weight: float = 1.0
) -> dict[str, Tensor]:
    """Return the difference of two fields of one kind and grid, as losses by name.

    `guide` is the mean of (u − ℓ)² over voxels and components, in voxels². Where strain has a weight, `strain` is γ
    times the sum over axes of the mean squared differences of neighbours, and `weight/strain` tells γ; of a batch they
    are means over its pairs.

    Args:
        guess: learns.
        label: is a constant.
        strain: γ; 0 compares in L².
        progress: of the training, 0 → 1.
        weight: of the losses.

    Raises:
        InputError: a displacement against a velocity, another grid, or a weight of strain below 0.
    """
    if type(guess) is not type(label) or guess.grid != label.grid:
        kinds = " and ".join(f"{type(field).__name__} on {field.grid.shape}" for field in (guess, label))
        raise InputError(
            f"fields of one kind on one grid are compared, not {kinds}: let both networks predict the same"
        )
    off = guess.field - label.field
    guide = {"guide": weight * off.square().mean()}
    if isinstance(strain, float | int) and strain == 0:
        return guide
    rough = strains(off)
    gamma = _gamma(strain, off, rough, progress)
    return {**guide, "strain": weight * (gamma * rough).mean(), "weight/strain": gamma.mean()}


def strains(field: Tensor) -> Tensor:
    """Return Σₐ‖∂ₐu‖², a mean over voxels and components, of each of `(B, d, *spatial)`: `(B,)`."""
    return torch.stack([(field.ndim - 2) * roughness(one) for one in field.split(1)])


def rayleigh_quotient(field: Tensor) -> Tensor:
    """Return ρ = Σₐ‖∂ₐu‖² / ‖u‖² of each of `(B, d, *spatial)`, `(B,)` in voxels⁻²; 0 where there is no field."""
    return _quotient(field, strains(field))


def _quotient(field: Tensor, rough: Tensor) -> Tensor:
    return rough / field.square().flatten(1).mean(1).clamp(min=torch.finfo(field.dtype).tiny)


def _gamma(strain: Strain, off: Tensor, rough: Tensor, progress: float) -> Tensor:
    """Return the weight of strain of each pair, `(B,)`.

    ρ counts as no less than that of half a wave along the longest axis: what is smoother is a shift, but for rounding.
    """
    if isinstance(strain, Relative):
        longest = (math.pi / max(off.shape[2:])) ** 2
        return strain.factor / _quotient(off.detach(), rough.detach()).clamp(min=longest)
    gamma = strain(progress) if callable(strain) else float(strain)
    if not 0 <= gamma < math.inf:
        raise InputError(f"strain: a weight of 0 or more voxels², got {gamma}")
    return torch.full_like(rough.detach(), gamma)
