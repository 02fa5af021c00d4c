"""Kernels K that smooth a momentum into its velocity, and so define an inner product of velocities, ⟨v, K⁻¹ v⟩."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.numerics.sine import by_mode, eigenvalues
from pullback.numerics.smooth import gaussian_sum

UNITS = ("voxel", "mm", "side")
REACH = 9  # widths of a Gaussian, beyond which double precision holds nothing of it: cut there it stays positive
TOLERANCE = 1e-5  # of what conjugate gradients leave over
ITERATIONS = 2000


class Kernel(ABC):
    """A symmetric positive operator K from momenta to velocities, both `(B, d, *spatial)` in voxels.

    Lengths are measured in a `unit`: `"voxel"` of the grid, `"mm"`, or `"side"` of the grid, each axis being one long.
    A velocity of v voxels is S v units, with S the edges of a voxel; its squared norm is ⟨S v, L S v⟩ with L = K⁻¹ in
    that unit, and its momentum is S L S v. So a motion has one length, whatever the voxels, and axes of unlike voxels
    are weighed alike.
    """

    unit: str

    @abstractmethod
    def smooth(self, momentum: Tensor, spacing: Sequence[float]) -> Tensor:
        """Return K m, the velocity of a momentum, on a grid whose voxels have edges of `spacing` mm."""

    @abstractmethod
    def sharpen(self, velocity: Tensor, spacing: Sequence[float]) -> Tensor:
        """Return K⁻¹ v, the momentum of a velocity, on a grid whose voxels have edges of `spacing` mm."""

    @abstractmethod
    def gain(self, shape: Sequence[int], spacing: Sequence[float]) -> float:
        """Return the greatest gain of K, in its unit: that of the smoothest momenta."""

    def edges(self, shape: Sequence[int], spacing: Sequence[float]) -> tuple[float, ...]:
        """Return the edges of a voxel in the kernel's unit."""
        if self.unit == "side":
            return tuple(1 / n for n in shape)
        return tuple(map(float, spacing)) if self.unit == "mm" else (1.0,) * len(shape)


@dataclass(frozen=True)
class Sobolev(Kernel):
    """The kernel with K⁻¹ = (γ − αΔ)^power on velocities that vanish on the border, applied to each sine mode.

    Beg et al. 2005. Δ is the stencil of 2d + 1 points. Values of a velocity or momentum on the border are ignored.
    Flows are smooth and invertible where power > d/2 + 1 and α > 0.

    Attributes:
        alpha: squared length in `unit`.
        power: of the operator in ⟨v, (γ − αΔ)^power v⟩.
        gamma: weight of a constant velocity.
        unit: `"voxel"`, `"mm"` or `"side"`.

    Raises:
        InputError: α below 0, a power or γ not above it, or no such unit.
    """

    alpha: float
    power: float
    gamma: float = 1.0
    unit: str = "voxel"

    def __post_init__(self) -> None:
        if not (self.alpha >= 0 and self.power > 0 and self.gamma > 0):
            raise InputError(
                f"Sobolev: alpha of 0 or more, power and gamma above 0; got {self.alpha:g}, {self.power:g} and "
                f"{self.gamma:g}"
            )
        _refuse_other_units(self)

    def smooth(self, momentum: Tensor, spacing: Sequence[float]) -> Tensor:
        return self._by_mode(momentum, spacing, -1)

    def sharpen(self, velocity: Tensor, spacing: Sequence[float]) -> Tensor:
        return self._by_mode(velocity, spacing, 1)

    def gain(self, shape: Sequence[int], spacing: Sequence[float]) -> float:
        return float(_gains(self, tuple(shape), self.edges(shape, spacing), -1).max())

    def _by_mode(self, values: Tensor, spacing: Sequence[float], sign: int) -> Tensor:
        edges = self.edges(values.shape[2:], spacing)
        gains = torch.from_numpy(_gains(self, tuple(values.shape[2:]), edges, sign))
        return by_mode(values, gains) * _per_axis(values, edges) ** (2 * sign)


@lru_cache(maxsize=8)
def _gains(kernel: Sobolev, shape: tuple[int, ...], edges: tuple[float, ...], sign: int) -> np.ndarray:
    """Return the gain of each sine mode under K (`sign` −1) or K⁻¹ (1), float64; cached, for flows ask at each step."""
    return (kernel.gamma + kernel.alpha * eigenvalues(shape, edges).numpy()) ** (sign * kernel.power)


