"""The protocol of metrics, and what they share."""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ClassVar, Protocol, TypeVar, cast

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair
from pullback.space import Grid

Measure = TypeVar("Measure", bound=Callable[[Any, Alignment], dict[str, float]])


class Metric(Protocol):
    """A function from an alignment of one pair (a batch of one, as `of_one` checks) to numbers by name and unit.

    An empty answer says that the pair lacks what the metric needs (labels, landmarks, a known truth). A checkpoint may
    be chosen by the number called `name`, in the sense of `higher_is_better`.
    """

    higher_is_better: ClassVar[bool]

    @property
    def name(self) -> str: ...

    def __call__(self, alignment: Alignment) -> dict[str, float]: ...


def of_one(measure: Measure) -> Measure:
    """Wrap the call of a metric to refuse what it cannot describe.

    A batch of several pairs is a ValueError: no number describes them all. A transform that is not finite is a
    FloatingPointError: it folds nowhere and matches by chance, and its numbers would count as a success.
    """

    @wraps(measure)
    def checked(self: Any, alignment: Alignment) -> dict[str, float]:
        if alignment.batch != 1:
            raise ValueError(
                f"{type(self).__name__} measures one pair, and this is a batch of {alignment.batch}: "
                f"fixed {tuple(alignment.pair.fixed.data.shape)}, moving {tuple(alignment.pair.moving.data.shape)}, "
                f"{alignment.transform.batch} transforms; measure each of `alignment.each()`"
            )
        if not alignment.is_finite:
            raise FloatingPointError(
                f"{alignment.pair.name or 'a pair'}: the transform is not finite, and {type(self).__name__} measures "
                f"nothing of it; did the training or descent diverge?"
            )
        return measure(self, alignment)

    return cast(Measure, checked)


def numbers_of(alignment: Alignment, metrics: Sequence[Metric]) -> dict[str, float]:
    """Return the numbers of all metrics for one alignment, in their order."""
    with torch.no_grad():
        return {name: value for metric in metrics for name, value in metric(alignment).items()}


def foreground(alignment: Alignment) -> Tensor:
    """Return the fixed image's mask where it has one, else its voxels above their minimum: `(B, 1, *spatial)` bool."""
    fixed = alignment.pair.fixed
    return fixed.mask if fixed.mask is not None else (fixed.data > fixed.data.min()).any(1, keepdim=True)


def with_mean(name: str, each: Mapping[int, float]) -> dict[str, float]:
    """Return numbers of labels as `name/label`, after their mean as `name`; nothing where there are none."""
    return {name: sum(each.values()) / len(each), **{f"{name}/{k}": v for k, v in each.items()}} if each else {}


def label_values(*maps: Tensor) -> list[int]:
    """Return the labels above background in any of the maps, sorted."""
    return sorted({int(v) for m in maps for v in m.unique().tolist() if v > 0})


def known_labels(pair: Pair) -> tuple[list[int], int]:
    """Return the labels above background that both images of a pair have, and how many only one of them has.

    What is known before a registration decides what has to answer after it: these labels alone, and each of them.
    """
    if pair.label_sets is None:
        return [], 0
    one, two = (set(labels.tolist()) for labels in pair.label_sets)
    return sorted(one & two), len(one ^ two)


def farthest(grid: Grid) -> float:
    """Return the diagonal of a grid in mm, edge to edge: no distance in it is greater."""
    return float((grid.spacing * torch.tensor(grid.shape)).norm())
