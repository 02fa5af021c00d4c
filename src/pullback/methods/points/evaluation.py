"""Evaluation of features of clouds by landmarks."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from pullback.data import Test, Validation
from pullback.errors import InputError
from pullback.methods.points.graph_propagation import RegisterClouds
from pullback.training import Row, evaluating


@dataclass(frozen=True)
class LandmarkEvaluation:
    """The evaluation of features by the distance between the fixed landmarks, once registered, and the moving ones.

    Attributes:
        pairs: a split of `PointPair`s.
        register: uses the features.
    """

    pairs: Validation | Test
    register: RegisterClouds = RegisterClouds()
    aligns: ClassVar[str] = "points"

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def names(self) -> tuple[str, ...]:
        return self.pairs.names

    def rows(self, network: Any, device: torch.device) -> Iterator[Row]:
        """Yield one row per pair: its name, `tre mm`, the mean over its landmarks, where it has some, and seconds."""
        for known in self.pairs:
            pair, start = known.to(device), time.perf_counter()
            with evaluating(network):
                found = self.register(network, pair)
            row: Row = {"pair": pair.name}
            if pair.fixed_landmarks is not None and pair.moving_landmarks is not None:
                here, there = (points.data[0].double() for points in (pair.fixed_landmarks, pair.moving_landmarks))
                row["tre mm"] = float((here + found(here) - there).norm(dim=1).mean())
            yield row | {"seconds": time.perf_counter() - start}

    def score(self, means: dict[str, float]) -> float:
        """Return minus the mean distance.

        Raises:
            InputError: no pair has landmarks.
        """
        if "tre mm" not in means:
            raise InputError("no pair of these clouds has landmarks to measure by")
        return -math.inf if math.isnan(means["tre mm"]) else -means["tre mm"]
