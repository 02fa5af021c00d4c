"""A pair, a pair seen through a transform, and what it means to register and to supervise."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from pullback.numerics.difference import determinant, jacobian
from pullback.space import Image, Labels, Points, Transform, pull, push


@dataclass(frozen=True, eq=False)
class Pair:
    """Two images to align, and what is known of them. `truth`, where known, maps fixed → moving."""

    fixed: Image
    moving: Image
    fixed_labels: Labels | None = None
    moving_labels: Labels | None = None
    fixed_points: Points | None = None
    moving_points: Points | None = None
    truth: Transform | None = None
    name: str = ""

    def to(self, device: torch.device) -> Self:
        """The images, labels and points on `device`; `truth` stays where it is."""
        known: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        known = {k: v.to(device) for k, v in known.items() if isinstance(v, Image | Labels | Points)}
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
    def pushed(self) -> Points | None:
        """The fixed points in the moving world, or None where the pair has none."""
        return self.pair.fixed_points and push(self.pair.fixed_points, self.transform)

    @cached_property
    def jacobian(self) -> Tensor:
        """det ∇φ on the fixed grid, `(B, 1, *spatial)`."""
        return determinant(jacobian(self.transform.displacement(self.pair.fixed.grid)))

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
    """How a network learns from a pair: named losses, whose sum is descended. `progress` runs 0 → 1."""

    def __call__(self, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]: ...


Objective = Callable[[Transform], Tensor]
"""What a solver makes small: a scalar, `()`, of a transform."""
