"""Optimisers over one pair, and where they begin."""

from pullback.solvers.chain import Chain, Refine, chain, timed
from pullback.solvers.convex import CoupledConvex, consistent
from pullback.solvers.deformed import Deformed, placed
from pullback.solvers.descend import Descend, FieldAdam, Settled, adam, summed_sgd
from pullback.solvers.features import FeatureDescent
from pullback.solvers.initialise import centres, header, masses, moments
from pullback.solvers.joint import Joint
from pullback.solvers.levels import Levels
from pullback.solvers.optimised import Optimised
from pullback.solvers.posed import Posed, within_view
from pullback.solvers.propagate import Propagate
from pullback.solvers.settle import Settle

__all__ = [
    "Chain",
    "CoupledConvex",
    "Deformed",
    "Descend",
    "FeatureDescent",
    "FieldAdam",
    "Joint",
    "Levels",
    "Optimised",
    "Posed",
    "Propagate",
    "Refine",
    "Settle",
    "Settled",
    "adam",
    "centres",
    "chain",
    "consistent",
    "header",
    "masses",
    "moments",
    "placed",
    "summed_sgd",
    "timed",
    "within_view",
]
