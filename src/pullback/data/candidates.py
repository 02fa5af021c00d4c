"""Candidates: label maps of an image that may be wrong, such as those of atlases that were brought onto it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, cast

import torch
from torch import Tensor

from pullback.data.case import Singles
from pullback.errors import InputError
from pullback.space import Affine, Grid, Image, Labels, pull, resample


@dataclass(frozen=True, eq=False)
class Candidates:
    """Images, with as many label maps of each, which may be wrong: an example by itself.

    Attributes:
        image: `(T, C, *spatial)`.
        labels: `(T · K, 1, *spatial)` on the same grid: K of the first image, then K of the second.
        numbers: of the label maps among all that are learned from, `(T · K,)` int64.
        truth: the right labels, `(T, 1, *spatial)`, where they are known.
        atlases: whose label maps they are.

    Raises:
        InputError: label maps on another grid, a number for each of them is missing, or not as many of each image.
    """

    image: Image
    labels: Labels
    numbers: Tensor
    truth: Labels | None = None
    atlases: tuple[str, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        count, images = self.labels.batch, self.image.batch
        if self.labels.grid != self.image.grid:
            raise InputError(f"{self.name or 'candidates'}: label maps on another grid than the image; pull them")
        if tuple(self.numbers.shape) != (count,) or count % images:
            raise InputError(
                f"{self.name or 'candidates'}: as many label maps of each image, and a number for each expected, got "
                f"{count} of {images} images, and {len(self.numbers)} numbers"
            )

    @property
    def images(self) -> tuple[Image, ...]:
        """The images, as one batch."""
        return (self.image,)

    def to(self, device: torch.device) -> Self:
        """Return the candidates with all their parts on `device`."""
        truth = self.truth and self.truth.to(device)
        parts = {"labels": self.labels.to(device), "numbers": self.numbers.to(device), "truth": truth}
        return replace(self, image=self.image.to(device), **cast(Any, parts))

    def on(self, grid: Grid) -> "Candidates":
        """Return the candidates on another grid: images smoothed where voxels grow, labels from the nearest voxel."""
        still = Affine.identity(grid.ndim)
        truth = self.truth and pull(self.truth, still, onto=grid)
        return replace(self, image=resample(self.image, grid), labels=pull(self.labels, still, onto=grid), truth=truth)

    def some(self, which: Sequence[int]) -> "Candidates":
        """Return these label maps of the one image.

        Raises:
            InputError: there are several images.
        """
        if self.image.batch > 1:
            raise InputError(f"{self.name}: label maps of one image are chosen among, got {self.image.batch} images")
        names = tuple(self.atlases[n] for n in which) if self.atlases else ()
        labels = Labels(self.labels.data[list(which)], self.labels.grid)
        return replace(self, labels=labels, numbers=self.numbers[list(which)], atlases=names)

    def stack(self, others: Sequence["Candidates"]) -> "Candidates":
        """Return one batch of these and others, each of as many label maps; where images lie in the world is lost."""
        every, grid = (self, *others), self.image.grid
        truths = [one.truth.data for one in every if one.truth is not None]
        return Candidates(
            Image(torch.cat([one.image.data for one in every]), grid),
            Labels(torch.cat([one.labels.data for one in every]), grid),
            torch.cat([one.numbers for one in every]),
            Labels(torch.cat(truths), grid) if len(truths) == len(every) else None,
            tuple(name for one in every for name in one.atlases),
            ", ".join(dict.fromkeys(one.name for one in every)),
        )


class Target(Protocol):
    """An image with candidates: a case."""

    @property
    def name(self) -> str: ...
    def load(self) -> Candidates: ...
    def seen(self) -> Candidates:
        """Return them as a network sees them: of all targets with as many voxels."""
        ...


@dataclass(frozen=True)
class CandidateDraws(Singles):
    """The training split of candidates, a batch of which is an example; its cases are a `Target` each.

    Attributes:
        at_once: label maps of an example.
        each: how many of them are of one image, which then is seen once for all of them; 1 is DeepSTAPLE's way.

    Raises:
        InputError: numbers below 1, or at_once is no multiple of each.
    """

    at_once: int = 8
    each: int = 1

    def __post_init__(self) -> None:
        if min(self.at_once, self.each) < 1 or self.at_once % self.each:
            raise InputError(
                f"candidates at once: 1 or more, a multiple of those of each image, expected, got {self.at_once} and "
                f"{self.each}"
            )

    def draw(self, generator: torch.Generator) -> Candidates:
        """Draw different targets, as far as there are enough, and different label maps of each."""
        order = torch.randperm(len(self.cases), generator=generator).tolist()
        drawn = []
        for n in range(self.at_once // self.each):
            known = cast(Target, self.cases[order[n % len(order)]]).seen()
            which = torch.randperm(known.labels.batch, generator=generator).tolist()
            drawn.append(known.some([which[k % len(which)] for k in range(self.each)]))
        return drawn[0].stack(drawn[1:])
