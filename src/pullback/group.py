"""Groups: images, the edges between those that are compared, and transforms from one common world to each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair
from pullback.space import Affine, Grid, Image, Labels, Transform, params_of, pull, short_repr, with_params_of
from pullback.stats import Stats


@dataclass(frozen=True, eq=False)
class Group:
    """A group of images, each on its own grid, and the pairs of them that are compared.

    Attributes:
        images: all 2-D or all 3-D, with the same number of channels, one in each batch.
        edges: pairs of indices of images, the fixed one first.
        labels: of the images, in their order, None for one without; empty where none has any.
        name: of the group.

    Raises:
        ValueError: no image, images that make no pairs, an edge to no image or to itself, or labels of some only.
    """

    images: tuple[Image, ...]
    edges: tuple[tuple[int, int], ...]
    labels: tuple[Labels | None, ...] = ()
    name: str = ""

    __repr__ = short_repr

    def __post_init__(self) -> None:
        count = len(self.images)
        if not count or len(self.labels) not in (0, count):
            raise ValueError(f"Group: {count} images and {len(self.labels)} labels; as many of both, or no labels")
        wrong = [edge for edge in self.edges if not all(0 <= end < count for end in edge) or edge[0] == edge[1]]
        if wrong:
            raise ValueError(f"Group: edges between two of {count} different images expected, got {wrong}")
        several = [len(image.data) for image in self.images if len(image.data) != 1]
        if several:
            raise ValueError(f"Group: each image by itself, in a batch of one, got {several}")
        for other in self.images[1:]:
            Pair(self.images[0], other)  # refuses other dimensions and channels

    @classmethod
    def star(cls, template: Image, images: Sequence[Image], labels: Sequence[Labels | None] = ()) -> Self:
        """Return the group in which the template, its first image, is the fixed image of each of the others."""
        known = (None, *labels) if labels else ()
        return cls((template, *images), tuple((0, n) for n in range(1, len(images) + 1)), known)

    @classmethod
    def chain(cls, images: Sequence[Image], reach: int = 1, labels: Sequence[Labels | None] = ()) -> Self:
        """Return the group of a stack, in which each image is the fixed one of the `reach` images that follow it."""
        count = len(images)
        edges = tuple((n, m) for n in range(count) for m in range(n + 1, min(n + reach, count - 1) + 1))
        return cls(tuple(images), edges, tuple(labels))

    def to(self, device: torch.device) -> Self:
        """Return the group with all its parts on `device`."""
        labels = tuple(one and one.to(device) for one in self.labels)
        return replace(self, images=tuple(image.to(device) for image in self.images), labels=labels)

    def pair(self, fixed: int, moving: int) -> Pair:
        """Return two of its images as a pair, with their labels."""
        one, two = (self.labels[n] if self.labels else None for n in (fixed, moving))
        return Pair(self.images[fixed], self.images[moving], one, two, name=f"{self.name} {fixed} ← {moving}".strip())


@dataclass(frozen=True, eq=False)
class GroupAlignment:
    """A group, and the transforms from one common world to each of its images.

    A solver may change it: its parameters are those of all its transforms.

    Attributes:
        group: the images.
        transforms: one for each image, from the common world to that image's world.
        stats: how it was found.

    Raises:
        ValueError: not as many transforms as images.
    """

    group: Group
    transforms: tuple[Transform, ...]
    stats: Stats | None = None

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if len(self.transforms) != len(self.group.images):
            raise ValueError(f"{len(self.group.images)} images need as many transforms, got {len(self.transforms)}")

    @property
    def pairs(self) -> Iterator[Alignment]:
        """An alignment for each edge (i, j), by Tⱼ ∘ Tᵢ⁻¹, for energies and metrics.

        Tᵢ⁻¹ is `Tᵢ.inverse()`, through which gradients pass where they pass through the inverse of its kind.
        """
        for fixed, moving in self.group.edges:
            there, back = self.transforms[moving], self.transforms[fixed]
            yield Alignment(self.group.pair(fixed, moving), there if _is_still(back) else there @ back.inverse())

    def moved(self, onto: Grid) -> tuple[Image, ...]:
        """Return the images in the common world, on the grid `onto` there."""
        pairs = zip(self.group.images, self.transforms, strict=True)
        return tuple(pull(image, transform, onto=onto) for image, transform in pairs)

    @property
    def params(self) -> tuple[Tensor, ...]:
        """The parameters of its transforms, in their order."""
        return params_of(self.transforms)

    def with_params(self, *params: Tensor) -> Self:
        """Return the same group with other parameters of its transforms."""
        return replace(self, transforms=with_params_of(self.transforms, params))


def _is_still(transform: Transform) -> bool:
    """Return whether a transform is the identity, as a matrix without gradient."""
    affine = transform.as_affine
    if affine is None or affine.matrix.requires_grad:
        return False
    still = Affine.identity(transform.ndim).matrix.to(affine.matrix)
    return bool((affine.matrix == still).all())
