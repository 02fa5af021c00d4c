"""Examination of two image files: how the images lie to each other, by their headers alone."""

import itertools
from collections.abc import Iterator

import nibabel as nib
import numpy as np
import torch

from pullback.files.audit.header import Finding, Severity, times
from pullback.files.images.image_file import ImageSource, load, spatial
from pullback.files.images.orientation import in_plane, thin_axis
from pullback.numerics.singular import spans


def audit_pair(fixed: ImageSource, moving: ImageSource) -> tuple[Finding, ...]:
    """Return what is wrong or remarkable in how two images lie to each other; `audit` examines each alone.

    Raises:
        InputError: no such file, or none that opens as an image.
    """
    images = [load(path) for path in (fixed, moving)]
    ndims = [len(spatial(image)) for image in images]
    if not {2, 3}.issuperset(ndims):
        return ()
    if ndims[0] != ndims[1]:
        what = f"{fixed} is {ndims[0]}-D and {moving} is {ndims[1]}-D; both must have the same number of dimensions."
        return (Finding(Severity.ERROR, what, "Take the slice out of the volume, or stack the slices, first."),)
    if any(not np.isfinite(image.affine).all() for image in images):
        return ()
    boxes = [_box(image) for image in images]
    if any(not spans(torch.from_numpy(box[:-1, :-1])) for box in boxes):
        return ()
    counts = [np.prod(spatial(image)) for image in images]
    sizes = [(abs(np.linalg.det(b)) / n) ** (1 / (len(b) - 1)) for b, n in zip(boxes, counts, strict=True)]
    found = [
        *_planes(fixed, moving, images),
        *_extents(fixed, moving, boxes),
        *_voxel_sizes(fixed, moving, *sizes),
        *_overlap(fixed, moving, boxes),
    ]
    return tuple(sorted(found, key=lambda finding: [*Severity].index(finding.severity)))


def _box(image: nib.Nifti1Pair) -> np.ndarray:
    """Return the affine `(d+1, d+1)` that takes the unit cube to the field of view, voxels' edges included."""
    shape = spatial(image)
    affine = in_plane(image.affine, thin_axis(image)) if len(shape) == 2 else image.affine
    d = len(shape)
    return affine @ nib.affines.from_matvec(np.diag(shape).astype(float), [-0.5] * d)


def _planes(fixed: ImageSource, moving: ImageSource, images: list[nib.Nifti1Pair]) -> Iterator[Finding]:
    """Yield a finding where two slices lie in planes too far apart in angle to show the same."""
    if len(spatial(images[0])) == 3:
        return
    normals = [np.cross(*np.delete(image.affine[:3, :3], thin_axis(image), axis=1).T) for image in images]
    cosine = abs(normals[0] @ normals[1]) / np.prod([np.linalg.norm(normal) for normal in normals])
    angle = float(np.degrees(np.arccos(np.clip(cosine, 0, 1))))
    if angle > 30:
        yield Finding(
            Severity.WARNING,
            f"{fixed} and {moving} are slices of planes {angle:.0f}° apart, such as axial and coronal.",
            "Take the slice of the same plane, or nothing in them belongs together.",
        )


def _extents(fixed: ImageSource, moving: ImageSource, boxes: list[np.ndarray]) -> Iterator[Finding]:
    extents = [np.linalg.norm(box[:-1, :-1], axis=0) for box in boxes]
    ratio = np.linalg.norm(extents[1]) / np.linalg.norm(extents[0])
    if max(ratio, 1 / ratio) > 5:
        yield Finding(
            Severity.ERROR,
            f"{fixed} measures {times(extents[0])} mm and {moving} {times(extents[1])} mm, a factor of "
            f"{max(ratio, 1 / ratio):.3g}: one is likely in micrometres or metres.",
            "Put the voxel sizes of both in mm, or give a start that scales.",
        )


def _voxel_sizes(fixed: ImageSource, moving: ImageSource, *sizes: float) -> Iterator[Finding]:
    """Yield a finding where the voxels differ in size, measured as the edge of a cube or square of equal volume."""
    ratio = max(sizes) / min(sizes)
    if ratio > 3:
        yield Finding(
            Severity.NOTE,
            f"{fixed} has voxels of about {sizes[0]:.3g} mm and {moving} of {sizes[1]:.3g} mm, {ratio:.1f} to one.",
            "Nothing to do; the finer image is not worth more than the coarser one can tell.",
        )


def _overlap(fixed: ImageSource, moving: ImageSource, boxes: list[np.ndarray]) -> Iterator[Finding]:
    """Yield findings about the overlap of both fields of view, by 25 points along each edge of the fixed one."""
    at = (np.arange(25) + 0.5) / 25
    d = len(boxes[0]) - 1
    points = np.array([[*p, 1] for p in itertools.product(*[at] * d)]).T
    inside = (np.linalg.inv(boxes[1]) @ boxes[0] @ points)[:d]
    percent = 100 * float(((inside >= 0) & (inside <= 1)).all(0).mean())
    centres = [box @ [*[0.5] * d, 1] for box in boxes]
    apart = float(np.linalg.norm((centres[1] - centres[0])[:d]))
    if percent < 50:
        yield Finding(
            Severity.ERROR if percent == 0 else Severity.WARNING,
            f"{percent:.2g} % of the field of view of {fixed} lies within that of {moving}; their centres are "
            f"{apart:.1f} mm apart.",
            "Start from the centres of mass or by a global search (--init), not from the headers.",
        )
    elif apart > 0.25 * np.linalg.norm(boxes[0][:d, :d], axis=0).min():
        yield Finding(
            Severity.NOTE,
            f"The centres of {fixed} and {moving} are {apart:.1f} mm apart.",
            "Nothing to do where the headers are right; else start from the centres of mass.",
        )
