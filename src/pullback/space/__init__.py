"""Grids, images, points, and transforms between them. World = RAS mm; a field is in voxels of its own grid."""

from pullback.space.batch import one_batch
from pullback.space.box import Box
from pullback.space.boxes import Boxes
from pullback.space.deferred import Deferred
from pullback.space.ensemble import label_probability, mean_and_deviation
from pullback.space.fields import BSpline, Dense, Displacement, Velocity, as_field
from pullback.space.flow import Flow, Geodesic, joined
from pullback.space.free_form import FreeForm
from pullback.space.grid import Grid
from pullback.space.grid_distance import block_middles, mean_distance, mean_square_distance
from pullback.space.homography import Homography
from pullback.space.image import Image, Labels, around, canonical, centred, cropped, stored_axes
from pullback.space.inverse import Inverse, inverted
from pullback.space.keypoints import RandomPoints, centroids, keypoints
from pullback.space.landmarks import LandmarkFit, fit_landmarks, without
from pullback.space.linear import Motion
from pullback.space.normals import normals
from pullback.space.outline import SURFACE, outline
from pullback.space.parametric import Parametric, params_of, with_params_of
from pullback.space.part import part_of
from pullback.space.placed import placed
from pullback.space.points import PointColumn, Points
from pullback.space.pull import displacement_in_slabs, least_at_border, pull, pull_in_slabs, pull_smooth_labels, push
from pullback.space.resample import fitted, isotropic, resample, resampled, resliced
from pullback.space.series import Series
from pullback.space.short_repr import short_repr
from pullback.space.slices import emulated, laid_in, layers_of, slice_frame, through_axis
from pullback.space.thin_plate import ThinPlate
from pullback.space.transform import Affine, Composite, Linear, Transform, split

__all__ = [
    "SURFACE",
    "Affine",
    "BSpline",
    "Box",
    "Boxes",
    "Composite",
    "Deferred",
    "Dense",
    "Displacement",
    "Flow",
    "FreeForm",
    "Geodesic",
    "Grid",
    "Homography",
    "Image",
    "Inverse",
    "Labels",
    "LandmarkFit",
    "Linear",
    "Motion",
    "Parametric",
    "PointColumn",
    "Points",
    "RandomPoints",
    "Series",
    "ThinPlate",
    "Transform",
    "Velocity",
    "around",
    "as_field",
    "block_middles",
    "canonical",
    "centred",
    "centroids",
    "cropped",
    "displacement_in_slabs",
    "emulated",
    "fit_landmarks",
    "fitted",
    "inverted",
    "isotropic",
    "joined",
    "keypoints",
    "label_probability",
    "laid_in",
    "layers_of",
    "least_at_border",
    "mean_and_deviation",
    "mean_distance",
    "mean_square_distance",
    "normals",
    "one_batch",
    "outline",
    "params_of",
    "part_of",
    "placed",
    "pull",
    "pull_in_slabs",
    "pull_smooth_labels",
    "push",
    "resample",
    "resampled",
    "resliced",
    "short_repr",
    "slice_frame",
    "split",
    "stored_axes",
    "through_axis",
    "with_params_of",
    "without",
]
