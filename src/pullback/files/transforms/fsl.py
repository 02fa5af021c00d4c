"""Transforms of FSL: mm along the voxel axes from the first voxel, with x reversed where the header is right-handed.

FLIRT's matrices take the moving image to the fixed; the warps of FNIRT and `applywarp` are pull-backs on the fixed
grid. See the FSL user guide, "What is the format of the matrix used by FLIRT", and fslpy's `fsl.transform.fnirt`.
"""

from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.files.images.image_file import load, stored_voxels
from pullback.files.images.nifti import affine3, refuse_not_finite, save
from pullback.files.images.orientation import stored_grid
from pullback.files.suffixes import NIFTI, ends, refuse_batch
from pullback.files.transforms.index_space import between, homogeneous, landed_points
from pullback.files.transforms.kind import Evidence, Kind, both
from pullback.numerics.singular import is_singular
from pullback.records.atomic import atomic_write
from pullback.space import Affine, Grid, Transform

RELATIVE = 2006  # NIFTI_INTENT of an FNIRT displacement field
COEFFICIENTS = (2007, 2008, 2009)  # of cubic splines, of cosines, of quadratic splines, which are refused


def write_fsl(transform: Transform, path: str | Path, fixed: Grid, moving: Grid) -> None:
    """Write an affine as FLIRT's `.mat` (moving → fixed), or any transform as a relative warp `.nii.gz` on `fixed`.

    Raises:
        InputError: a batch, the name ends otherwise, a `.mat` of what is no affine, or writing fails.
    """
    refuse_batch(transform.batch, path)
    if str(path).endswith(".mat"):
        _write_flirt(transform, path, fixed, moving)
    elif ends(path, NIFTI):
        there = homogeneous(_frame(moving) @ torch.linalg.inv(moving.affine), landed_points(transform, fixed))
        relative = there - homogeneous(_frame(fixed), fixed.voxels(there))
        data = np.zeros((*fixed.shape, *[1] * (3 - fixed.ndim), 3), np.float32)
        # (X, Y, Z, d), with Z = 1 for a slice
        data[..., : fixed.ndim] = relative.movedim(0, -1).reshape(*data.shape[:3], fixed.ndim).numpy()
        image = nib.Nifti1Image(data, affine3(fixed.affine))
        image.header.set_intent(RELATIVE)
        save(image, path)
    else:
        raise InputError(f"{path}: FSL's affines are written as .mat, its warps as .nii.gz")


def read_fsl(path: str | Path, fixed: Grid, moving: Grid) -> Transform:
    """Read the output of FLIRT (`.mat`), FNIRT (`--fout`) or `convertwarp --relout` for images on these two grids.

    Raises:
        InputError: not one of them, a warp that is absolute, of coefficients or on another grid than `fixed`.
    """
    return _read_warp(path, fixed, moving) if ends(path, NIFTI) else _read_flirt(path, fixed, moving)


def _frame(grid: Grid) -> Tensor:
    """Return the matrix `(d+1, d+1)` that takes voxels to FSL's millimetres."""
    out = torch.diag(torch.cat([grid.spacing, torch.ones(1, dtype=torch.float64)]))
    if torch.linalg.det(grid.affine) > 0:
        out[0, 0] *= -1
        out[0, -1] = (grid.shape[0] - 1) * grid.spacing[0]
    return out


def _write_flirt(transform: Transform, path: str | Path, fixed: Grid, moving: Grid) -> None:
    affine = transform.as_affine
    if affine is None:
        raise InputError(f"{path}: a .mat of FSL holds an affine; write this {type(transform).__name__} as .nii.gz")
    matrix = affine.matrix.detach().cpu().double()
    matrix = matrix[0] if matrix.ndim == 3 else matrix
    world_to_fixed = _frame(fixed) @ torch.linalg.inv(fixed.affine)
    moving_to_world = moving.affine @ torch.linalg.inv(_frame(moving))
    with atomic_write(path) as temporary:
        np.savetxt(temporary, affine3(world_to_fixed @ torch.linalg.inv(matrix) @ moving_to_world), fmt="%.12g")


