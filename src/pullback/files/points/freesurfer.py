"""Surfaces of FreeSurfer, such as `lh.white`: triangles, in surface coordinates about the centre of their volume."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from pullback.errors import InputError
from pullback.files.freesurfer import Volume

TRIANGLES = b"\xff\xff\xfe"
NUMBERS = ("volume", "voxelsize", "xras", "yras", "zras", "cras")
GIFTI_NAMES = {
    "volume": ("VolGeomWidth", "VolGeomHeight", "VolGeomDepth"),
    "voxelsize": ("VolGeomXsize", "VolGeomYsize", "VolGeomZsize"),
    **{f"{axis.lower()}ras": tuple(f"VolGeom{axis}_{letter}" for letter in "RAS") for axis in "XYZ"},
    "cras": ("VolGeomC_R", "VolGeomC_A", "VolGeomC_S"),
}


def is_freesurfer(path: str | Path) -> bool:
    """Return whether a file begins as a surface of triangles of FreeSurfer does."""
    try:
        with Path(path).open("rb") as file:
            return file.read(3) == TRIANGLES
    except OSError:
        return False


def read_triangles(path: str | Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, dict[str, Any]]:
    """Read vertices and faces as stored, the matrix from them to RAS mm, `(4, 4)`, and what else is to be written.

    The matrix is None where the file does not say where its volume is.

    Raises:
        InputError: not a readable surface.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a file without a volume, which is said below
            vertices, faces, footer, stamp = nib.freesurfer.read_geometry(path, read_metadata=True, read_stamp=True)
    except (OSError, ValueError, IndexError, TypeError) as error:
        raise InputError(f"{path}: not a readable surface of FreeSurfer ({error}); copy it anew") from error
    kept = {"faces": faces, "volume_info": footer or None, "create_stamp": stamp}
    if not footer or not str(footer.get("valid", "")).startswith("1"):
        return vertices, faces, None, kept
    return vertices, faces, Volume.named({key: footer[key] for key in NUMBERS}).surface_to_scanner, kept


def of_gifti(said: Mapping[str, str]) -> np.ndarray | None:
    """Return the matrix from surface coordinates to RAS mm by the metadata of a GIFTI array; None where they are none
    of FreeSurfer's.

    Raises:
        ValueError: words that are no numbers.
    """
    if not all(name in said for name in GIFTI_NAMES["cras"]):
        return None
    known = {key: [float(said[name]) for name in names if name in said] for key, names in GIFTI_NAMES.items()}
    if all(len(values) == 3 for values in known.values()) and min(known["voxelsize"]) > 0:
        return Volume.named(known).surface_to_scanner
    shift = np.eye(4)
    shift[:3, 3] = known["cras"]
    return shift
