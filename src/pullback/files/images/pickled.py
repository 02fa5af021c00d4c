"""NumPy arrays from pickles, by an unpickler that loads nothing else."""

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from pullback.errors import InputError
from pullback.files.suffixes import refuse_absent

ALLOWED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "_codecs": ("encode",),
        "numpy": ("dtype", "ndarray"),
        "numpy._core.multiarray": ("_reconstruct",),
        "numpy._core.numeric": ("_frombuffer",),
    }
)
"""Names by which NumPy pickles arrays, by module."""
BROKEN = (ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError, ImportError, pickle.UnpicklingError)


def read_arrays(path: str | Path) -> tuple[np.ndarray, ...]:
    """Read arrays of numbers from a pickle of one array, or of a tuple or list of them.

    Raises:
        InputError: no such file, or a pickle of anything else.
    """
    refuse_absent(path)
    try:
        found = _Arrays(io.BytesIO(Path(path).read_bytes())).load()
        arrays = tuple(found) if isinstance(found, tuple | list) else (found,)
        kinds = sorted({_kind(array) for array in arrays} - {""})
        if not kinds:
            return arrays
        reason = f"it holds {', '.join(kinds)}"
    except BROKEN as error:
        reason = str(error)
    raise InputError(f"{path}: not a pickle of NumPy's arrays alone ({reason}); nothing else is read out of pickles")


class _Arrays(pickle.Unpickler):
    """An unpickler that loads only allowed names."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the object of an allowed name.

        Raises:
            UnpicklingError: another name.
        """
        today = module.replace("numpy.core.", "numpy._core.")  # its name before NumPy 2
        if name not in ALLOWED.get(today, ()):
            raise pickle.UnpicklingError(f"it holds {module}.{name}")
        return super().find_class(today, name)


def _kind(thing: object) -> str:
    """Return the kind of a thing that is no array of numbers, else an empty string."""
    if not isinstance(thing, np.ndarray):
        return type(thing).__name__
    return "" if thing.dtype.kind in "biuf" else f"arrays of {thing.dtype}"
