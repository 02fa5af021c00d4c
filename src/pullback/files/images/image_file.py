"""Files of images, opened once: a header at once, voxels when they are first asked for, and then kept."""

import gzip
import warnings
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import FileBasedImage, ImageFileError
from nibabel.spatialimages import HeaderDataError

from pullback.errors import InputError
from pullback.files.images.itk_image import read_itk
from pullback.files.suffixes import FORMATS, ends, refuse_absent, remedy

UNREADABLE = (ImageFileError, HeaderDataError, EOFError, OSError, OverflowError, TypeError, ValueError, zlib.error)


@dataclass(frozen=True)
class ImageFile:
    """One image file, which several readers share: whoever takes a path takes this too.

    Attributes:
        path: where it lies.
    """

    path: str | Path

    def __str__(self) -> str:
        return str(self.path)

    @cached_property
    def stored(self) -> nib.Nifti1Pair:
        """Image as nibabel has it, its voxels not read yet.

        Raises:
            InputError: as of `load`.
        """
        return load(self.path)

    @cached_property
    def voxels(self) -> np.ndarray:
        """Voxels, one number each.

        Raises:
            InputError: as of `stored_voxels`.
        """
        return stored_voxels(self.stored, self.path)


ImageSource = str | Path | ImageFile


def load(path: ImageSource) -> nib.Nifti1Pair:
    """Return the image as nibabel has it, its voxels not read yet.

    Raises:
        InputError: no such file, a folder, or none that nibabel reads as an image.
    """
    if isinstance(path, ImageFile):
        return path.stored
    refuse_absent(path)
    if ends(path, FORMATS):
        return read_itk(path)
    try:
        image = _opened(path)
    except UNREADABLE as error:
        raise InputError(f"{path}: not a readable NIfTI image ({error}); {remedy(path)}") from error
    if isinstance(image, nib.AnalyzeImage) and not isinstance(image, nib.Nifti1Pair):
        return _from_analyze(image, path)
    if not isinstance(image, nib.Nifti1Pair):
        raise InputError(f"{path}: a {type(image).__name__}; convert it to NIfTI (.nii or .nii.gz)")
    return image


def _opened(path: str | Path) -> FileBasedImage:
    """Open what nibabel reads, and pairs whose voxels alone are compressed: .hdr beside .img.gz, as of LONI."""
    header = Path(str(path)[: -len(".img.gz")] + ".hdr")
    if not (ends(path, ".img.gz") and header.is_file()):
        return nib.load(path)
    image = nib.load(header)
    image.file_map["image"].filename = str(path)
    return type(image).from_file_map(image.file_map)


def _from_analyze(image: nib.AnalyzeImage, path: str | Path) -> nib.Nifti1Image:
    """Take an image of the format before NIfTI, in which the first sets of images still come, as SPM and ITK do."""
    warnings.warn(
        "an Analyze header (.hdr, .img) does not say which side is left; x is taken to run from right to left",
        stacklevel=2,
    )
    return nib.Nifti1Image(stored_voxels(image, path), image.affine)


def spatial(image: nib.Nifti1Pair) -> tuple[int, ...]:
    """Return the stored shape without axes of length one at its end, nor the one that a slice is thin along."""
    shape = tuple(image.shape)
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 3 and shape.count(1) == 1:
        return tuple(n for n in shape if n > 1)
    return shape


def stored_voxels(image: nib.AnalyzeImage, path: ImageSource) -> np.ndarray:
    """Return the voxels of a loaded file, one number each.

    Raises:
        InputError: colours, vectors or complex numbers, or a file that is cut short.
    """
    if isinstance(path, ImageFile):
        return path.voxels
    try:
        if ends(path, ".nii.gz") and isinstance(image, nib.Nifti1Image):
            # to the very end, where the checksum is: nibabel stops before it and takes damaged voxels for good
            image = type(image).from_bytes(gzip.decompress(Path(path).read_bytes()))
        values = np.asanyarray(image.dataobj)
    except UNREADABLE as error:
        raise InputError(f"{path}: the header is fine but the voxels cannot be read ({error})") from error
    if values.dtype.kind not in "iuf":
        what, remedy = (
            ("complex numbers", "save the magnitude")
            if values.dtype.kind == "c"
            else ("colours", "save it in grey, or each colour as a file of its own: channels")
        )
        raise InputError(f"{path}: voxels are {what}; one plain number per voxel is expected: {remedy}")
    return values
