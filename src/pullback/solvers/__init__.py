"""Optimisers over one pair."""

from pullback.solvers.deformed import Deformed, placed
from pullback.solvers.descend import Descend, Settled
from pullback.solvers.levels import Levels
from pullback.solvers.optimised import Optimised
from pullback.solvers.posed import Posed, within_view

__all__ = ["Deformed", "Descend", "Levels", "Optimised", "Posed", "Settled", "placed", "within_view"]