@dataclass(frozen=True)
class Gaussian(Kernel):
    """The kernel K = Σ w G(σ): a sum of Gaussians, each with integral 1 over all space; beyond the grid momenta are 0.

    Bruveris et al. 2012 for sums. K itself is exact. Its inverse is found by iteration, for a Gaussian leaves less of
    fine detail than floating point can hold.

    Attributes:
        sigma: one width in `unit`, or several.
        weights: one for each width; none, 1 each.
        unit: `"voxel"`, `"mm"` or `"side"`.

    Raises:
        InputError: a width or weight not above 0, another number of weights than of widths, or no such unit.
    """

    sigma: float | tuple[float, ...]
    weights: tuple[float, ...] = ()
    unit: str = "mm"

    def __post_init__(self) -> None:
        many = len(self._parts)
        if not many or len(self.weights) not in (0, many) or min(min(part) for part in self._parts) <= 0:
            raise InputError(
                f"Gaussian: widths above 0, and as many weights or none; got {self.sigma} and {self.weights}"
            )
        _refuse_other_units(self)

    @property
    def _parts(self) -> list[tuple[float, float]]:
        """Width and weight of each Gaussian."""
        widths = self.sigma if isinstance(self.sigma, tuple) else (self.sigma,)
        return list(zip(widths, self.weights or (1.0,) * len(widths), strict=False))

    def smooth(self, momentum: Tensor, spacing: Sequence[float]) -> Tensor:
        edges = self.edges(momentum.shape[2:], spacing)
        return self._blurred(momentum, edges) / _per_axis(momentum, edges) ** 2

    def sharpen(self, velocity: Tensor, spacing: Sequence[float]) -> Tensor:
        """Return the momentum of a velocity by conjugate gradients, with a residual of 1e-5 of the velocity's norm.

        Raises:
            InputError: the velocity is rougher than any that this kernel makes.
        """
        edges = self.edges(velocity.shape[2:], spacing)
        return _Inverse.apply(velocity, lambda values: self._blurred(values, edges)) * _per_axis(velocity, edges) ** 2

    def gain(self, shape: Sequence[int], spacing: Sequence[float]) -> float:
        return sum(weight for _, weight in self._parts)

    def _blurred(self, values: Tensor, edges: Sequence[float]) -> Tensor:
        total = torch.zeros_like(values)
        for width, weight in self._parts:
            widths = [width / edge for edge in edges]
            total = total + weight * gaussian_sum(values, widths, math.ceil(REACH * max(widths)))
        return total


class _Inverse(torch.autograd.Function):
    """The solution m of K m = v by conjugate gradients (Hestenes & Stiefel 1952), each pair of the batch by itself.

    1. m = K⁻¹ v, with K symmetric and positive.
    2. For a gradient g by m, ⟨g, K⁻¹ dv⟩ = ⟨K⁻¹ g, dv⟩: the gradient by v is K⁻¹ g, the same solution for g.
    """

    @staticmethod
    def forward(ctx, velocity, kernel: Callable[[Tensor], Tensor]):
        ctx.kernel = kernel
        goal = velocity.double()
        found, left, way, size = torch.zeros_like(goal), goal, goal, _square(goal, goal)
        enough = TOLERANCE**2 * size
        for _ in range(ITERATIONS):
            go = size > enough  # each of the batch by itself
            if not go.any():
                return found.to(velocity)
            seen = kernel(way)
            step = torch.where(go, size / _square(way, seen), 0)
            found, left = found + step * way, left - step * seen
            last, size = size, _square(left, left)
            way = torch.where(go, left + size / last * way, 0)
        raise InputError(
            f"Gaussian: after {ITERATIONS} steps {float((size / enough).max()) ** 0.5 * TOLERANCE:.1g} of a velocity "
            "is left over: it is rougher than any that this kernel makes. Take Sobolev, or add a narrow Gaussian"
        )

    @staticmethod
    def backward(ctx, upstream):
        return _Inverse.apply(upstream, ctx.kernel), None


def _square(a: Tensor, b: Tensor) -> Tensor:
    """Return ⟨a, b⟩ for each pair of the batch, `(B, 1, …)`."""
    return (a * b).sum(tuple(range(1, a.ndim)), keepdim=True)


def _per_axis(values: Tensor, edges: Sequence[float]) -> Tensor:
    return values.new_tensor(edges).view(-1, *[1] * len(edges))


def _refuse_other_units(kernel: Kernel) -> None:
    if kernel.unit not in UNITS:
        raise InputError(f"{type(kernel).__name__}: unit is {', '.join(UNITS)}; got {kernel.unit!r}")
