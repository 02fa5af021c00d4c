"""Pairs, alignments (a pair seen through a transform), and the protocol of a register."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.numerics.difference import determinant, jacobian
from pullback.space import Boxes, Image, Labels, Points, Series, Transform, inverted, one_batch, pull, push, short_repr
from pullback.stats import Stats

PHASE = "phase_"
"""What the names of transforms on the way begin with; numbers from 1 follow."""
BACK = "back"
"""The name of the one further transform that leads from the moving to the fixed world."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Two images to align, and what is known of them: labels, points, and the true transform, fixed → moving.

    Both images are 2-D or both 3-D, with the same number of channels, and labels lie on their image's grid (as masks do
    in `Image`). A batch of B is B pairs; a part with a batch of one serves all of them. `between` are images on the way
    from the moving to the fixed one, in that order and without these two, such as the phases of a breath; they lie on
    the fixed grid and belong to one pair. Boxes are of labels, whether or not these are known. `lesion` is not 0
    where the fixed image is known to show what the moving one lacks.

    Raises:
        TypeError: an image is no `Image`.
        ValueError: dimensions, channels or batches differ, or labels or images between lie on another grid.
    """

    fixed: Image
    moving: Image
    fixed_labels: Labels | None = None
    moving_labels: Labels | None = None
    fixed_points: Points | None = None
    moving_points: Points | None = None
    truth: Transform | None = None
    name: str = ""
    between: Series | None = None
    fixed_boxes: Boxes | None = None
    moving_boxes: Boxes | None = None
    lesion: Labels | None = None

    __repr__ = short_repr

    def __post_init__(self) -> None:
        for side, image in (("fixed", self.fixed), ("moving", self.moving)):
            if not isinstance(image, Image):
                raise TypeError(f"the {side} image is {image!r}, no Image: `pb.read_image(path)` reads one from a file")
        fixed, moving = self.fixed.grid, self.moving.grid
        if fixed.ndim != moving.ndim:
            raise ValueError(
                f"the fixed image is {fixed.ndim}-D and the moving one {moving.ndim}-D; both must be alike"
            )
        channels = [image.data.shape[1] for image in (self.fixed, self.moving)]
        if channels[0] != channels[1]:
            raise ValueError(
                f"the fixed image has {channels[0]} channels, the moving one {channels[1]}; both need as many"
            )
        known = (
            ("fixed labels", "fixed", fixed, self.fixed_labels),
            ("moving labels", "moving", moving, self.moving_labels),
            ("labels of the lesion", "fixed", fixed, self.lesion),
        )
        for what, side, grid, labels in known:
            if labels is not None and labels.grid != grid:
                differ = "the affines differ"
                if labels.grid.shape != grid.shape:
                    differ = f"shape {labels.grid.shape} against {grid.shape}"
                raise ValueError(
                    f"the {what} lie on another grid than the {side} image: {differ}; pull them onto it first"
                )
        if self.between is not None and (self.between.grid != fixed or self.batch > 1):
            raise ValueError(
                f"the images between lie on {self.between.grid}, the fixed image on {fixed}, in a batch of {self.batch}"
                f"; all phases of one scan share a grid, and belong to one pair: give each pair its own"
            )
        _ = self.batch

    @cached_property
    def batch(self) -> int:
        """Number of pairs."""
        return one_batch({name.replace("_", " "): part.batch for name, part in self._known.items()})

    def nth(self, n: int) -> Self:
        """Return the n-th pair of the batch; a batch of one returns itself, whatever n."""
        return self if self.batch == 1 else replace(self, **{k: part.nth(n) for k, part in self._known.items()})

    def of_channels(self, first: int, count: int) -> Self:
        """Return the pair with `count` channels of its images, from number `first` on.

        Raises:
            ValueError: there are not as many.
        """
        known = self.fixed.data.shape[1]
        if not 0 <= first < first + count <= known:
            raise ValueError(f"channels {first} … {first + count - 1} of images that have {known}, numbered from 0")
        fixed, moving = (replace(one, data=one.data[:, first : first + count]) for one in self.images)
        return replace(self, fixed=fixed, moving=moving)

    @cached_property
    def label_sets(self) -> tuple[Tensor, Tensor] | None:
        """The labels above background of the fixed and of the moving image, sorted; None without both."""
        if self.fixed_labels is None or self.moving_labels is None:
            return None
        one, two = (labels.data.unique() for labels in (self.fixed_labels, self.moving_labels))
        return one[one > 0], two[two > 0]

    @property
    def images(self) -> tuple[Image, ...]:
        """The fixed and the moving image."""
        return self.fixed, self.moving

    def to(self, device: torch.device) -> Self:
        """Return the pair with all its parts on `device`."""
        parts = {name: part.to(device) for name, part in self._known.items()}
        return replace(self, **parts, between=self.between and self.between.to(device))

    @property
    def _known(self) -> dict[str, Any]:
        """The images, labels, boxes, points and truth that the pair has, by name."""
        known = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: v for k, v in known.items() if isinstance(v, Image | Labels | Boxes | Points | Transform)}


def stacked(pairs: Sequence[Pair]) -> Pair:
    """Return pairs of images on one grid as one pair, a batch, so that a network sees all of them at once.

    Images, labels and truths are stacked, each kind known of all pairs or of none; one pair returns itself.

    Raises:
        InputError: no pair, grids or known parts that differ, points, of which each pair has its own number, or images
            between.
    """
    if not pairs:
        raise InputError("stacked: one pair or more expected, got none")
    first, *others = pairs
    if not others:
        return first
    known = [pair._known for pair in pairs]
    points = sorted({name for parts in known for name, part in parts.items() if isinstance(part, Points)})
    if any(pair.between is not None for pair in pairs):
        raise InputError("stacked: pairs without images between expected; learn from one series at a time, at_once=1")
    if points or any(parts.keys() != known[0].keys() for parts in known):
        has = "; ".join(
            f"{pair.name or 'a pair'}: {', '.join(parts)}" for pair, parts in zip(pairs, known, strict=True)
        )
        raise InputError(f"stacked: pairs of which the same is known expected, and no points, got {has}")
    try:
        parts = {name: part.stack([other[name] for other in known[1:]]) for name, part in known[0].items()}
    except ValueError as error:
        raise InputError(f"stacked: {first.name or 'pairs'} and {len(others)} more: {error}") from error
    return replace(first, **parts, name=f"{first.name} and {len(others)} more")


@dataclass(frozen=True, eq=False)
class Alignment:
    """A pair seen through a transform, the answer of every register; what follows from it is computed when asked for.

    A batch of B pairs has B transforms; one pair or one transform serves all of the other.

    Attributes:
        pair: the images, and what is known of them.
        transform: fixed → moving.
        maps: images on the fixed grid that a register knows beside the transform, by a name in snake case, such as a
            residual appearance, a non-correspondence or a deviation in mm.
        transforms: further ones from the fixed world, by name; `phase_1`, `phase_2`, … are on the way from the moving
            to the fixed image, such as those of a breath. `back` alone comes from the moving world: moving → fixed, as
            of a register that aligns both ways at once.
        stats: how it was found; None where that is not known.

    Raises:
        ValueError: pair and transform of other dimensions or batches, or a map with a bad name or on another grid.
    """

    pair: Pair
    transform: Transform
    maps: Mapping[str, Image] = field(default_factory=dict)
    transforms: Mapping[str, Transform] = field(default_factory=dict)
    stats: Stats | None = None

    def __post_init__(self) -> None:
        grid = self.pair.fixed.grid
        if self.transform.ndim != grid.ndim:
            raise ValueError(f"a {self.transform.ndim}-D transform cannot align {grid.ndim}-D images")
        for name in (*self.maps, *self.transforms):
            if not name.isidentifier() or name != name.lower():
                raise ValueError(f"{name!r}: maps and transforms are named in snake case, as in non_correspondence")
        for name, image in self.maps.items():
            if image.grid != grid:
                raise ValueError(f"the map {name} lies on {image.grid}, and the fixed image on {grid}; pull it there")
        _ = self.batch

    @property
    def batch(self) -> int:
        """Number of pairs that are aligned."""
        return one_batch({"the pair": self.pair.batch, "the transform": self.transform.batch})

    def each(self) -> Iterator[Self]:
        """Yield each pair of the batch as an alignment of one; `stats` stay those of the whole batch."""
        if self.batch == 1:
            yield self
            return
        for n in range(self.batch):
            maps = {name: image.nth(n) for name, image in self.maps.items()}
            transforms = {name: transform.nth(n) for name, transform in self.transforms.items()}
            yield replace(
                self, pair=self.pair.nth(n), transform=self.transform.nth(n), maps=maps, transforms=transforms
            )

    def of_channels(self, first: int, count: int) -> "Alignment":
        """Return the alignment of `count` channels, from number `first` on, whose image is not pulled once more.

        Raises:
            ValueError: the images have not as many.
        """
        part = Alignment(self.pair.of_channels(first, count), self.transform)
        return part.showing(replace(self.moved, data=self.moved.data[:, first : first + count]))

    def showing(self, moved: Image) -> "Alignment":
        """Return the alignment with a moved image that is known already, such as the mean through a slice's thickness.

        Raises:
            ValueError: it lies on another grid than the fixed image.
        """
        if moved.grid != self.pair.fixed.grid:
            raise ValueError(f"a moved image on {self.pair.fixed.grid} expected, got one on {moved.grid}")
        shown = replace(self)
        vars(shown)["moved"] = moved
        return shown

    @property
    def on_the_way(self) -> tuple[Transform, ...]:
        """The transforms called `phase_1`, `phase_2`, … in their order, from the moving image on; often none."""
        count = next(n for n in itertools.count() if f"{PHASE}{n + 1}" not in self.transforms)
        return tuple(self.transforms[f"{PHASE}{n + 1}"] for n in range(count))

    @cached_property
    def inverse(self) -> Transform:
        """The inverse, moving → fixed, exact at each point where there is one."""
        return inverted(self.transform)

    @cached_property
    def moved(self) -> Image:
        """The moving image, pulled onto the fixed grid."""
        return pull(self.pair.moving, self.transform, onto=self.pair.fixed)

    @cached_property
    def moved_labels(self) -> Labels | None:
        """The moving labels on the fixed grid, or None where the pair has none."""
        return self.pair.moving_labels and pull(self.pair.moving_labels, self.transform, onto=self.pair.fixed)

    @cached_property
    def shared_labels(self) -> Tensor | None:
        """The labels above background that both images have, `(labels,)` sorted, of any pair of a batch.

        None where the pair lacks labels on either side.
        """
        if self.pair.label_sets is None:
            return None
        one, two = self.pair.label_sets
        return one[torch.isin(one, two)]

    @cached_property
    def soft_labels(self) -> tuple[Tensor, Tensor] | None:
        """Indicator images of the `shared_labels`, fixed and moved: `(B, labels, *spatial)` each.

        Both lie on the fixed grid: the fixed ones are 0 or 1, the moved ones are interpolated linearly, so that
        gradients reach the transform. None where the pair lacks labels on either side; without channels where no label
        is shared.
        """
        fixed, moving, shared = self.pair.fixed_labels, self.pair.moving_labels, self.shared_labels
        if fixed is None or moving is None or shared is None:
            return None
        values = shared.view(1, -1, *[1] * fixed.grid.ndim)  # (1, labels, 1, …)
        one, two = ((labels.data == values).to(self.pair.moving.data.dtype) for labels in (fixed, moving))
        return one, pull(Image(two, moving.grid), self.transform, onto=self.pair.fixed).data

    @cached_property
    def pushed(self) -> Points | None:
        """The fixed points in the moving world, or None where the pair has none."""
        return self.pair.fixed_points and push(self.pair.fixed_points, self.transform)

    @cached_property
    def displacement(self) -> Tensor:
        """The displacement on the fixed grid, `(B, d, *spatial)` in its voxels."""
        fixed = self.pair.fixed
        return self.transform.displacement(fixed.grid).to(fixed.data.device)

    @cached_property
    def is_finite(self) -> bool:
        """Whether the transform is finite on all of the fixed grid."""
        return bool(self.displacement.isfinite().all())

    @cached_property
    def jacobian(self) -> Tensor:
        """det ∇φ on the fixed grid by central differences, `(B, 1, *spatial)`."""
        return determinant(jacobian(self.displacement))

    @cached_property
    def mask(self) -> Tensor | None:
        """Voxels of the fixed grid within both masks, `(B, 1, *spatial)` bool, or None for all."""
        fixed, moved = self.pair.fixed.mask, None if self.pair.moving.mask is None else self.moved.mask
        if fixed is None or moved is None:
            return moved if fixed is None else fixed
        return fixed & moved


class Registered(Protocol):
    """The answer of a register: an object with a transform, fixed → moving, such as an `Alignment`."""

    @property
    def transform(self) -> Transform: ...


class Register(Protocol):
    """A callable that aligns two images: a network, a solver, or a chain of them."""

    def __call__(self, fixed: Image, moving: Image) -> Registered: ...


Objective = Callable[[Transform], Tensor]
"""What a solver makes small: a scalar, `()`, of a transform."""


def seen(pair: Pair, answer: Registered) -> Alignment:
    """Return the alignment of a whole pair, labels and all, by a register's answer to its images."""
    if isinstance(answer, Alignment):
        return replace(answer, pair=pair)
    return Alignment(pair, answer.transform)


