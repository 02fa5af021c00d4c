"""What a notebook shows."""

import dataclasses
from typing import Any

from torch import Tensor

FEW = 16


def brief(thing: Any) -> str:
    """A dataclass in a few words: large tensors by their shape, and nothing that is not there."""
    members = ((field.name, getattr(thing, field.name)) for field in dataclasses.fields(thing))
    shown = [f"{name}={_shown(value)}" for name, value in members if value is not None]
    return f"{type(thing).__name__}({', '.join(shown)})"


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        few = value.numel() <= FEW
        return str(value.detach().double().round(decimals=4).tolist()) if few else "×".join(map(str, value.shape))
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))})"
    return repr(value)
