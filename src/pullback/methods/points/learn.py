"""How features of clouds are learned: one loop, which every strategy fills with a lesson of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pullback.numerics.random import generator
from pullback.numerics.rotation import nearby


@dataclass(frozen=True, eq=False)
class Cloud:
    """A pair of clouds without correspondences.

    Attributes:
        fixed, moving: points `(N, 3)` and `(M, 3)`, float32, in mm.
        surfaces: of the fixed and of the moving organ, points `(S, 3)` and `(T, 3)`, float32, in mm, where known.
    """

    fixed: Tensor
    moving: Tensor
    surfaces: tuple[Tensor, Tensor] | None = None

    def under(self, linear: Tensor) -> "Cloud":
        """The pair under a linear map `(3, 3)`, for rows of points from the right."""
        surfaces = None if self.surfaces is None else (self.surfaces[0] @ linear, self.surfaces[1] @ linear)
        return Cloud(self.fixed @ linear, self.moving @ linear, surfaces)


class Lesson(Protocol):
    """The loss of pair number `index` for the network; what is random in it comes from `chance`."""

    def __call__(self, network: nn.Module, index: int, chance: torch.Generator) -> Tensor: ...


@dataclass(frozen=True)
class Affines:
    """Random linear maps: turned about all three axes, stretched by one factor.

    The authors' augmentation for lungs: both clouds of a pair alike (Bigalke et al., MICCAI 2022, has these numbers).

    Attributes:
        degrees: up to which they turn about each axis.
        stretch: the part by which they make longer or shorter.
    """

    degrees: float = 10.0
    stretch: float = 0.1

    def draw(self, chance: torch.Generator) -> Tensor:
        """`(3, 3)`, float32: for rows of points from the right."""
        turn = nearby(torch.eye(3, dtype=torch.float64)[None], 1, self.degrees, chance)[0]
        factor = 1 + self.stretch * (2 * torch.rand((), generator=chance, dtype=torch.float64) - 1)
        return (factor * turn).float()


@dataclass(frozen=True)
class Learning:
    """One training, from its beginning to its end: Adam, over all pairs in every epoch.

    Attributes:
        epochs, batch, rate: the paper's 60, 4 and 0.001.
        drops: parts of the epochs after which the rate is divided by 10: the paper's epochs 40 and 52.
    """

    epochs: int = 60
    batch: int = 4
    rate: float = 1e-3
    drops: tuple[float, ...] = (40 / 60, 52 / 60)

    def __call__(
        self,
        network: nn.Module,
        lesson: Lesson,
        seed: tuple[int, ...],
        pairs: int,
        weights: Tensor | None = None,
        told: Callable[[float], None] = lambda _: None,
    ) -> None:
        """The network learns.

        Args:
            seed: of all chance: the order of the pairs, and what the lesson draws.
            pairs: how many there are.
            weights: `(pairs,)`, how often each is drawn; else each comes once in an epoch.
            told: gets the mean loss of every epoch.
        """
        optimiser = torch.optim.Adam(network.parameters(), self.rate)
        for epoch in range(self.epochs):
            for group in optimiser.param_groups:
                group["lr"] = self.rate * 0.1 ** sum(epoch >= round(drop * self.epochs) for drop in self.drops)
            chance = generator(*seed, epoch)
            order = _order(pairs, weights, chance)
            total = 0.0
            for batch in order.split(self.batch):
                optimiser.zero_grad()
                for index in batch.tolist():
                    loss = lesson(network, index, chance) / len(batch)
                    loss.backward()
                    total += float(loss.detach()) * len(batch)
                optimiser.step()
            told(total / pairs)


def _order(pairs: int, weights: Tensor | None, chance: torch.Generator) -> Tensor:
    if weights is None:
        return torch.randperm(pairs, generator=chance)
    return torch.multinomial(weights, pairs, replacement=True, generator=chance)
