"""Label maps of many people on one grid: middle on middle, or registered to a template."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.alignment import Pair, Register
from pullback.errors import InputError
from pullback.solvers import Refine, timed
from pullback.space import Affine, Grid, Image, Labels, Transform, centroids, pull

MARGIN = 0.25  # of the template's voxels along an axis: room for those who are larger
Shown = Callable[[Iterable[Image]], Iterable[Image]]
"""What shows how far a list has come, and hands it on."""


def on_one_grid(labels: Sequence[Labels]) -> bool:
    """Return whether all label maps lie on one grid."""
    return all(each.grid == labels[0].grid for each in labels)


def laid_on_centroids(labels: Sequence[Labels]) -> list[Labels]:
    """Return label maps on a grid that holds all, the centroid of all labels of each at its middle.

    Axes and voxels are those of the first. Only shifts are made: what is turned stays so.

    Raises:
        InputError: a map without labels.
    """
    first = labels[0].grid
    shifts, reach = [], torch.zeros(first.ndim, dtype=torch.float64)
    for each in labels:
        inside = Labels((each.data > 0).long(), each.grid)
        if not inside.data.any():
            raise InputError("a label map without labels has no centroid; leave it out")
        middle = centroids(inside).data[0, 0]
        corners = each.grid.to_world(inside.data[0, 0].nonzero().double().mT[None]).mT[0] - middle
        along = torch.linalg.solve(first.affine[:-1, :-1], corners.mT).abs().amax(1)
        shifts.append(middle)
        reach = torch.maximum(reach, along)
    grid = first.about_origin(tuple(2 * int(n) + 3 for n in reach.ceil()))
    return [pull(each, _shift(middle), onto=grid) for each, middle in zip(labels, shifts, strict=True)]


def _shift(by: Tensor) -> Affine:
    matrix = torch.eye(len(by) + 1, dtype=torch.float64)
    matrix[:-1, -1] = by
    return Affine(matrix)


@dataclass(frozen=True)
class OntoTemplate:
    """The registration of many people to one of them, in two stages.

    Attributes:
        linear: register of the first stage.
        deformable: goes on from there.
    """

    linear: Register
    deformable: Register | Refine

    def affine(self, images: Sequence[Image], template: int, shown: Shown = iter) -> list[Transform]:
        """Return the transforms of the first stage, template → each; the template's own is the identity."""
        fixed = images[template]
        still = Affine.identity(fixed.grid.ndim)
        return [still if each is fixed else self.linear(fixed, each).transform for each in shown(images)]

    def deformed(
        self, images: Sequence[Image], template: int, starts: Sequence[Transform], shown: Shown = iter
    ) -> list[Transform]:
        """Return the transforms of the second stage, which goes on from those of the first."""
        fixed = images[template]
        return [
            start if each is fixed else timed(Pair(fixed, each), self.deformable, start).transform
            for each, start in zip(shown(images), starts, strict=True)
        ]


def pulled_labels(labels: Sequence[Labels], transforms: Sequence[Transform], template: Grid) -> list[Labels]:
    """Return label maps pulled once, from the nearest voxel, onto the template's grid with a margin about it."""
    grid = template.padded(tuple(max(2, round(MARGIN * n)) for n in template.shape))
    return [pull(each, transform, onto=grid) for each, transform in zip(labels, transforms, strict=True)]
