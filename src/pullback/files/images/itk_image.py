"""Images in ITK's formats and pictures, laid out as the NIfTI files they would be."""

from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from PIL import Image as Picture

from pullback.errors import InputError
from pullback.files.itk_names import name_for_itk
from pullback.files.suffixes import PICTURES, ends


def read_itk(path: str | Path) -> nib.Nifti1Image:
    """Read an image of ITK's formats or a picture as a NIfTI image in memory.

    Spacing, direction and origin are as ITK reads them, in RAS mm; vectors lie along a fifth axis; pictures have 1 mm a
    pixel.

    Raises:
        InputError: no such image.
    """
    image = _opened(path)
    ndim = image.GetDimension()
    values = sitk.GetArrayFromImage(image)
    if ends(path, PICTURES) and image.GetNumberOfComponentsPerPixel() > 1 and values.dtype != np.uint8:
        raise InputError(f"{path}: pixels are colours; save it in grey, or each colour as a file of its own")
    values = _vectors(values, ndim) if image.GetNumberOfComponentsPerPixel() > 1 else values.T
    affine = np.eye(max(ndim, 3) + 1)
    affine[:ndim, :ndim] = np.array(image.GetDirection()).reshape(ndim, ndim) * np.array(image.GetSpacing())
    affine[:ndim, -1] = image.GetOrigin()
    if ends(path, PICTURES):
        affine = np.eye(4)  # dots per inch are of a print, not of what is shown
    return in_memory(values, np.diag([-1.0, -1, 1, 1]) @ affine[np.ix_([0, 1, 2, -1], [0, 1, 2, -1])])


def in_memory(values: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    """Return voxels with an affine in RAS mm as a NIfTI image that was read from nowhere."""
    out = nib.Nifti1Image(values, affine, dtype=values.dtype)
    out.header.set_xyzt_units("mm")
    out.header.set_slope_inter(1, 0)
    out.header.set_qform(affine, code=1)  # not the image's own, which would round its affine to float32
    out.header.set_sform(affine, code=1)
    return out


def _opened(path: str | Path) -> sitk.Image:
    try:
        with name_for_itk(path) as name:
            return sitk.ReadImage(name)
    except RuntimeError as error:
        grey = _without_alpha(path) if ends(path, PICTURES) else None
        if grey is None:
            raise InputError(
                f"{path}: not a readable image ({_reason(error)}); copy it anew, or convert it, a picture to grey .png"
            ) from error
        return sitk.GetImageFromArray(grey)


def _without_alpha(path: str | Path) -> np.ndarray | None:
    """Return a picture in grey that is opaque everywhere, which ITK does not read; None for any other.

    Raises:
        InputError: it is transparent somewhere.
    """
    try:
        with Picture.open(path) as picture:
            grey = np.asarray(picture) if picture.mode == "LA" else None
    except (OSError, ValueError):
        return None
    if grey is None:
        return None
    if (grey[..., 1] != 255).any():
        raise InputError(
            f"{path}: grey that is transparent in places; save it without transparency (an alpha channel), in grey"
        )
    return np.ascontiguousarray(grey[..., 0])


def _vectors(values: np.ndarray, ndim: int) -> np.ndarray:
    """Return bytes of red, green and blue as NIfTI's colours, other vectors per voxel as `(X, Y, Z, 1, n)`."""
    count = values.shape[-1]
    values = np.ascontiguousarray(values.transpose(*reversed(range(ndim)), ndim))  # (X, Y, Z, n)
    if values.dtype == np.uint8 and count in (3, 4):
        return values.view([(letter, "u1") for letter in "RGBA"[:count]])[..., 0]
    return values.reshape(*values.shape[:ndim], *[1] * (4 - ndim), count)  # (X, Y, Z, 1, n)


def _reason(error: RuntimeError) -> str:
    """Return the last line of ITK's message, without the place in its source."""
    return str(error).strip().splitlines()[-1].strip().removeprefix("sitk::ERROR: ")
