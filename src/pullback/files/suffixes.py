"""Suffixes of file names and the formats they stand for, and what the first bytes of a file say instead."""

import re
from pathlib import Path

from pullback.errors import InputError

NIFTI = (".nii", ".nii.gz")
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")  # they know no world
ITK_IMAGES = (".mha", ".mhd", ".nrrd", ".nhdr")
FORMATS = (*ITK_IMAGES, *PICTURES)
OME_TIFF = (".ome.tif", ".ome.tiff")
TIFFS = (".tif", ".tiff", ".svs", ".ndpi", ".scn", ".qptiff")  # and what is built on it
OME_ZARR = (".zarr",)
SCANNED = (".mrxs", ".vms", ".vmu", ".bif")  # by OpenSlide alone
SLIDES = (*OME_TIFF, ".svs", ".ndpi", ".scn", ".qptiff", *OME_ZARR, *SCANNED)
BRAINS = (".mgz", ".mgh", ".mnc")  # of FreeSurfer and MINC, by nibabel
GIFTI = (".gii",)
VTK = (".vtk", ".vtp")
MARKUPS = (".mrk.json",)
TABLES = (".csv", ".fcsv")
GEOJSON = (".geojson",)
POINTS = (*TABLES, *MARKUPS, *GIFTI, *VTK, *GEOJSON)

DIGITS = re.compile(r"(\d+)")

STRANGE = (
    ((".npy", ".npz"), "an array has no affine: save it as NIfTI with one, nibabel.Nifti1Image(array, affine)"),
    ((".trk", ".tck", ".trx"), "streamlines are not moved; give the points of their ends, or of all, as .csv"),
)  # what to do about files that are no images


def ends(path: str | Path, endings: str | tuple[str, ...]) -> bool:
    """Return whether a name ends in one of `endings`, which are in small letters; the name may be in capitals."""
    return str(path).lower().endswith(endings)


def by_numbers(path: str | Path) -> list[int | str]:
    """Return a key that sorts names by the numbers in them, so that `frame-10` comes after `frame-9`."""
    return [int(part) if part.isdecimal() else part for part in DIGITS.split(Path(path).name)]


def refuse_absent(path: str | Path) -> None:
    """Refuse to read a path that is no file.

    Raises:
        InputError: there is nothing of this name, or a folder.
    """
    if Path(path).is_dir():
        raise InputError(f"{path}: is a folder; name a file in it")
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")


def refuse_batch(count: int, path: str | Path) -> None:
    """Refuse to write several things where a file holds one.

    Raises:
        InputError: there are more than one.
    """
    if count != 1:
        raise InputError(f"{path}: a file holds one, and this is a batch of {count}; write each `nth(n)` to its own")


def remedy(path: str | Path) -> str:
    """Say what to do about a file that is not read as an image."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(348)
    except OSError:
        start = b""
    if start[:2] == b"\x1f\x8b" and not ends(path, ".gz"):
        return "it is compressed: name it .nii.gz"
    if (start[344:] in (b"n+1\0", b"ni1\0") or start[4:8] == b"n+2\0") and not ends(path, ".nii"):
        return "it is not compressed: name it .nii"
    if ends(path, (*NIFTI, *BRAINS)):
        return "copy or convert it anew"
    strange = next((said for endings, said in STRANGE if ends(path, endings)), "")
    every = ", ".join((*NIFTI, *FORMATS, *BRAINS, *SLIDES))
    return strange or f"images are read from {every}, points from {', '.join(POINTS)}"
