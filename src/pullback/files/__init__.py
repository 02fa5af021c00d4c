"""Files in and out. LPS coordinates are known in this package alone."""

from pathlib import Path

from pullback.files.audit.header import Finding, Severity, audit
from pullback.files.audit.pair import audit_pair
from pullback.files.images.channels import read_channels
from pullback.files.images.merge import Merge, read_merge
from pullback.files.images.nifti import read_grid, read_image, read_labels, read_scalar, write_image
from pullback.files.images.series import is_series, read_series, write_series
from pullback.files.points.boxes import read_boxes, write_boxes
from pullback.files.points.formats import is_points, read_points, write_points
from pullback.files.points.surfaces import Surface
from pullback.files.points.tables import PointTable
from pullback.files.transforms.ants import read_ants, write_ants
from pullback.files.transforms.convert import meaning, read_any, read_chain, read_transform, write_any
from pullback.files.transforms.folder import StoredTransforms, read_transforms, write_transforms
from pullback.files.transforms.itk import write_transform
from pullback.files.transforms.kinds import TransformKind
from pullback.space import Image, Labels, Series, Transform


def write(
    thing: Image | Labels | Series | Transform | PointTable | Surface,
    path: str | Path,
    like: str | Path | None = None,
) -> None:
    """Write a thing in the format that its kind and the end of the name ask for.

    Images, labels and series are written as NIfTI; a transform as an ITK file or, where it is one field, as NIfTI;
    points as they were read. A slice, or a series of one, lies where the slice in the file `like` does, as in
    `write_image`. A transform is sampled on the grid of `like`, the fixed image's file, as in `write_transform`:
    B-splines and maps between points have no other form.
    """
    if isinstance(thing, Transform):
        write_transform(thing, path, None if like is None else read_grid(like))
    elif isinstance(thing, PointTable | Surface):
        write_points(thing, path)
    elif isinstance(thing, Series):
        write_series(thing, path, like)
    else:
        write_image(thing, path, like)


__all__ = [
    "Finding",
    "Merge",
    "PointTable",
    "Severity",
    "StoredTransforms",
    "Surface",
    "TransformKind",
    "audit",
    "audit_pair",
    "is_points",
    "is_series",
    "meaning",
    "read_ants",
    "read_any",
    "read_boxes",
    "read_chain",
    "read_channels",
    "read_grid",
    "read_image",
    "read_labels",
    "read_merge",
    "read_points",
    "read_scalar",
    "read_series",
    "read_transform",
    "read_transforms",
    "write",
    "write_ants",
    "write_any",
    "write_boxes",
    "write_image",
    "write_points",
    "write_series",
    "write_transform",
    "write_transforms",
]
