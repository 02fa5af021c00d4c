"""The protocol of metrics, and what they share."""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ClassVar, Protocol, TypeVar, cast

from torch import Tensor

from pullback.alignment import Alignment

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
    """Wrap the call of a metric to refuse a batch of several pairs with a ValueError: no number describes them all."""

    @wraps(measure)
    def checked(self: Any, alignment: Alignment) -> dict[str, float]:
        if alignment.batch != 1:
            raise ValueError(
                f"{type(self).__name__} measures one pair, and this is a batch of {alignment.batch}: "
                f"fixed {tuple(alignment.pair.fixed.data.shape)}, moving {tuple(alignment.pair.moving.data.shape)}, "
                f"{alignment.transform.batch} transforms; measure each of `alignment.each()`"
            )
        return measure(self, alignment)

    return cast(Measure, checked)


def numbers_of(alignment: Alignment, metrics: Sequence[Metric]) -> dict[str, float]:
    """Return the numbers of all metrics for one alignment, in their order."""
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
