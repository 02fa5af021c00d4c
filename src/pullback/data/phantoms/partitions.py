"""Populations of partitions whose types are known: Voronoi cells of prototypes, bent and jittered. Nothing is read."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import smooth_noise
from pullback.space import Grid


@dataclass(frozen=True, eq=False)
class Population:
    """People whose types are known.

    Attributes:
        labels: partitions, `(n, side, side)`, regions from 1 on, whose names mean nothing from one to the next.
        types: of each person, `(n,)` from 0 on.
    """

    labels: Tensor
    types: Tensor

    @property
    def regions(self) -> Tensor:
        """Number of regions of each person, `(n,)`."""
        return torch.tensor([len(each.unique()) for each in self.labels])


@dataclass(frozen=True)
class Partitions:
    """A population of partitions of a square into Voronoi cells.

    Each type has a prototype, a set of seeds; the first has `regions`, each further one `more`. In a person each seed
    is shifted at random, and the whole square bent by a smooth displacement.

    Attributes:
        subjects: of the population.
        kinds: how many types there are, drawn with equal chances.
        side: voxels.
        regions: of the first type.
        more: regions of each type than of the one before.
        jitter: standard deviation of the seeds along each axis, as a share of the side.
        bend: standard deviation of the displacement along each axis, as a share of the side.
        smoothness: of the displacement, as a share of the side.
        seed: of all draws.

    Raises:
        InputError: fewer than three subjects, one type or two regions, or less than 8 voxels.
    """

    subjects: int = 100
    kinds: int = 1
    side: int = 48
    regions: int = 8
    more: int = 3
    jitter: float = 0.08
    bend: float = 0.05
    smoothness: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        if self.subjects < 3 or self.kinds < 1 or self.regions < 2 or self.side < 8:
            raise InputError(f"Partitions: three subjects, a type, two regions, 8 voxels or more expected, got {self}")

    def population(self) -> Population:
        """Return the people, the same each time."""
        generator = make_generator(self.seed)
        prototypes = [
            torch.rand(self.regions + self.more * kind, 2, generator=generator, dtype=torch.float64)
            for kind in range(self.kinds)
        ]
        types = torch.randint(self.kinds, (self.subjects,), generator=generator)
        return Population(torch.stack([self._person(prototypes[kind], generator) for kind in types.tolist()]), types)

    def _person(self, prototype: Tensor, generator: torch.Generator) -> Tensor:
        """Return a partition, `(side, side)`."""
        noise = torch.randn(prototype.shape, generator=generator, dtype=torch.float64)
        order = torch.randperm(len(prototype), generator=generator)
        seeds = (prototype + self.jitter * noise)[order]
        like = torch.zeros((), dtype=torch.float64)
        shape = (1, 2, self.side, self.side)
        bent = self.bend * smooth_noise(shape, self.smoothness * self.side, generator, like)[0]
        where = Grid.centred((self.side, self.side)).voxels(like) / (self.side - 1) + bent  # (2, side, side), 0 … 1
        return torch.cdist(where.flatten(1).mT, seeds).argmin(1).view(self.side, self.side) + 1
