"""Drawn and named splits of subjects."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from pullback.data.pattern import some
from pullback.errors import InputError
from pullback.numerics.random import drawn_number

Split = tuple[str, ...] | float
EVERYONE = 1.0


def draw_splits(
    names: Collection[str], test: Split, validation: Split, seed: int, least: int
) -> dict[str, tuple[str, ...]]:
    """Return the subjects of each split: as they are named, or by the number in [0, 1) that seed and name alone give.

    Args:
        names: of all subjects.
        test, validation: names, or a share; `EVERYONE` for test leaves nobody for the others.
        least: subjects of a split that is drawn, as far as there are some.
    """
    chosen = {name for split in (test, validation) if isinstance(split, tuple) for name in split}
    drawn = sorted((drawn_number(seed, name), name) for name in set(names) - chosen)
    splits: dict[str, tuple[str, ...]] = {}
    below = 0.0
    for kind, split in (("test", test), ("validation", validation)):
        if isinstance(split, tuple):
            splits[kind] = split
            continue
        below += split
        count = max(least, sum(number < below for number, _ in drawn))
        splits[kind] = tuple(name for _, name in drawn[:count])
        drawn = drawn[count:]
    return splits | {"train": tuple(sorted(name for _, name in drawn))}


def some_of(names: Collection[str], share: float | None, seed: int = 0, least: int = 1) -> tuple[str, ...]:
    """Return a share of these names, by the seed and the names alone, in their order; a smaller one is part of it.

    Args:
        names: of subjects.
        share: of them, above 0 and up to 1; None for all.
        seed: of the draw.
        least: how many are left at least, as far as there are some.

    Raises:
        InputError: no such share.
    """
    if share is None:
        return tuple(names)
    if not 0 < share <= 1:
        raise InputError(f"data.learned: a share of the subjects above 0 and up to 1 expected, got {share:g}")
    order = sorted(names, key=lambda name: (drawn_number(seed, f"learned {name}"), name))
    kept = {*order[: max(least, round(share * len(order)))]}
    return tuple(name for name in names if name in kept)


def known_as(split: Split, aliases: Mapping[str, str], root: str) -> Split:
    """Return a split whose names are those of subjects, where some are given as what else they are called.

    Raises:
        InputError: nobody is called so.
    """
    if not isinstance(split, tuple):
        return split
    for name in split:
        if name not in aliases:
            raise InputError(
                f"{root}: no subject {name!r} for the splits; found {some(set(aliases.values()))}. All images of a "
                f"person are in one split, by the name of the person"
            )
    return tuple(aliases[name] for name in split)


def check_splits(test: Split, validation: Split, root: str) -> None:
    """Refuse names that are given twice, and shares that leave nothing to train on unless all is for test.

    Raises:
        InputError: they are so, or validation is named and test a share.
    """
    if isinstance(validation, tuple) and not isinstance(test, tuple):
        raise InputError("validation_split names subjects, so test_split must name its own, not be a share")
    names = Counter(_names(test, validation))
    for name, often in names.items():
        if often > 1:
            raise InputError(f"{root}: subject {name!r} is named twice in the splits; name it in one of them")
    shares = [split for split in (test, validation) if not isinstance(split, tuple)]
    if any(share < 0 for share in shares) or (sum(shares) >= 1 and test != EVERYONE):
        raise InputError(
            f"shares for test and validation of {shares}: none below 0 and less than 1 together; data.test_split=1 "
            f"tests on everyone, to evaluate on people that a run has never seen"
        )


def _names(*splits: Split) -> Iterable[str]:
    return [name for split in splits if isinstance(split, tuple) for name in split]


def too_few(splits: Mapping[str, Sequence[str]], least: int, root: str) -> InputError:
    """Return the error of splits of which one is too small."""
    sizes = {kind: len(group) for kind, group in splits.items()}
    return InputError(
        f"{root}: {sum(sizes.values())} subjects make splits of {sizes}; each needs at least {least}: add some, "
        f"take smaller shares or another seed, or name the subjects of validation and test"
    )
