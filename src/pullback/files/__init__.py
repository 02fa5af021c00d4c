"""Files in and out; LPS is known here alone."""

from pathlib import Path

from pullback.files.itk import read_transform, write_transform
from pullback.files.nifti import read_image, read_labels, write_image
from pullback.space import Image, Labels, Transform


def write(thing: Image | Labels | Transform, path: str | Path) -> None:
    """Images and labels as NIfTI; a transform as an ITK file or, where it is one field, as NIfTI; by the name's end."""
    if isinstance(thing, Transform):
        write_transform(thing, path)
    else:
        write_image(thing, path)


__all__ = ["read_image", "read_labels", "read_transform", "write", "write_image", "write_transform"]
