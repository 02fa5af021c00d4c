"""A pair, a pair seen through a transform, and what it means to register and to supervise."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from pullback.numerics.difference import determinant, jacobian
from pullback.space import Image, Labels, Points, Transform, brief, pull, push


@dataclass(frozen=True, eq=False)
class Pair:
    """Two images to align, and what is known of them. `truth`, where known, maps fixed → moving.

    Both images are 2-D or both 3-D, of as many channels, and labels lie on their image's grid (as an `Image` has it of
    its mask).

    Raises:
        TypeError: what should be an image is none.
        ValueError: dimensions or channels differ, or labels lie on another grid than their image.
    """

    fixed: Image
    moving: Image
    fixed_labels: Labels | None = None
    moving_labels: Labels | None = None
    fixed_points: Points | None = None
    moving_points: Points | None = None
    truth: Transform | None = None
    name: str = ""

    __repr__ = brief

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
        for side, grid, labels in (("fixed", fixed, self.fixed_labels), ("moving", moving, self.moving_labels)):
            if labels is not None and labels.grid != grid:
                differ = "the affines differ"
                if labels.grid.shape != grid.shape:
                    differ = f"shape {labels.grid.shape} against {grid.shape}"
                raise ValueError(
                    f"the {side} labels lie on another grid than the {side} image: {differ}; pull them onto it first"
                )

    def to(self, device: torch.device) -> Self:
        """All that it knows, on `device`."""
        known: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        known = {k: v.to(device) for k, v in known.items() if isinstance(v, Image | Labels | Points | Transform)}
        return replace(self, **known)


@dataclass(frozen=True, eq=False)
class Alignment:
    """A pair seen through a transform; its consequences are computed once, when asked for."""

    pair: Pair
    transform: Transform

    @cached_property
    def moved(self) -> Image:
        """The moving image, pulled onto the fixed grid."""
        return pull(self.pair.moving, self.transform, onto=self.pair.fixed)

    @cached_property
    def moved_labels(self) -> Labels | None:
        """The moving labels on the fixed grid, or None where the pair has none."""
        return self.pair.moving_labels and pull(self.pair.moving_labels, self.transform, onto=self.pair.fixed)

    @cached_property
    def memberships(self) -> tuple[Tensor, Tensor] | None:
        """Where each label above background is, of the fixed and of the moved ones: `(B, labels, *spatial)` each.

        On the fixed grid: 0 or 1, and what linear interpolation makes of that, so that gradients reach the transform.

        None where the pair lacks labels on either side; without channels where they are all background.
        """
        fixed, moving = self.pair.fixed_labels, self.pair.moving_labels
        if fixed is None or moving is None:
            return None
        values = torch.cat([labels.data.unique() for labels in (fixed, moving)]).unique()
        values = values[values > 0].view(1, -1, *[1] * fixed.grid.ndim)
        one, two = ((labels.data == values).to(self.pair.moving.data.dtype) for labels in (fixed, moving))
        return one, pull(Image(two, moving.grid), self.transform, onto=self.pair.fixed).data

    @cached_property
    def pushed(self) -> Points | None:
        """The fixed points in the moving world, or None where the pair has none."""
        return self.pair.fixed_points and push(self.pair.fixed_points, self.transform)

    @cached_property
    def jacobian(self) -> Tensor:
        """det ∇φ on the fixed grid, `(B, 1, *spatial)`."""
        fixed = self.pair.fixed
        return determinant(jacobian(self.transform.displacement(fixed.grid).to(fixed.data.device)))

    @cached_property
    def mask(self) -> Tensor | None:
        """Where both images may be looked at, `(B, 1, *spatial)` bool, or None for everywhere."""
        fixed, moved = self.pair.fixed.mask, None if self.pair.moving.mask is None else self.moved.mask
        if fixed is None or moved is None:
            return moved if fixed is None else fixed
        return fixed & moved


class Registered(Protocol):
    """The answer of a register: anything with a transform, fixed → moving. An `Alignment` is one."""

    @property
    def transform(self) -> Transform: ...


class Register(Protocol):
    """Whatever aligns two images: a network, a solver, a chain of them."""

    def __call__(self, fixed: Image, moving: Image) -> Registered: ...


class Supervision(Protocol):
    """How a network learns from a pair: named losses, whose sum is descended. `progress` runs 0 → 1.

    What has a slash in its name, such as `weight/ncc`, is logged and not part of the sum.
    """

    def __call__(self, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]: ...


Objective = Callable[[Transform], Tensor]
"""What a solver makes small: a scalar, `()`, of a transform."""
