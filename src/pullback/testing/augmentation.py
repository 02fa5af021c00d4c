"""The contract of augmentations, which change an example at random before a network sees it."""

from collections.abc import Callable
from typing import TypeVar

import torch

from pullback.example import Example
from pullback.numerics.random import make_generator
from pullback.testing.contract import Untouched, check_finite, require, tensors_of

Seen = TypeVar("Seen", bound=Example)


def check_augmentation(augment: Callable[[Seen, torch.Generator], Seen], example: Seen, *, random: bool = True) -> None:
    """Hold an augmentation against its contract, on one example.

    The same generator gives the same example and another generator another one, which is of the same kind and name
    and finite; what came in stays as it is; and nothing is drawn from anywhere else.

    Args:
        augment: what is checked.
        example: that it changes.
        random: whether it draws at all.

    Raises:
        BrokenContract: a promise was not kept.
    """
    where = f"{type(augment).__name__} on {example.name or 'an example'}"
    untouched, before = Untouched(example), torch.get_rng_state()
    first, same, other = (augment(example, make_generator(seed)) for seed in (1, 1, 2))
    untouched.check(where)
    require(torch.equal(before, torch.get_rng_state()), where, "draws from its generator alone", "draws from elsewhere")
    alike = type(first) is type(example) and first.name == example.name
    require(alike, where, f"a {type(example).__name__} of the same name", f"{type(first).__name__} {first.name}")
    for tensor in tensors_of(first):
        if tensor.is_floating_point():
            check_finite(tensor, where, "numbers")
    require(_equal(first, same), where, "the same example for the same generator", "another one")
    if random:
        require(not _equal(first, other), where, "another example for another generator", "the same one")


def _equal(one: Example, other: Example) -> bool:
    pairs = zip(tensors_of(one), tensors_of(other), strict=False)
    return len(tensors_of(one)) == len(tensors_of(other)) and all(torch.equal(a, b) for a, b in pairs)
