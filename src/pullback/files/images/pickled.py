"""Arrays out of pickles, read as data: no name in them is imported, and nothing in them runs."""

import pickletools
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from pullback.errors import InputError
from pullback.files.suffixes import refuse_absent

VALUES = ("BININT", "LONG1", "LONG4", "BINUNICODE", "BINBYTES", "BYTEARRAY", "SHORT_BINUNICODE", "SHORT_BINBYTES")
BROKEN = (ValueError, KeyError, IndexError, TypeError, AttributeError)
MARK = object()
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "MARK": MARK}


def read_arrays(path: str | Path) -> tuple[np.ndarray, ...]:
    """The arrays of numbers that were pickled, as a tuple or a list of them, by protocol 2 or later.

    Raises:
        InputError: no such file, or a pickle of anything else.
    """
    refuse_absent(path)
    try:
        found = _value(Path(path).read_bytes())
        arrays = tuple(found) if isinstance(found, tuple | list) else (found,)
        if all(isinstance(array, np.ndarray) for array in arrays):
            return arrays
        reason = "it holds " + ", ".join(sorted({type(array).__name__ for array in arrays}))
    except BROKEN as error:
        reason = str(error)
    raise InputError(f"{path}: not a pickle of NumPy's arrays alone ({reason}); nothing else is read out of pickles")


def _value(stored: bytes) -> Any:
    """What the few operations make that arrays are pickled by."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for operation, argument, _ in pickletools.genops(stored):
        name = operation.name
        if name.startswith(VALUES):
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name == "GLOBAL":
            stack.append(_maker(*argument.split(" ")))
        elif name in MAKES:
            count, make = MAKES[name]
            taken = _taken(stack, len(stack) - count)
            stack.append(make(*taken))
            if name == "BUILD":  # in place, to whoever remembers it
                memo = {place: stack[-1] if known is taken[0] else known for place, known in memo.items()}
        elif name == "TUPLE":
            stack.append(tuple(_marked(stack)))
        elif name == "APPENDS":
            items = _marked(stack)
            stack[-1].extend(items)
        elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"it does {name}")
    (value,) = stack
    return value


def _taken(stack: list[Any], start: int) -> list[Any]:
    """What lies from there on; it leaves the stack."""
    taken = stack[start:]
    del stack[start:]
    return taken


def _marked(stack: list[Any]) -> list[Any]:
    start = max(place for place, thing in enumerate(stack) if thing is MARK)
    return _taken(stack, start)[1:]


def _maker(module: str, name: str) -> Callable[..., Any]:
    """What stands for a name: of functions by which NumPy stores arrays, ours."""
    known = module == "_codecs" or module.partition(".")[0] == "numpy"
    if not known or name not in MAKERS:
        raise ValueError(f"it holds {module}.{name}")
    return MAKERS[name]


def _dtype(code: str, *_: bool) -> np.dtype:
    dtype = np.dtype(str(code))
    if dtype.kind not in "biuf":
        raise ValueError(f"it holds arrays of {dtype}")
    return dtype


def _array(values: bytes, dtype: np.dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    return np.frombuffer(values, dtype).reshape(shape, order=order)  # type: ignore[call-overload]


def _built(bare: Any, state: tuple[Any, ...]) -> np.dtype | np.ndarray:
    if isinstance(bare, np.dtype):
        return bare.newbyteorder(state[1])
    _, shape, dtype, by_columns, values = state
    return _array(values, dtype, shape, "F" if by_columns else "C")


MAKERS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "encode": lambda text, code: text.encode(code),
        "dtype": _dtype,
        "ndarray": lambda: None,
        "_reconstruct": lambda *_: object(),
        "_frombuffer": _array,
    }
)
MAKES: Mapping[str, tuple[int, Callable[..., Any]]] = MappingProxyType(
    {
        "EMPTY_LIST": (0, list),
        "TUPLE1": (1, lambda *things: things),
        "TUPLE2": (2, lambda *things: things),
        "TUPLE3": (3, lambda *things: things),
        "STACK_GLOBAL": (2, _maker),
        "REDUCE": (2, lambda maker, arguments: maker(*arguments)),
        "BUILD": (2, _built),
    }
)
