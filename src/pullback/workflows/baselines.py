"""Registers without training, beside which networks are measured on pairs of images."""

from collections.abc import Mapping

from pullback.alignment import Register
from pullback.methods.pair.convex_adam import ConvexAdam
from pullback.study.evaluate import unmoved

BEFORE: Mapping[str, Register] = {"before": unmoved}
SOLVERS: Mapping[str, Register] = {"ConvexAdam": ConvexAdam()}
"""Those that cannot take every image."""
