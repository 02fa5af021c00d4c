"""Transforms of NiftyReg, reference → floating in RAS mm: fields and control points in NIfTI, affines as text.

Fields have the intent 1007, named NREG_TRANS, and their kind as its first parameter (NREG_TRANS_TYPE in NiftyReg's
reg-lib). Deformations and control points are places in the world, displacements are not.
"""

from enum import IntEnum
from pathlib import Path

from pullback.errors import InputError
from pullback.files.images.image_file import load
from pullback.files.suffixes import NIFTI, ends, refuse_batch
from pullback.files.transforms.index_space import landed_points
from pullback.files.transforms.itk import is_field
from pullback.files.transforms.kind import Evidence, Header, Kind
from pullback.files.transforms.nifti_field import (
    are_displacements,
    as_displacements,
    as_places,
    read_vectors,
    save_vectors,
)
from pullback.files.transforms.ras_matrix import read_matrix, write_matrix
from pullback.space import FreeForm, Grid, Transform

NAME = "NREG_TRANS"


class StoredField(IntEnum):
    """Meaning of the vectors of a file."""

    DEFORMATION = 0
    DISPLACEMENT = 1
    CUBIC_SPLINE = 2
    DEFORMATION_VELOCITY = 3
    DISPLACEMENT_VELOCITY = 4
    SPLINE_VELOCITY = 5
    LINEAR_SPLINE = 6


def write_niftyreg(transform: Transform, path: str | Path, on: Grid | None = None) -> None:
    """Write an affine as text, any transform as a deformation on `on`, and one field by default on its own grid.

    Raises:
        InputError: a batch, an ending that is neither .txt nor NIfTI's, no grid, or writing fails.
    """
    refuse_batch(transform.batch, path)
    if ends(path, ".txt"):
        return write_matrix(transform, path)
    if not ends(path, NIFTI):
        raise InputError(f"{path}: NiftyReg's affines are written as .txt, its deformations as .nii.gz")
    if on is None and not is_field(transform):
        raise InputError(f"{path}: NiftyReg holds the places of voxels; give the fixed image's grid: --fixed")
    grid = on if on is not None else transform.grids[0]
    return save_vectors(landed_points(transform, grid), grid, path, NAME, StoredField.DEFORMATION)


def read_niftyreg(path: str | Path) -> Transform:
    """Read an affine, a deformation, a displacement, or control points of linear or cubic B-splines.

    Raises:
        InputError: a velocity, control points of a symmetric registration, or not such a file.
    """
    if not ends(path, NIFTI):
        return read_matrix(path)
    image = load(path)
    header = Header.of(image)
    if header.name not in (NAME, "") or header.parameter not in [*StoredField]:
        raise InputError(f"{path}: intent {header.name!r} with parameter {header.parameter:g} is none of NiftyReg's")
    stored = StoredField(int(header.parameter))
    if "VELOCITY" in stored.name or len(image.header.extensions):
        what = "a velocity" if "VELOCITY" in stored.name else "control points with half affines of their own"
        raise InputError(f"{path}: {what} of NiftyReg; make a deformation of it: reg_transform -ref REF -def IN OUT")
    vectors, grid = read_vectors(path)
    if stored is StoredField.DISPLACEMENT:
        return as_displacements(vectors, grid)
    if are_displacements(vectors, grid):
        raise InputError(
            f"{path}: by their size these are displacements, not places in the world, as its intent says; write it anew"
        )
    moved = as_places(vectors, grid)
    if stored is StoredField.DEFORMATION:
        return moved
    return FreeForm(moved.field.double(), grid, 3 if stored is StoredField.CUBIC_SPLINE else 1)


def _looks(evidence: Evidence) -> bool:
    header = evidence.header
    return evidence.is_matrix if header is None else header.name == NAME


def _write(transform: Transform, path: str | Path, fixed: Grid | None, moving: Grid | None) -> tuple[Path, ...]:
    write_niftyreg(transform, path, None if is_field(transform) else fixed)
    return (Path(path),)


def _meaning(path: str | Path) -> str:
    if ends(path, NIFTI):
        return "a deformation of NiftyReg, RAS mm: takes voxels of the fixed grid to places in the moving world"
    return "an affine of NiftyReg, RAS mm: takes points fixed → moving"


KIND = Kind(
    "niftyreg",
    _looks,
    lambda name: False,
    lambda path, fixed, moving: read_niftyreg(path),
    _write,
    _meaning,
)
