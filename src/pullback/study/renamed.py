"""Names in earlier recipe files: the modules and members that they stand for today."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

MODULES: Mapping[str, str] = MappingProxyType(
    {
        "pullback.data.cohort": "pullback.data.phantoms.brain",
        "pullback.methods.pair.correlated": "pullback.methods.pair.feature_registration",
        "pullback.methods.points.geometric": "pullback.methods.points.graph_propagation",
        "pullback.methods.points.matched": "pullback.methods.points.clouds",
        "pullback.solvers.deformed": "pullback.solvers.deformable_stage",
        "pullback.solvers.optimised": "pullback.solvers.instance_optimisation",
        "pullback.solvers.posed": "pullback.solvers.linear_stage",
        "pullback.solvers.propagate": "pullback.solvers.belief_propagation",
        "pullback.solvers.settle": "pullback.solvers.robust_point_matching",
    }
)
CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "Apart": "IndependentAffines",
        "Cohort": "BrainPhantom",
        "Correlated": "FeatureRegistration",
        "Deformed": "DeformableStage",
        "Descending": "WithRefinement",
        "Optimised": "InstanceOptimisation",
        "Posed": "LinearStage",
        "Propagate": "BeliefPropagation",
        "Settle": "RobustPointMatching",
        "Settled": "Converged",
        "Sometimes": "Mixture",
        "Told": "KnownTransform",
    }
)
"""Wherever they live."""
PATHS: Mapping[str, str] = MappingProxyType(
    {
        "pullback.methods.pair.cyclical.Cyclical": "pullback.training.cyclical.Cyclical",
        "pullback.methods.points.augment.Synthetic": "pullback.methods.points.augment.SyntheticClouds",
        "pullback.space.transform.BSpline": "pullback.space.fields.BSpline",
        "pullback.space.transform.Displacement": "pullback.space.fields.Displacement",
        "pullback.space.transform.Velocity": "pullback.space.fields.Velocity",
    }
)
"""One by one."""
FUNCTIONS: Mapping[str, str] = MappingProxyType(
    {"pullback.methods.points.augment.FromLandmarks": "pullback.methods.points.augment.from_landmarks"}
)
"""Parts without numbers that are functions today."""
IMPLIED: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "pullback.methods.pair.cyclical.Cyclical": {
            "labelling": {"part": "pullback.methods.pair.cyclical.FieldLabels"},
        },
    }
)
"""Members that went without saying, by the path of before."""
MEMBERS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        f"pullback.methods.pair.{part}": {"beside": "regularity"}
        for part in ("ofg.Guided", "ofg.GuidedByNetworks", "self_training.SelfTraining")
    }
)
"""By the path of today."""


def renamed(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a part of a recipe file by the names of today."""
    (kind, path), *rest = tree.items()
    if path in FUNCTIONS:
        return {"name": FUNCTIONS[path]}
    now = _today(str(path))
    members = MEMBERS.get(now, {})
    return {kind: now, **IMPLIED.get(str(path), {}), **{members.get(name, name): value for name, value in rest}}


def _today(path: str) -> str:
    if path in PATHS or not path.startswith("pullback."):
        return PATHS.get(path, path)
    module, _, name = path.rpartition(".")
    return f"{MODULES.get(module, module)}.{CLASSES.get(name, name)}"
