"""Discrete optimisation of displacements that agree with their neighbours."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.numerics.cost_volume import box_mean, cost_volume, cost_volume_bytes, offsets
from pullback.numerics.sample import sample, voxels


@dataclass(frozen=True)
class CoupledConvex:
    """Coupled convex optimisation: a smooth displacement between similar features of two images on one grid.

    Steinbrücker et al. 2009, Heinrich et al. 2014. Two problems are minimised in turn, as the coupling c grows:

    1. cost(d) + c |d − u|² over the discrete d at each voxel, by a search through the costs of all displacements;
    2. c |d − u|² and the roughness of u over u, by a mean over neighbours.

    Attributes:
        half_width: largest displacement along each axis, in voxels.
        couplings: c by iteration, as in Siebert & Heinrich 2022 and ConvexAdam.
        temperature: None takes the best displacement (argmin; no gradient passes); a number T the mean of all with
            weights exp(−cost / T) (softmin), which is differentiable and tends to the best as T → 0.
        smoothing: window of the means over neighbours, in voxels.
        blur: how often the costs are averaged over that window first.
        memory: bytes that the search may take, with all copies of the costs; where it would take more, costs are
            computed anew in every iteration, for a part of the displacements at a time.
    """

    half_width: int = 4
    couplings: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    temperature: float | None = None
    smoothing: int = 3
    blur: int = 2
    memory: int = 2**30
    power: int = 2
    means: int = 0

    def __call__(self, fixed: Tensor, moving: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the displacement, fixed → moving, `(B, d, *spatial)` in voxels, between features `(B, C, *spatial)`.

        A `weight` of each voxel's costs, `(B, 1, *spatial)`, says where the images are compared.

        Raises:
            InputError: a softmin would take more memory than is allowed.
        """
        where = offsets(self.half_width, fixed.ndim - 2, fixed)
        learning = torch.is_grad_enabled() and (fixed.requires_grad or moving.requires_grad)
        needed = self.copies(fixed.shape[1], learning) * cost_volume_bytes(fixed, where)
        if needed > self.memory:
            if self.temperature is not None:
                raise InputError(
                    f"{len(where)} displacements of {tuple(fixed.shape[2:])} voxels cost {needed / 1e9:.2g} GB"
                    f"{', with what their gradient needs' if learning else ''}, more than the {self.memory / 1e9:.2g} "
                    f"GB allowed: coarser features, a smaller half_width, or a larger `memory`"
                )
            parts = where.split(max(1, len(where) * self.memory // needed))
            return self._solved(
                lambda field, c: _best(((self._blurred(fixed, moving, part, weight), part) for part in parts), field, c)
            )
        costs = self._blurred(fixed, moving, where, weight)
        return self._solved(lambda field, c: self._chosen(costs, where, field, c))

    def copies(self, channels: int, learning: bool) -> int:
        """Return how many copies of the costs are held at most.

        They are held while they are averaged and coupled; for the gradient of a softmin also the differences in each
        channel and the weights at each coupling.
        """
        return 5 + channels + 2 * len(self.couplings) if learning else 10

    def _solved(self, choose: Callable[[Tensor | None, float], Tensor]) -> Tensor:
        field = box_mean(choose(None, 0.0), self.smoothing)
        for coupling in self.couplings:
            field = box_mean(choose(field, coupling), self.smoothing)
        for _ in range(self.means):
            field = box_mean(field, self.smoothing)
        return field

    def _blurred(self, fixed: Tensor, moving: Tensor, where: Tensor, weight: Tensor | None) -> Tensor:
        costs = cost_volume(fixed, moving, where, power=self.power)
        costs = costs if weight is None else weight * costs
        for _ in range(self.blur):
            costs = box_mean(costs, self.smoothing)
        return costs

    def _chosen(self, costs: Tensor, where: Tensor, field: Tensor | None, coupling: float) -> Tensor:
        if self.temperature is None:
            return _best(iter([(costs, where)]), field, coupling)
        weights = (-_coupled(costs, where, field, coupling) / self.temperature).softmax(1)
        return torch.einsum("bk...,kd->bd...", weights, where)


def consistent(forward: Tensor, backward: Tensor, iterations: int = 15) -> tuple[Tensor, Tensor]:
    """Make two displacements `(B, d, *spatial)` in voxels of one grid more nearly inverse to each other.

    Each is replaced by half of itself less the other at the point it leads to, again and again (Heinrich et al. 2014).
    """
    still = voxels(tuple(forward.shape[2:]), forward)[None]
    for _ in range(iterations):
        there, back = (
            sample(of, still + at, padding="border") for of, at in ((backward, forward), (forward, backward))
        )
        forward, backward = (forward - there) / 2, (backward - back) / 2
    return forward, backward


def _coupled(costs: Tensor, where: Tensor, field: Tensor | None, coupling: float) -> Tensor:
    """Return costs + c |d − u|² less c |u|², which is the same for all d."""
    if field is None or coupling == 0:
        return costs
    near = where.square().sum(1).view(-1, *[1] * (costs.ndim - 2)) - 2 * torch.einsum("kd,bd...->bk...", where, field)
    return costs + coupling * near


def _best(blocks: Iterator[tuple[Tensor, Tensor]], field: Tensor | None, coupling: float) -> Tensor:
    """Return the displacement of least cost at each voxel, `(B, d, *spatial)`; among equals the shortest."""
    least: Tensor | None = None
    chosen: Tensor | None = None
    for costs, where in blocks:
        value, index = _coupled(costs, where, field, coupling).min(1)
        del costs  # before the next part is made
        found = where[index].movedim(-1, 1)  # (B, d, …)
        if least is None or chosen is None:
            least, chosen = value, found
            continue
        better = value < least
        least, chosen = torch.where(better, value, least), torch.where(better[:, None], found, chosen)
    assert chosen is not None
    return chosen
