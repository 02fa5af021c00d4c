"""Deformations of SPM, `y_*.nii` and `iy_*.nii`: for each voxel the place it maps to, RAS mm, `(X, Y, Z, 1, 3)`.

SPM takes images of the space mapped to onto the grid of the file ("pullback" in its Deformations utility). It names
them by the description `Deformation …` (Segment, Shoot) or by an intent `Mapping` (Deformations).
"""

from pathlib import Path

from pullback.errors import InputError
from pullback.files.images.image_file import load
from pullback.files.suffixes import refuse_batch
from pullback.files.transforms.index_space import landed_points
from pullback.files.transforms.itk import is_field
from pullback.files.transforms.kind import Evidence, Header, Kind
from pullback.files.transforms.nifti_field import are_displacements, as_places, read_vectors, save_vectors
from pullback.space import Displacement, Grid, Transform

PREFIXES = ("y_", "iy_")
REMEDY = "make a deformation y_*.nii of it by SPM's Deformations utility"


def write_spm(transform: Transform, path: str | Path, on: Grid | None = None) -> None:
    """Write the places in the moving world to which the voxels of `on` map; of one field, by default its own voxels.

    Raises:
        InputError: a batch, two dimensions, no grid, another ending than .nii, or writing fails.
    """
    refuse_batch(transform.batch, path)
    if transform.ndim != 3:
        raise InputError(f"{path}: SPM's deformations are 3-D, and this moves points in {transform.ndim}-D; use ITK's")
    if not str(path).lower().endswith(".nii"):
        raise InputError(f"{path}: SPM reads deformations as .nii; name the file y_….nii")
    if on is None and not is_field(transform):
        raise InputError(f"{path}: SPM holds the places of voxels; give the fixed image's grid: --fixed")
    grid = on if on is not None else transform.grids[0]
    save_vectors(landed_points(transform, grid), grid, path, "Mapping", description="Deformation field")


def read_spm(path: str | Path) -> Displacement:
    """Read a deformation as the map from the world of its grid to the one that its vectors lie in.

    Raises:
        InputError: a flow field or a velocity, vectors that are no places in the world, or not such a file.
    """
    header = Header.of(load(path))
    if header.description.startswith(("Velocity", "Flow")):
        raise InputError(f"{path}: a velocity of SPM's Shoot or Dartel; {REMEDY}")
    if header.name == "NREG_TRANS":
        raise InputError(f"{path}: its intent is NiftyReg's, NREG_TRANS; leave --from out")
    places, grid = read_vectors(path)
    if grid.ndim != 3 or are_displacements(places, grid):
        raise InputError(
            f"{path}: by their size these are displacements, not the places in the world that SPM writes; if ITK or "
            f"ANTs wrote it, pullback convert --from itk"
        )
    return as_places(places, grid)


def _looks(evidence: Evidence) -> bool:
    header = evidence.header
    if header is None or not header.is_vectors or header.name not in ("", "Mapping"):
        return False
    described = header.description.startswith(("Deformation", "Velocity", "Flow"))
    return described or header.name == "Mapping"


def _write(transform: Transform, path: str | Path, fixed: Grid | None, moving: Grid | None) -> tuple[Path, ...]:
    write_spm(transform, path, None if is_field(transform) else fixed)
    return (Path(path),)


KIND = Kind(
    "spm",
    _looks,
    lambda name: name.startswith(PREFIXES) and name.endswith(".nii"),
    lambda path, fixed, moving: read_spm(path),
    _write,
    lambda path: "a deformation of SPM, RAS mm: takes voxels of the fixed grid to places in the moving world",
)
