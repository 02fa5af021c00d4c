"""Align medical images in 2D and 3D, and teach networks to, without labels.

The names below are the front door; each is loaded when first used, so that importing the package costs nothing.
"""

import importlib

_HOME = {
    "pullback.alignment": ("Alignment", "Pair"),
    "pullback.data": ("Cohort", "Learn2Reg", "PairFolder", "Synthesis", "Synthetic", "normalised"),
    "pullback.energies": ("LNCC", "MI", "MIND", "MSE", "NCC", "NGF", "NMI", "SSIM", "Bending", "Diffusion"),
    "pullback.errors": ("InputError",),
    "pullback.files": (
        "Merge",
        "read_channels",
        "read_image",
        "read_labels",
        "read_merge",
        "read_points",
        "read_transform",
        "write",
    ),
    "pullback.methods.pair.classical": ("ACCURATE", "BALANCED", "FAST", "Classical", "register"),
    "pullback.methods.pair.ofg": ("Guided", "GuidedByNetworks"),
    "pullback.methods.pair.self_training": ("SelfTraining",),
    "pullback.methods.pair.transmorph": ("TransMorph",),
    "pullback.methods.pair.vit_v_net": ("ViTVNet",),
    "pullback.methods.pair.voxelmorph": ("VoxelMorph",),
    "pullback.methods.points.matched": ("match_points",),
    "pullback.methods.pose.cross_ngf": ("CrossNGF",),
    "pullback.methods.pose.initialise": ("Initialise",),
    "pullback.metrics": (
        "CentroidError",
        "Correlation",
        "Dice",
        "EndPointError",
        "Folding",
        "HausdorffDistance",
        "LandmarkError",
        "SDLogJ",
        "StructuralSimilarity",
    ),
    "pullback.solvers": ("Deformed", "Descend", "Levels", "Optimised", "Posed", "chain"),
    "pullback.space": (
        "Affine",
        "BSpline",
        "Composite",
        "Displacement",
        "Grid",
        "Image",
        "Labels",
        "Motion",
        "Points",
        "ThinPlate",
        "Velocity",
        "pull",
        "push",
    ),
    "pullback.study.evaluate": ("evaluate",),
    "pullback.study.preparation": ("Preparation",),
    "pullback.study.prepare": ("prepare",),
    "pullback.study.recipe": ("Recipe",),
    "pullback.study.run": ("Run", "load_run", "run"),
    "pullback.study.trained": ("Trained",),
    "pullback.training": ("Cosine", "Training", "Unsupervised", "align", "seeded", "train"),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_WHERE)  # noqa: PLE0605 (a list of names, computed)


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"pullback has no {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return __all__
