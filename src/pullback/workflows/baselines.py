"""What stands beside networks where they are measured on pairs of images, and needs no training."""

from collections.abc import Mapping

from pullback.alignment import Register
from pullback.methods.pair.convex_adam import ConvexAdam
from pullback.study.evaluate import unmoved

BEFORE: Mapping[str, Register] = {"before": unmoved}
SOLVERS: Mapping[str, Register] = {"ConvexAdam": ConvexAdam()}
"""Those that cannot take every image."""
