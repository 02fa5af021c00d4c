"""Weights of people by their age, for templates that change with it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pullback.errors import InputError

REACH = 2.0
"""Bandwidths from an age, beyond which people weigh nothing."""
FEWEST = 2.0
"""People, by 1 / Σ w², of whom a template is made at least."""


def template_ages(ages: Tensor, count: int) -> list[float]:
    """Return `count` evenly spaced ages, of which the first and the last have as much on their outer side as between.

    Raises:
        InputError: no template, or several of people of one age.
    """
    low, high = float(ages.min()), float(ages.max())
    if count < 1 or (count > 1 and low == high):
        raise InputError(f"ages: one template or more of ages that differ expected, got {count} of {low:g} to {high:g}")
    return [low + (high - low) * (n + 0.5) / count for n in range(count)]


def usual_bandwidth(ages: Tensor, at: Sequence[float]) -> float:
    """Return half the distance between two templates; of one alone the deviation of the ages."""
    apart = [b - a for a, b in zip(sorted(at), sorted(at)[1:], strict=False) if b > a]
    return min(apart) / 2 if apart else float(ages.std()) if len(ages) > 1 else 1.0


def age_weights(ages: Tensor, at: float, bandwidth: float) -> Tensor:
    """Return the weight of each person in the template of an age, `(n,)` float64, 1 in sum: a Gaussian of the distance.

    Davis et al. 2010 (population shape regression). People further than `REACH` bandwidths away weigh nothing.
    A bandwidth of 0 takes those of this very age, all alike.

    Raises:
        InputError: too few people are near.
    """
    away = (ages.double() - at).abs()
    if bandwidth > 0:
        weights = torch.exp(-0.5 * (away / bandwidth) ** 2) * (away <= REACH * bandwidth)
    else:
        weights = (away == 0).double()
    total = float(weights.sum())
    some = 0.0 if total == 0 else total**2 / float(weights.square().sum())
    if some < FEWEST:
        near = int((weights > 0).sum())
        raise InputError(
            f"the template of age {at:g} would be of {near} images, as of {some:.1f} that weigh alike; widen "
            f"--bandwidth, now {bandwidth:g}, or ask for other ages by --at"
        )
    return weights / total
