"""Optimisers over one pair."""

from pullback.solvers.descend import Descend

__all__ = ["Descend"]
