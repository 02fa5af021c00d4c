"""Discrete displacements of a cloud of points, regularised along its graph by belief propagation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.numerics.graph import gather_rows, nearest, neighbours, pairs

AT_ONCE = 2**18  # costs of pairs of candidates at once: what stays in a processor's cache


@dataclass(frozen=True)
class BeliefPropagation:
    """Sparse loopy belief propagation (Hansen & Heinrich, Deep learning based geometric registration, IPMI 2021).

    1. Each fixed point chooses among the displacements dₖ to its nearest moving points.
    2. A choice costs the squared difference of features. Neighbours on the graph of the fixed cloud pay for the squared
       difference of their displacements, λ |dᵢ − dⱼ|². The sum of both is minimised.
    3. Messages pass along all edges at once, for a number of iterations, and add up to a belief: the cost of each
       choice.
    4. The answer is each point's mean candidate under the softmax of its negative beliefs ("integral regression"), so
       it may lie between the moving points.

    Attributes:
        candidates: nearest moving points of each fixed point; all, where the moving cloud is smaller.
        neighbours: of each fixed point on the graph, which has an edge where either is a neighbour of the other.
        iterations: of the messages.
        weight: λ, per mm². The authors' 10 in a cube of side 2 about the lung is some 6e-4; ten times that suits
            sparser clouds, of which many points lack a partner.
        sharpness: of the softmax, per unit of cost. With the authors' 50 one candidate takes all at this weight, and
            no gradient is left to learn from; the answer itself hardly depends on it.
        damping: share of the old message that is kept in each iteration.
        temperature: None takes the least cost (min-sum); a number T the softmin −T log Σ exp(−cost / T), which tends to
            it as T → 0. Gradients pass through either.
    """

    candidates: int = 64
    neighbours: int = 10
    iterations: int = 5
    weight: float = 6e-3
    sharpness: float = 0.5
    damping: float = 0.0
    temperature: float | None = None

    def __call__(self, fixed: Tensor, moving: Tensor, fixed_features: Tensor, moving_features: Tensor) -> Tensor:
        """Return the displacement of each fixed point.

        Args:
            fixed, moving: points `(N, d)` and `(M, d)` in mm.
            fixed_features, moving_features: `(N, C)` and `(M, C)`; cost is their mean squared difference.

        Returns:
            `(N, d)` in mm.

        Raises:
            InputError: fewer than two fixed points, which have no neighbours, or no moving point.
        """
        if len(fixed) < 2 or not len(moving):
            raise InputError(
                f"BeliefPropagation: two fixed points or more and a moving one, got {len(fixed)} and {len(moving)}"
            )
        index = nearest(fixed, moving, min(self.candidates, len(moving)))[1]
        displacements = moving[index] - fixed[:, None]
        unary = (fixed_features[:, None] - gather_rows(moving_features, index)).square().mean(-1)
        beliefs = self.beliefs(unary, displacements, pairs(neighbours(fixed, min(self.neighbours, len(fixed) - 1))))
        return torch.einsum("nk,nkd->nd", (-self.sharpness * beliefs).softmax(1), displacements)

    def beliefs(self, unary: Tensor, displacements: Tensor, edges: Tensor) -> Tensor:
        """Return the cost of each choice with the best choices of all other points, less a constant for each point.

        With a temperature, the softmin over the other points' choices takes the place of the best. Exact on trees,
        after as many iterations as the longest path has edges.

        Args:
            unary: costs `(N, K)`.
            displacements: `(N, K, d)`.
            edges: pairs of points `(E, 2)`, each once.

        Returns:
            `(N, K)`.
        """
        source, target = torch.cat([edges, edges.flip(1)]).unbind(1)
        first, second = displacements[source], displacements[target]
        messages = unary.new_zeros(len(source), unary.shape[1])
        for _ in range(self.iterations):
            belief = unary.index_add(0, target, messages)
            others = belief.index_select(0, source) - messages.roll(len(edges), 0)
            sent = self._sent(others, first, second)
            messages = self.damping * messages + (1 - self.damping) * (sent - sent.amin(1, keepdim=True).detach())
        return unary.index_add(0, target, messages)

    def _sent(self, costs: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Return, for each candidate of `second`, the least of cost + weight |first − second|², `(E, K)`."""
        size = max(1, AT_ONCE // costs.shape[1] ** 2)
        parts = zip(costs.split(size), first.split(size), second.split(size), strict=True)
        if self.temperature is not None:
            return torch.cat([self._soft(*part) for part in parts])
        with torch.no_grad():
            best = torch.cat([least(self._both(*part)) for part in parts])
        there = first.gather(1, best[..., None].expand(-1, -1, first.shape[2]))
        return costs.gather(1, best) + self.weight * (there - second).square().sum(2)

    def _soft(self, costs: Tensor, first: Tensor, second: Tensor) -> Tensor:
        assert self.temperature is not None
        own = self.weight * second.square().sum(2)
        return own - self.temperature * (-self._both(costs, first, second) / self.temperature).logsumexp(2)

    def _both(self, costs: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Return cost + weight |first − second|² less weight |second|²: `(E, K of second, K of first)`."""
        near = costs + self.weight * first.square().sum(2)
        return torch.baddbmm(near[:, None], second, first.mT, alpha=-2 * self.weight)


def least(costs: Tensor) -> Tensor:
    """Return the index of the least along the last axis, to 17 bits of the largest magnitude; among equals the first.

    torch has no vector code for a minimum with its index. For float32 the index replaces the last bits of the cost, so
    that one plain minimum of integers gives both, in a third of the time.
    """
    count = costs.shape[-1]
    if costs.dtype != torch.float32 or count > 64:
        return costs.min(-1).indices
    low = (1 << (count - 1).bit_length()) - 1
    packed = (costs - costs.amin()).view(torch.int32)  # of numbers that are not negative the bits are in order
    packed &= ~low
    packed |= torch.arange(count, dtype=torch.int32, device=costs.device)
    return (packed.amin(-1) & low).long()
