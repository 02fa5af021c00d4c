"""The transform of a day of treatment, as it lies on disk: certain, or with samples."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path

import torch

from pullback.errors import InputError
from pullback.files import read_transform, read_transforms
from pullback.space import Grid, Transform, mean_and_deviation
from pullback.workflows.posterior_folder import is_posterior, read_posterior


@dataclass(frozen=True)
class DayTransform:
    """The transform of a day as it is known: a file, a folder of samples, or one of `pullback uncertainty`.

    Attributes:
        path: it.
        ndim: of the plan.
    """

    path: Path
    ndim: int

    @property
    def is_uncertain(self) -> bool:
        """Whether it has samples."""
        return self.path.is_dir()

    def mean(self, grid: Grid) -> Transform:
        """Return the transform as it is; of samples, their mean on a grid.

        Raises:
            InputError: it cannot be read, or is of other dimensions.
        """
        if not self.path.is_dir():
            return self._checked(read_transform(self.path))
        if is_posterior(self.path):
            return self._checked(read_posterior(self.path).mean)
        return mean_and_deviation(map(self._checked, read_transforms(self.path).values()), grid)[0]

    def count(self, wanted: int) -> int:
        """Return how many samples there are, of the wanted ones."""
        if not self.path.is_dir() or is_posterior(self.path):
            return wanted
        return min(wanted, len(read_transforms(self.path)))

    def draws(self, count: int, generator: torch.Generator) -> Iterator[Transform]:
        """Yield so many samples; of a file, the same transform each time."""
        if not self.path.is_dir():
            yield from repeat(self._checked(read_transform(self.path)), count)
        elif is_posterior(self.path):
            yield from read_posterior(self.path).draws(count, generator)
        else:
            yield from islice(read_transforms(self.path).values(), count)

    def _checked(self, transform: Transform) -> Transform:
        if transform.ndim != self.ndim:
            raise InputError(f"{self.path}: moves points in {transform.ndim}-D, and the plan is {self.ndim}-D")
        return transform
