"""Pairs of numbered things that belong to somebody: of two people, in rounds, and some at random out of very many."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from math import isqrt
from typing import TypeVar

import torch

Item = TypeVar("Item")
Numbers = tuple[int, int]

WHOLE = 2**20
"""Pairs up to which a random order of all of them is made, to choose some."""


def pairs_of_two(who: Sequence[object], limit: int | None = None) -> list[Numbers]:
    """Return all ordered pairs of things of different owners, or `limit` of them, as in `ordered_pairs`."""
    n = len(who)
    total = n**2 - sum(count**2 for count in Counter(who).values())
    if limit is None or limit >= total:
        return [(a, b) for a in range(n) for b in range(n) if who[a] != who[b]]

    def partners(i: int) -> Iterator[Numbers]:
        return ((i, (i + k) % n) for k in range(1, n) if who[(i + k) % n] != who[i])

    return [*islice(in_rounds([partners(i) for i in range(n)]), max(limit, 0))]


def in_rounds(ways: Sequence[Iterator[Item]]) -> Iterator[Item]:
    """Yield one of each, round by round, until all are at their end."""
    going = list(ways)
    while going:
        left = []
        for one in going:
            for item in islice(one, 1):
                yield item
                left.append(one)
        going = left


def drawn_pairs(who: Sequence[object], count: int, generator: torch.Generator) -> list[Numbers]:
    """Draw about `count` different unordered pairs of things of different owners, or more; all, where there are few.

    Of very many, whose order would take memory with the square of their number, some are drawn until they are enough.
    """
    total = len(who) * (len(who) - 1) // 2
    if total <= WHOLE:
        return _between(who, torch.randperm(total, generator=generator).tolist())
    drawn: dict[int, None] = {}
    found: list[Numbers] = []
    while len(found) < count and len(drawn) < total:
        more = torch.randint(total, (max(count, 1),), generator=generator).tolist()
        fresh = [number for number in dict.fromkeys(more) if number not in drawn]
        drawn |= dict.fromkeys(fresh)
        found += _between(who, fresh)
    return found


def _between(who: Sequence[object], numbers: Iterable[int]) -> list[Numbers]:
    """Return the pairs at these places of the list (1, 0), (2, 0), (2, 1), (3, 0), …, without those of one owner."""
    places = [((1 + isqrt(1 + 8 * number)) // 2, number) for number in numbers]
    ways = [(n, number - n * (n - 1) // 2) for n, number in places]
    return [(a, b) for a, b in ways if who[a] != who[b]]
