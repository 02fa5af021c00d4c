"""Promises, and the error of one that was broken."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor


class BrokenContract(AssertionError):
    """A promise that was not kept. The message says where, what was promised and what came."""


def require(kept: bool, where: object, promised: str, came: object) -> None:
    """Raise an error unless a promise was kept.

    Args:
        kept: whether it was.
        where: who promised, and for which problem.
        promised: the promise, as a sentence.
        came: what was found in its place.

    Raises:
        BrokenContract: it was not kept.
    """
    if not kept:
        raise BrokenContract(f"{where}: {promised[0].lower()}{promised[1:]} was promised, and {came} came")


def tensors_of(thing: Any) -> list[Tensor]:
    """Return all tensors that dataclasses, mappings and sequences are made of, in a fixed order."""
    if isinstance(thing, Tensor):
        return [thing]
    if isinstance(thing, Mapping):
        return [tensor for value in thing.values() for tensor in tensors_of(value)]
    if isinstance(thing, tuple | list):
        return [tensor for value in thing for tensor in tensors_of(value)]
    if is_dataclass(thing):
        return [tensor for field in fields(thing) for tensor in tensors_of(getattr(thing, field.name))]
    return []


class Untouched:
    """A record of the tensors of some inputs, against which they are held after use.

    Args:
        things: what must stay as it is.
    """

    def __init__(self, *things: Any) -> None:
        self.tensors = tensors_of(things)
        self.before = [tensor.detach().clone() for tensor in self.tensors]

    def check(self, where: object) -> None:
        """Compare the inputs with what they were, to the bit.

        Raises:
            BrokenContract: one was changed.
        """
        changed = sum(not torch.equal(a, b) for a, b in zip(self.tensors, self.before, strict=True))
        require(changed == 0, where, "inputs that stay as they are", f"{changed} of {len(self.before)} changed tensors")


def check_finite(values: Tensor, where: object, what: str) -> None:
    """Look for what is not a number.

    Raises:
        BrokenContract: there is some.
    """
    wrong = int((~values.isfinite()).sum())
    require(wrong == 0, where, f"finite {what}", f"{wrong} of {values.numel()} that are not")
