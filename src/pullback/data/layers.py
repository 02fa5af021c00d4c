"""Data sets that are made of others: folds, pre-alignments, children who grow, painted lesions, single scans."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pullback.data.folds import Folds
from pullback.data.growing_brains import GrowingBrains
from pullback.data.lesioned import LesionedPairs
from pullback.data.prealigned import Prealigned
from pullback.data.single_scans import SingleScans

Layer = Folds | Prealigned | GrowingBrains | LesionedPairs | SingleScans


def layers(data: Any) -> Iterator[Any]:
    """Yield a data set, the one that it is made of, and so on, the innermost last."""
    yield data
    while isinstance(data, Layer):
        data = data.data
        yield data


def innermost(data: Any) -> Any:
    """Return the innermost of the layers of a data set, with the folder that the outer ones name."""
    *outer, last = layers(data)
    for layer in reversed(outer):
        last = replace(last, root=layer.root) if layer.root else last
    return last


def with_innermost(data: Any, changed: Any) -> Any:
    """Return a data set with another innermost one; folders stay as they are named."""
    if not isinstance(data, Layer):
        return changed
    inner: Any = data.data
    kept = {"root": inner.root} if data.root else {}
    return replace(data, data=replace(with_innermost(inner, changed), **kept))
