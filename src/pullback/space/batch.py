"""The size of a batch: the number of pairs."""

from collections.abc import Mapping


def one_batch(sizes: Mapping[str, int]) -> int:
    """Return the number of pairs that parts of these sizes make: each part has all B of them, or one that serves each.

    Raises:
        ValueError: two sizes above one that differ.
    """
    several = {name: size for name, size in sizes.items() if size != 1}
    if len(set(several.values())) > 1:
        told = ", ".join(f"{name} {size}" for name, size in several.items())
        raise ValueError(f"a batch is of as many pairs in all its parts, or of one part for all; got {told}")
    return next(iter(several.values()), 1)
