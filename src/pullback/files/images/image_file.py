"""Image files that are opened once: the header on opening, the voxels when first asked for, and both are kept."""

import gzip
import warnings
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import FileBasedImage, ImageFileError
from nibabel.freesurfer.mghformat import MGHError
from nibabel.minc1 import MincError
from nibabel.spatialimages import HeaderDataError, SpatialImage

from pullback.errors import InputError
from pullback.files.images.dicom import is_dicom, read_dicom
from pullback.files.images.itk_image import in_memory, read_itk
from pullback.files.images.look import Look
from pullback.files.images.slide import Slide, opens_as_slide
from pullback.files.suffixes import FORMATS, ends, refuse_absent, remedy

UNREADABLE = (
    *(ImageFileError, HeaderDataError, MGHError, MincError),
    *(EOFError, IndexError, KeyError, OSError, OverflowError, TypeError, ValueError, zlib.error),
)
MM, MILLISECONDS = 2, 16  # NIfTI's codes of units


@dataclass(frozen=True)
class ImageFile:
    """An image file that several readers share; wherever a path is taken, it is taken too.

    Attributes:
        path: where it lies.
        look: how a slide is looked at.
    """

    path: str | Path
    look: Look = Look()

    def __str__(self) -> str:
        return str(self.path)

    @cached_property
    def stored(self) -> nib.Nifti1Pair:
        """The image as nibabel opens it, with its voxels not yet read.

        Raises:
            InputError: as of `load`.
        """
        return load(self.path, self.look)

    @cached_property
    def voxels(self) -> np.ndarray:
        """The voxels, one number each.

        Raises:
            InputError: as of `stored_voxels`.
        """
        return stored_voxels(self.stored, self.path)


ImageSource = str | Path | ImageFile


def load(path: ImageSource, look: Look = Look()) -> nib.Nifti1Pair:
    """Open an image file by nibabel, without reading its voxels yet, or read DICOM: a file, or a folder of slices.

    Pictures in colour and slides are read as `look` says, one plain number a pixel.

    Raises:
        InputError: no such file, a folder without one series of DICOM, or no image that can be read.
    """
    if isinstance(path, ImageFile):
        return path.stored
    if opens_as_slide(path):
        return _from_slide(Slide.open(path), look)
    if is_dicom(path):
        return read_dicom(path)
    refuse_absent(path)
    return read_itk(path) if ends(path, FORMATS) else _of_nibabel(path)


def _of_nibabel(path: str | Path) -> nib.Nifti1Pair:
    """Open a file by nibabel, and take other formats than NIfTI as what they would be in it."""
    try:
        image = _opened(path)
    except UNREADABLE as error:
        raise InputError(f"{path}: not a readable NIfTI image ({error}); {remedy(path)}") from error
    if isinstance(image, nib.AnalyzeImage) and not isinstance(image, nib.Nifti1Pair):
        return _from_analyze(image, path)
    if isinstance(image, nib.MGHImage | nib.Minc1Image):
        return _from_brains(image, path)
    if not isinstance(image, nib.Nifti1Pair):
        raise InputError(f"{path}: a {type(image).__name__}; convert it to NIfTI (.nii or .nii.gz)")
    return image


def _from_slide(slide: Slide, look: Look) -> nib.Nifti1Image:
    """Return a slide as the NIfTI image of plain numbers that it would be."""
    values, grid = look.numbers(slide)
    affine = np.eye(4)
    affine[np.ix_([0, 1, 3], [0, 1, 3])] = grid.affine.numpy()
    affine[2, 2] = float(grid.spacing.mean())
    return in_memory(values, affine)


def _opened(path: str | Path) -> FileBasedImage:
    """Open a file by nibabel; also pairs of which only the voxels are compressed, .hdr beside .img.gz, as from LONI."""
    header = Path(str(path)[: -len(".img.gz")] + ".hdr")
    if not (ends(path, ".img.gz") and header.is_file()):
        return nib.load(path)
    image = nib.load(header)
    image.file_map["image"].filename = str(path)
    return type(image).from_file_map(image.file_map)


def _from_analyze(image: nib.AnalyzeImage, path: str | Path) -> nib.Nifti1Image:
    """Return an Analyze image, the format before NIfTI, as a NIfTI image, placed as in SPM and ITK."""
    warnings.warn(
        "an Analyze header (.hdr, .img) does not say which side is left; x is taken to run from right to left",
        stacklevel=2,
    )
    return nib.Nifti1Image(stored_voxels(image, path), image.affine)


def _from_brains(image: nib.MGHImage | nib.Minc1Image, path: str | Path) -> nib.Nifti1Image:
    """Take an image of FreeSurfer or MINC, whose affine is in RAS mm too; of frames, where they lie behind the voxels.

    Raises:
        InputError: MINC's frames, which lie before the voxels, or voxels that cannot be read.
    """
    if isinstance(image, nib.Minc1Image) and len(image.shape) > 3:
        raise InputError(f"{path}: frames of MINC; convert them to NIfTI: mnc2nii IN OUT")
    values = stored_voxels(image, path)
    kept = values.dtype.newbyteorder("=")
    if values.dtype.kind in "iu" and values.dtype.itemsize == 8:
        kept = np.dtype(np.float64)
    out = nib.Nifti1Image(values.astype(kept), image.affine)
    out.header.set_xyzt_units("mm")
    out.header.set_qform(image.affine, code=1)
    out.header.set_sform(image.affine, code=1)
    if isinstance(image, nib.MGHImage) and len(image.shape) == 4:
        out.header["pixdim"][4], out.header["xyzt_units"] = image.header.get_zooms()[3], MM | MILLISECONDS
    return out


def spatial(image: nib.Nifti1Pair) -> tuple[int, ...]:
    """Return the stored shape without axes of length one at its end, and of a slice without its thin axis."""
    shape = tuple(image.shape)
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 3 and shape.count(1) == 1:
        return tuple(n for n in shape if n > 1)
    return shape


def stored_voxels(image: SpatialImage, path: ImageSource) -> np.ndarray:
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