def continued(start: Transform, further: Mapping[str, Transform]) -> dict[str, Transform]:
    """Return the further transforms of an answer to a moving image that was seen through `start`, with that start.

    They are start ∘ ψ; but `back` is ψ ∘ start⁻¹, for it comes from the moving world.
    """
    return {name: one @ start.inverse() if name == BACK else start @ one for name, one in further.items()}


def one_by_one(
    register: Callable[[Image, Image, Transform | None], Alignment],
    fixed: Image,
    moving: Image,
    start: Transform | None = None,
) -> Alignment:
    """Align a batch of pairs one at a time, for registers that take one pair, such as those that stop by themselves."""
    pair = Pair(fixed, moving)
    batch = one_batch({"the pair": pair.batch, "the start": 1 if start is None else start.batch})
    if batch == 1:
        return register(fixed, moving, start)
    first, *others = [register(fixed.nth(n), moving.nth(n), start and start.nth(n)) for n in range(batch)]
    counts = [answer.stats for answer in (first, *others) if answer.stats is not None]
    return Alignment(
        pair,
        first.transform.stack([other.transform for other in others]),
        {name: image.stack([other.maps[name] for other in others]) for name, image in first.maps.items()},
        {name: one.stack([other.transforms[name] for other in others]) for name, one in first.transforms.items()},
        Stats.of_all(counts) if counts else None,
    )