def _read_flirt(path: str | Path, fixed: Grid, moving: Grid) -> Affine:
    try:
        stored = np.array([line.split() for line in Path(path).read_text().splitlines() if line.strip()], float)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a matrix that FLIRT wrote, four rows of four numbers: {error}") from error
    d = fixed.ndim
    keep = [*range(d), 3]
    if stored.shape != (4, 4) or not np.allclose(affine3(torch.from_numpy(stored[np.ix_(keep, keep)])), stored):
        raise InputError(f"{path}: four rows of four numbers are expected that move points in {d} dimensions")
    matrix = torch.from_numpy(stored[np.ix_(keep, keep)])
    if is_singular(matrix[:-1, :-1]):
        raise InputError(f"{path}: the matrix cannot be inverted; run FLIRT anew")
    moving_to_world = moving.affine @ torch.linalg.inv(_frame(moving))
    return Affine(moving_to_world @ torch.linalg.inv(matrix) @ _frame(fixed) @ torch.linalg.inv(fixed.affine))


def _read_warp(path: str | Path, fixed: Grid, moving: Grid) -> Transform:
    image = load(path)
    stored, intent, d = tuple(image.shape), int(image.header["intent_code"]), fixed.ndim
    if len(stored) != 4 or stored[3] != 3 or stored[d:3] != (1,) * (3 - d) or intent not in (0, RELATIVE):
        raise InputError(
            f"{path}: not a displacement field of FSL in {d} dimensions: shape {stored}, intent {intent}; expected "
            f"(X, Y, Z, 3) with intent {RELATIVE}. Make one of coefficients with convertwarp --relout"
        )
    grid = stored_grid(image, stored[:d], path)
    if grid != fixed:
        raise InputError(f"{path}: the warp, {grid.shape}, lies on another grid than the fixed image, {fixed.shape}")
    data = stored_voxels(image, path).astype(np.float64)
    refuse_not_finite(data, "components", path)
    warp = torch.from_numpy(data.reshape(*grid.shape, 3)[..., :d]).movedim(-1, 0)  # (d, …)
    absolute = warp - homogeneous(_frame(grid), grid.voxels(warp))
    if absolute.flatten(1).var(1).sum() < 0.25 * warp.flatten(1).var(1).sum():
        raise InputError(f"{path}: an absolute warp, by its values; make it relative with convertwarp --relout")
    frames = moving.affine @ torch.linalg.inv(_frame(moving)) @ _frame(grid) @ torch.linalg.inv(grid.affine)
    field = torch.einsum("ab,b...->a...", torch.linalg.inv(_frame(grid)[:-1, :-1]), warp)
    return between(frames, field, grid, moving)


def _looks(evidence: Evidence) -> bool:
    header = evidence.header
    if header is not None:
        unnamed = header.intent == 0 and not evidence.name.startswith("disp_")
        return (
            len(header.shape) == 4 and header.shape[3] == 3 and (header.intent in (RELATIVE, *COEFFICIENTS) or unnamed)
        )
    return evidence.numbers == (4, 4, 4, 4)


def _write(transform: Transform, path: str | Path, fixed: Grid | None, moving: Grid | None) -> tuple[Path, ...]:
    write_fsl(transform, path, *both(path, "fsl", fixed, moving))
    return (Path(path),)


def _meaning(path: str | Path) -> str:
    if str(path).endswith(".mat"):
        return "a matrix of FLIRT, FSL's mm: flirt -applyxfm brings images moving → fixed"
    return "a relative warp of FSL on the fixed grid: applywarp brings images moving → fixed"


KIND = Kind(
    "fsl",
    _looks,
    lambda name: False,
    lambda path, fixed, moving: read_fsl(path, *both(path, "fsl", fixed, moving)),
    _write,
    _meaning,
)
