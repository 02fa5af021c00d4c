"""Optimisers over one pair."""

from pullback.solvers.descend import Descend
from pullback.solvers.optimised import Optimised

__all__ = ["Descend", "Optimised"]
