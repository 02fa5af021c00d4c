"""Heritability: whether relatives have more alike scores than others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pullback.errors import InputError

UNRELATED = "unrelated"


@dataclass(frozen=True, eq=False)
class Kin:
    """A comparison of the pairs of one kinship.

    Attributes:
        pairs: how many there are.
        difference: mean absolute difference of the scores of a pair, by dimension.
        p: that it is no smaller than of people at random, by dimension; None of the unrelated.
    """

    pairs: int
    difference: tuple[float, ...]
    p: tuple[float, ...] | None


def kinships(families: Sequence[str], twins: Sequence[str]) -> dict[str, list[tuple[int, int]]]:
    """Return the pairs of each kinship: of one family by what both twins are, else siblings, and of two, unrelated.

    Args:
        families: of each person, by name; "" of nobody's.
        twins: `"identical"`, `"fraternal"`, …, or "" of who is none.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    for i, (family, twin) in enumerate(zip(families, twins, strict=True)):
        for j in range(i + 1, len(families)):
            alike = family != "" and family == families[j]
            kin = (twin if twin and twin == twins[j] else "siblings") if alike else UNRELATED
            found.setdefault(kin, []).append((i, j))
    return dict(sorted(found.items(), key=lambda kin: (kin[0] == UNRELATED, kin[0])))


def heritability(
    scores: Tensor, pairs: Mapping[str, Sequence[tuple[int, int]]], generator: torch.Generator, samples: int = 2000
) -> dict[str, Kin]:
    """Compare the scores of relatives, and test them by permutation: families stay, and who is in them is drawn.

    Args:
        scores: `(n, D)`.
        pairs: of each kinship, as of `kinships`.
        generator: of the permutations.
        samples: permutations.

    Raises:
        InputError: a kinship without pairs.
    """
    if not all(pairs.values()):
        raise InputError("heritability: a kinship without pairs; leave it out")
    values = scores.detach().double().cpu().numpy()
    index = {kin: np.array(listed).T for kin, listed in pairs.items()}
    seen = {kin: _apart(values, at) for kin, at in index.items()}
    less = {kin: np.zeros(values.shape[1]) for kin in index}
    related = [kin for kin in index if kin != UNRELATED]
    for _ in range(samples if related else 0):
        drawn = values[torch.randperm(len(values), generator=generator).numpy()]
        for kin in related:
            less[kin] += _apart(drawn, index[kin]) <= seen[kin] * (1 + 1e-12)
    return {
        kin: Kin(
            len(pairs[kin]),
            tuple(seen[kin].tolist()),
            tuple(((1 + less[kin]) / (1 + samples)).tolist()) if kin in related else None,
        )
        for kin in pairs
    }


def _apart(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    return np.abs(values[at[0]] - values[at[1]]).mean(0)
