"""A cache of loaded things, limited in bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, is_dataclass
from threading import Lock
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")


@dataclass(eq=False)
class Memory:
    """A cache by key, up to `limit` bytes of tensors, which drops what was asked for longest ago.

    Threads may share one: two that ask at once for what is not there both load it, and the later answer is kept.
    """

    limit: int
    _kept: OrderedDict[Hashable, tuple[Any, int]] = field(default_factory=OrderedDict, init=False, repr=False)
    _bytes: int = field(default=0, init=False, repr=False)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    def get(self, key: Hashable, load: Callable[[], T]) -> T:
        """Return what is kept under `key`, else the answer of `load()`."""
        with self._lock:
            if key in self._kept:
                self._put(key, self._kept[key][0])  # it may have grown by what was computed of it
                return self._kept[key][0]
        thing = load()
        with self._lock:
            self._put(key, thing)
            while self._kept and self._bytes > self.limit:
                _, (_, dropped) = self._kept.popitem(last=False)
                self._bytes -= dropped
        return thing

    def _put(self, key: Hashable, thing: Any) -> None:
        """Keep a thing as the latest, with its size."""
        _, before = self._kept.pop(key, (None, 0))
        size = tensor_bytes(thing)
        self._kept[key] = thing, size
        self._bytes += size - before


def tensor_bytes(thing: Any) -> int:
    """Return the bytes of all tensors in dataclasses, lists and mappings, with cached properties."""
    if isinstance(thing, Tensor):
        return thing.nbytes
    thing = list(thing.values()) if isinstance(thing, Mapping) else thing
    parts = thing if isinstance(thing, list) else list(vars(thing).values()) if is_dataclass(thing) else []
    return sum(map(tensor_bytes, parts))
