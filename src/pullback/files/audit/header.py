"""Examination of an image file: problems in its header and its voxels, and how to mend them."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

import nibabel as nib
import numpy as np
import torch
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError

from pullback.errors import InputError
from pullback.files.images.image_file import ImageFile, ImageSource, load, spatial, stored_voxels
from pullback.files.images.look import Look
from pullback.files.images.orientation import SHEAR, where_itk_differs
from pullback.files.images.slide import Slide, opens_as_slide
from pullback.files.suffixes import PICTURES, ends
from pullback.numerics.singular import spans

UNITS = {0: "no unit", 1: "metres", 3: "micrometres"}
STEEP = 4
"""Times that a level of a slide may be coarser than the next finer one."""
SMALL, LARGE = 0.01, 20.0  # mm: voxels beyond these are likely given in another unit


class Severity(Enum):
    """The severity of a finding: with an `ERROR` the image cannot be used, with a `WARNING` the result may be wrong."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """A finding: `what`, a sentence with the file and the numbers, and `remedy`, what to do."""

    severity: Severity
    what: str
    remedy: str


def audit(path: ImageSource) -> tuple[Finding, ...]:
    """Return what is wrong or remarkable in one image file, the worst first.

    Raises:
        InputError: no such file, or none that opens as an image.
    """
    image = load(path)
    found = [*_shape(image, path), *_placement(image, path), *_units(image, path), *_voxels(image, path)]
    return tuple(sorted(found, key=lambda finding: [*Severity].index(finding.severity)))


def _shape(image: nib.Nifti1Pair, path: ImageSource) -> Iterator[Finding]:
    shape, used = tuple(image.shape), spatial(image)
    if len(used) not in (2, 3):
        yield Finding(
            Severity.ERROR,
            f"{path} is a {len(used)}-D image of shape {shape}; one 2-D or 3-D volume is expected.",
            "Take one frame or channel out of it first, with fslroi or nibabel's image.slicer[..., 0].",
        )
    elif min(used) < 2:
        yield Finding(
            Severity.ERROR, f"{path} has shape {shape}: fewer than two voxels along an axis.", "Export it whole."
        )
    elif min(used) < 8:
        yield Finding(
            Severity.WARNING,
            f"{path} has shape {shape}: the field of view is only {min(used)} voxels wide.",
            "Expect little of a deformable registration along that axis; a wider volume is better.",
        )


def _placement(image: nib.Nifti1Pair, path: ImageSource) -> Iterator[Finding]:
    """Yield findings about where the header places the image."""
    if opens_as_slide(str(path)):
        yield from _slide(path)
    elif ends(str(path), PICTURES):
        yield Finding(
            Severity.NOTE,
            f"{path} is a picture: it does not say how large a pixel is or where it lies; 1 mm is taken.",
            "Where sizes or places matter, convert it to NIfTI with an affine in mm.",
        )
    qform, sform = int(image.header["qform_code"]), int(image.header["sform_code"])
    if qform <= 0 and sform <= 0:
        yield Finding(
            Severity.WARNING,
            f"{path} has neither a qform nor an sform code: nothing says which side is left or where the image lies.",
            "Convert it anew from DICOM, or set both with nibabel once you know: image.set_sform(affine, 1).",
        )
    linear = np.array(image.affine, np.float64)[:3, : min(3, len(image.shape))]
    sizes = np.linalg.norm(linear, axis=0)
    if not np.isfinite(image.affine).all() or _flat(linear):
        yield Finding(
            Severity.ERROR,
            f"{path} has an affine that is singular or not finite: {np.array(image.affine).round(6).tolist()}.",
            "Set it anew with nibabel: image.set_sform(affine, 1) and image.set_qform(affine, 1).",
        )
        return
    cosines = linear / sizes
    if linear.shape[1] == 3:
        yield from _orientation(cosines, path)
    yield from _disagreement(image, path, float(sizes.min()))


def _slide(path: ImageSource) -> Iterator[Finding]:
    """Yield findings about a picture in colour or a slide: what is looked at, its pixels and its levels."""
    slide, look = Slide.open(str(path)), path.look if isinstance(path, ImageFile) else Look()
    yield Finding(
        Severity.NOTE,
        f"{look.told(slide)}.",
        "Nothing to do; `register` looks at another level by --spacing, and at one stain by --stain.",
    )
    if not slide.measured:
        yield Finding(
            Severity.NOTE if len(slide.levels) == 1 else Severity.WARNING,
            f"{path} does not say how large a pixel is; 1 mm is taken.",
            "Where sizes matter, export it with pixel sizes, as OME-TIFF; both images of a pair should have them.",
        )
    steps = [round(float(two.spacing[0] / one.spacing[0])) for one, two in pairwise(slide.levels)]
    if steps and max(steps) > STEEP:
        yield Finding(
            Severity.NOTE,
            f"{path} has levels that are up to {max(steps)} times apart; those between are missing.",
            "Nothing to do: means of the finer level are taken, which takes longer to read.",
        )


def _flat(linear: np.ndarray) -> bool:
    """Return whether the axes `(3, d)` do not span d dimensions, whatever the size of the voxels."""
    return not spans(torch.from_numpy(np.linalg.qr(linear, mode="r")))


def _orientation(cosines: np.ndarray, path: ImageSource) -> Iterator[Finding]:
    skew = np.abs(cosines.T @ cosines - np.eye(3)).max()
    if skew > SHEAR:
        yield Finding(
            Severity.WARNING,
            f"{path} has a sheared grid: its axes are {np.degrees(np.arcsin(min(skew, 1))):.2g}° from orthogonal, "
            f"which ITK and ANTs cannot represent.",
            "Resample it onto a grid whose affine is a rotation times the spacing, before registering.",
        )
    if np.linalg.det(cosines) < 0:
        yield Finding(
            Severity.NOTE,
            f"{path} is stored left-handed ({''.join(nib.aff2axcodes(_homogeneous(cosines)))}, determinant < 0).",
            "Nothing to do where the header is right; look once whether left is left.",
        )
    tilt = np.degrees(np.arccos(np.clip(np.abs(cosines).max(axis=0), 0, 1))).max()
    if tilt > 3:
        yield Finding(
            Severity.NOTE,
            f"{path} is oblique: an axis of its grid is {tilt:.1f}° from the nearest axis of the world.",
            "Nothing to do here; tools that look at the voxels alone will turn it.",
        )


def _homogeneous(linear: np.ndarray) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3] = linear
    return out


def _disagreement(image: nib.Nifti1Pair, path: ImageSource, voxel: float) -> Iterator[Finding]:
    """Yield where qform and sform disagree, in mm at the corners, or where ITK places the image differently."""
    header = image.header
    if int(header["qform_code"]) > 0 and int(header["sform_code"]) > 0:
        try:
            qform, sform = header.get_qform(), header.get_sform()
        except (ValueError, HeaderDataError) as error:
            yield Finding(
                Severity.WARNING, f"{path} has a damaged qform: {error}.", "Set it: image.set_qform(image.affine, 1)."
            )
            return
        last = [n - 1 for n in (*image.shape, 1, 1)[:3]]
        corners = np.array([[*np.multiply(corner, last), 1] for corner in np.ndindex(2, 2, 2)]).T
        apart = float(np.linalg.norm(((qform - sform) @ corners)[:3], axis=0).max())
        mirrored = np.linalg.det(qform[:3, :3]) * np.linalg.det(sform[:3, :3]) < 0
        if mirrored or apart > 0.1 * voxel:
            yield Finding(
                Severity.ERROR if mirrored else Severity.WARNING,
                f"{path} lies in two places: qform and sform are up to {apart:.3g} mm apart at the corners"
                f"{', and one is the mirror image of the other' if mirrored else ''}; the sform is used here.",
                "Find out which is right, and set both to it: image.set_qform(affine, 1), image.set_sform(affine, 1).",
            )
            return
    told = int(header["xyzt_units"]) & 7 in (1, 3) or max(int(header["qform_code"]), int(header["sform_code"])) <= 0
    differs = "" if told else where_itk_differs(image)
    if differs:
        what, _, remedy = differs.partition(". ")
        yield Finding(Severity.WARNING, f"{path} lies elsewhere for other tools: {what}.", f"{remedy}.")


def _units(image: nib.Nifti1Pair, path: ImageSource) -> Iterator[Finding]:
    stored = _stored_header(image)
    unit = int(stored["xyzt_units"]) & 7
    if opens_as_slide(str(path)):  # micrometres are usual there
        return
    if unit in UNITS:
        yield Finding(
            Severity.NOTE if unit == 0 else Severity.WARNING,
            f"{path} states {UNITS[unit]} for its lengths; they are taken as mm here"
            f"{'.' if unit == 0 else ', while ITK and ANTs convert them.'}",
            'Set it, once the numbers are millimetres: image.header.set_xyzt_units("mm").',
        )
    ndim = min(3, len(image.shape))
    pixdim = stored["pixdim"][1 : 1 + ndim].astype(np.float64)
    if not np.isfinite(pixdim).all() or (pixdim <= 0).any():
        yield Finding(
            Severity.ERROR,
            f"{path} has voxel sizes {times(pixdim)} in its header (pixdim); they must be positive.",
            "Set them with nibabel: image.header.set_zooms(sizes in mm).",
        )
    sizes = np.linalg.norm(np.array(image.affine, np.float64)[:3, :ndim], axis=0)
    if not np.isfinite(sizes).all() or not (sizes > 0).all():
        return
    if sizes.min() < SMALL or sizes.max() > LARGE:
        yield Finding(
            Severity.WARNING,
            f"{path} has voxels of {times(sizes)} mm, which is unusual ({SMALL:g} to {LARGE:g} mm is not).",
            "Check the unit: micrometres or metres taken for mm are off by a thousand.",
        )
    if sizes.max() > 3 * sizes.min():
        yield Finding(
            Severity.NOTE,
            f"{path} has anisotropic voxels of {times(sizes)} mm, {sizes.max() / sizes.min():.1f} to one.",
            "Nothing to do; expect less accuracy along the thick direction.",
        )
    extent = sizes * image.shape[:ndim]
    if extent.min() < 5 and min(image.shape[:ndim]) > 1:
        yield Finding(
            Severity.WARNING,
            f"{path} shows a field of view of only {times(extent)} mm.",
            "Check the unit and the voxel size; small animals and microscopy are fine if both images agree.",
        )


def _voxels(image: nib.Nifti1Pair, path: ImageSource) -> Iterator[Finding]:
    """Yield findings about the voxels and how they are stored."""
    stored = _stored_header(image)
    slope, shift = float(stored["scl_slope"]), float(stored["scl_inter"])
    if not np.isfinite(slope) or (slope != 0 and not np.isfinite(shift)):
        yield Finding(
            Severity.WARNING,
            f"{path} stores the scaling of its intensities as slope {slope:g}, intercept {shift:g}.",
            "It is read without scaling here; other tools may not: save it anew with nibabel.",
        )
    if image.get_data_dtype() in (np.int64, np.uint64):
        yield Finding(
            Severity.WARNING,
            f"{path} stores {image.get_data_dtype()} voxels, which FSL, SPM and others do not read.",
            "Save labels as uint8, int16 or int32, intensities as float32.",
        )
    if image.get_data_dtype().kind not in "iuf":
        yield Finding(
            Severity.ERROR,
            f"{path} stores {'complex' if image.get_data_dtype().kind == 'c' else 'colour'} voxels; one plain number "
            f"per voxel is expected.",
            "Save the magnitude, a grey image, or each colour as a file of its own: those are channels.",
        )
        return
    try:
        values = stored_voxels(image, path)
    except InputError as error:
        yield Finding(Severity.ERROR, f"{error}.", "Copy or convert the file anew.")
        return
    bad = int((~np.isfinite(values)).sum())
    if bad:
        yield Finding(
            Severity.ERROR,
            f"{path} has {bad} voxels that are NaN or infinite, {100 * bad / values.size:.3g} % of them.",
            "Replace them, with numpy.nan_to_num or fslmaths -nan, and mask them out.",
        )
    elif values.size and values.min() == values.max():
        yield Finding(
            Severity.ERROR,
            f"{path} is constant: every voxel is {values.flat[0]:g}.",
            "Check that the right file was given; there is nothing to align.",
        )


def _stored_header(image: nib.Nifti1Pair) -> nib.Nifti1Header:
    """Return the header as it is in the file, for nibabel mends some of it on reading; other formats have none."""
    where = image.file_map.get("header", image.file_map["image"]).filename
    if where is None:
        return image.header
    with ImageOpener(str(where)) as file:
        return type(image.header).from_fileobj(file, check=False)


def times(numbers: np.ndarray) -> str:
    return " × ".join(f"{x:.3g}" for x in numbers.tolist())
