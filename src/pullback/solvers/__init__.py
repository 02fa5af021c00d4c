"""Optimisers over one pair, and the initial transforms that they start from."""

from pullback.solvers.belief_propagation import BeliefPropagation
from pullback.solvers.chain import Chain, Refine, chain, timed
from pullback.solvers.constraint import Constraint
from pullback.solvers.convex import CoupledConvex, consistent
from pullback.solvers.deformable_stage import DeformableStage
from pullback.solvers.descend import Converged, Descend, FieldAdam, Stalled, adam, summed_sgd
from pullback.solvers.features import FeatureDescent
from pullback.solvers.fused_adam import FusedAdam
from pullback.solvers.held_out import HeldOut
from pullback.solvers.initialise import centres, header, masses, moments
from pullback.solvers.instance_optimisation import InstanceOptimisation
from pullback.solvers.joint import Joint
from pullback.solvers.levels import Levels
from pullback.solvers.linear_stage import LinearStage, within_view
from pullback.solvers.robust_point_matching import RobustPointMatching
from pullback.solvers.tiled import Tiled

__all__ = [
    "BeliefPropagation",
    "Chain",
    "Constraint",
    "Converged",
    "CoupledConvex",
    "DeformableStage",
    "Descend",
    "FeatureDescent",
    "FieldAdam",
    "FusedAdam",
    "HeldOut",
    "InstanceOptimisation",
    "Joint",
    "Levels",
    "LinearStage",
    "Refine",
    "RobustPointMatching",
    "Stalled",
    "Tiled",
    "adam",
    "centres",
    "chain",
    "consistent",
    "header",
    "masses",
    "moments",
    "summed_sgd",
    "timed",
    "within_view",
]
