"""Where things are, and the maps between them. World = RAS mm; a field is in voxels of its own grid."""

from pullback.space.grid import Grid
from pullback.space.image import Image, Labels, canonical, centred
from pullback.space.points import Points
from pullback.space.pull import pull, push
from pullback.space.pyramid import resampled
from pullback.space.transform import Affine, Composite, Dense, Displacement, Transform, Velocity

__all__ = [
    "Affine",
    "Composite",
    "Dense",
    "Displacement",
    "Grid",
    "Image",
    "Labels",
    "Points",
    "Transform",
    "Velocity",
    "canonical",
    "centred",
    "pull",
    "push",
    "resampled",
]
