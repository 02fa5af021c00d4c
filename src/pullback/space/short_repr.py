"""Short representations, as a notebook shows them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

FEW = 16


def short_repr(thing: Any) -> str:
    """Return a dataclass in a few words: large tensors by their shape, and no empty fields."""
    members = ((field.name, getattr(thing, field.name)) for field in dataclasses.fields(thing))
    shown = [f"{name}={_shown(value)}" for name, value in members if value is not None and not _is_empty(value)]
    return f"{type(thing).__name__}({', '.join(shown)})"


def _is_empty(value: Any) -> bool:
    return isinstance(value, Mapping) and not value


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        few = value.numel() <= FEW
        return str(value.detach().double().round(decimals=4).tolist()) if few else "×".join(map(str, value.shape))
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {_shown(item)}' for name, item in value.items())}}}"
    if isinstance(value, tuple):
        if len(value) > FEW:
            return f"({', '.join(map(_shown, value[:2]))}, … {len(value)} in all)"
        return f"({', '.join(map(_shown, value))})"
    return repr(value)
