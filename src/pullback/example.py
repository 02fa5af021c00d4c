"""The protocols of training: examples, from which networks learn one at a time, and supervisions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from pullback.space import Image, Points, Transform, short_repr
from pullback.stats import Stats


class Example(Protocol):
    """A unit of training: a pair of images or of clouds, a labelled image, a slice and its plate, a group, or a batch.

    `images` tell a run the voxel size, shape, channels and dimensions it learned from; there may be none.
    """

    @property
    def name(self) -> str: ...
    @property
    def images(self) -> tuple[Image, ...]: ...
    def to(self, device: torch.device) -> Self: ...


class Supervision(Protocol):
    """A function from a network and an example to named losses, whose sum is minimised. `progress` runs from 0 to 1.

    The network is called with the arguments that it takes: `network(pair.fixed, pair.moving)`,
    `network(subject.image)`. Values with a slash in their name, such as `weight/ncc`, are logged and not part of the
    sum.
    """

    def __call__(self, network: Callable[..., Any], example: Any, progress: float, /) -> dict[str, Tensor]: ...


@dataclass(frozen=True, eq=False)
class PointPair:
    """Two clouds to align, and what is known of them, all in RAS mm.

    Attributes:
        fixed, moving: `(1, N, d)` and `(1, M, d)`.
        fixed_surface, moving_surface: points on the organs' surfaces; both or neither.
        fixed_landmarks, moving_landmarks: one to one; both or neither.
        truth: where the fixed points lie in the moving world, `(1, N, d)`: a label, or the truth of a synthetic pair.
        start: where the search for the fixed points begins, `(1, N, d)`; None leaves that to the register.
        chosen: indices `(n,)` of the fixed points that a loss is computed at; None for all.

    Raises:
        ValueError: several clouds, clouds of other dimensions, or another number of truths or starts than fixed points.
    """

    fixed: Points
    moving: Points
    fixed_surface: Points | None = None
    moving_surface: Points | None = None
    fixed_landmarks: Points | None = None
    moving_landmarks: Points | None = None
    truth: Points | None = None
    start: Points | None = None
    chosen: Tensor | None = None
    name: str = ""

    __repr__ = short_repr

    def __post_init__(self) -> None:
        shapes = {f.name: tuple(v.data.shape) for f in fields(self) if isinstance(v := getattr(self, f.name), Points)}
        if len({(shape[0], shape[2]) for shape in shapes.values()} | {(1, shapes["fixed"][2])}) > 1:
            raise ValueError(f"PointPair: one cloud of each, (1, N, d), in as many dimensions expected, got {shapes}")
        marked = ("fixed_landmarks", "moving_landmarks")
        for one, other in (("truth", "fixed"), ("start", "fixed"), marked, marked[::-1]):
            if one in shapes and shapes[one] != shapes.get(other):
                raise ValueError(f"PointPair: as many {one} as {other} points expected, got {shapes}")
        if (self.fixed_surface is None) != (self.moving_surface is None):
            raise ValueError("PointPair: the surfaces of both or of neither expected, got one")

    @property
    def images(self) -> tuple[Image, ...]:
        """The images of the example: none."""
        return ()

    @property
    def surfaces(self) -> tuple[Points, Points] | None:
        """The surfaces of both organs, or None where they are not known."""
        if self.fixed_surface is None or self.moving_surface is None:
            return None
        return self.fixed_surface, self.moving_surface

    def each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the pair with all its points `(1, N, d)`, of both worlds, changed by one function."""
        known: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        known = {k: replace(v, data=change(v.data)) for k, v in known.items() if isinstance(v, Points)}
        return replace(self, **known)

    def to(self, device: torch.device) -> Self:
        """Return the pair with all its parts on `device`."""
        known: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        known = {k: v.to(device) for k, v in known.items() if isinstance(v, Points | Tensor)}
        return replace(self, **known)


@dataclass(frozen=True, eq=False)
class PointAlignment:
    """Two clouds seen through a transform, the answer of a register of clouds that knows more than it.

    Attributes:
        pair: the clouds, of the points that took part.
        transform: fixed → moving.
        columns: what it knows of each fixed point, `(N,)` by name.
        stats: how the transform was found.
        remarks: what a person should know, in words.
        doubts: why the register itself does not believe the answer, in words.

    Raises:
        ValueError: a column of another length.
    """

    pair: PointPair
    transform: Transform
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    stats: Stats | None = None
    remarks: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    __repr__ = short_repr

    def __post_init__(self) -> None:
        count = self.pair.fixed.data.shape[1]
        for name, column in self.columns.items():
            if column.shape != (count,):
                found = tuple(column.shape)
                raise ValueError(f"PointAlignment: {name!r} of {count} fixed points expected, got {found}")


def seen_points(pair: PointPair, answer: Transform | PointAlignment) -> PointAlignment:
    """Return the alignment of two clouds by a register's answer to them, which may be the transform alone."""
    return PointAlignment(pair, answer) if isinstance(answer, Transform) else answer


PointRegister = Callable[[PointPair, nn.Module | None], Transform | PointAlignment]
"""A register of clouds that are not matched: of a pair, and the network whose features it uses, or None."""
