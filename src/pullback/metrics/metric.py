"""What a metric is."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

from torch import Tensor

from pullback.alignment import Alignment


class Metric(Protocol):
    """Numbers to report of an alignment of one pair (a batch of one), by name with the unit.

    An empty answer says that the pair lacks what the metric needs (labels, landmarks, a known truth). The number called
    `name` is the one a checkpoint may be chosen by, in the sense of `higher_is_better`.
    """

    higher_is_better: ClassVar[bool]

    @property
    def name(self) -> str: ...

    def __call__(self, alignment: Alignment) -> dict[str, float]: ...


def numbers_of(alignment: Alignment, metrics: Sequence[Metric]) -> dict[str, float]:
    """What all the metrics say of one alignment, in their order."""
    return {name: value for metric in metrics for name, value in metric(alignment).items()}


def foreground(alignment: Alignment) -> Tensor:
    """`(B, 1, *spatial)` bool: the fixed image's mask where it has one, else its voxels above their minimum."""
    fixed = alignment.pair.fixed
    return fixed.mask if fixed.mask is not None else (fixed.data > fixed.data.min()).any(1, keepdim=True)


def with_mean(name: str, each: Mapping[int, float]) -> dict[str, float]:
    """Numbers of labels as `name/label`, after their mean as `name`; nothing where there are none."""
    return {name: sum(each.values()) / len(each), **{f"{name}/{k}": v for k, v in each.items()}} if each else {}


def label_values(*maps: Tensor) -> list[int]:
    """The labels above background in any of the maps, sorted."""
    return sorted({int(v) for m in maps for v in m.unique().tolist() if v > 0})
