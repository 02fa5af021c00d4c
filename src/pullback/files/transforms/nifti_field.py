"""Vectors on a grid in NIfTI files, one for each voxel along the fifth axis: displacements, or places in the world."""

from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.files.images.image_file import load, stored_voxels
from pullback.files.images.nifti import affine3, ras_lps, refuse_not_finite, refuse_sheared, save
from pullback.files.images.orientation import stored_grid
from pullback.files.suffixes import refuse_batch
from pullback.files.transforms.kind import Header
from pullback.space import Displacement, Grid

VECTOR = 1007  # NIFTI_INTENT_VECTOR: LPS mm, as ITK and ANTs write and read
DISPVECT = 1006  # NIFTI_INTENT_DISPVECT: RAS mm
MAPPING = ("Mapping", "NREG_TRANS")  # names of the intent in SPM and NiftyReg, whose vectors are RAS


def write_field(transform: Displacement, path: str | Path) -> None:
    """Write a displacement as ITK and ANTs read it: `(X, Y, Z, 1, 3)` or `(X, Y, 1, 1, 2)`, float32, LPS mm, 1007.

    Raises:
        InputError: a batch, the name is not NIfTI's, the grid is sheared, or writing fails.
    """
    grid = transform.grid
    refuse_batch(transform.batch, path)
    refuse_sheared(grid, path)
    world = grid.to_mm(transform.field[:1].detach().cpu().double())[0]
    save_vectors(world * ras_lps(grid.ndim).view(-1, *[1] * grid.ndim), grid, path)


def read_field(path: str | Path) -> Displacement:
    """Read a displacement field of ITK or ANTs (intent 1007, LPS mm) or NIfTI (1006, RAS mm), on its own grid.

    Raises:
        InputError: another shape or intent, the field of another tool, components that are not finite, or nowhere in
            the world.
    """
    header = Header.of(load(path))
    if header.intent not in (VECTOR, DISPVECT) or not header.is_vectors:
        raise InputError(
            f"{path}: not a displacement field: shape {header.shape}, intent {header.intent}; expected (X, Y, Z, 1, 3) "
            f"or (X, Y, 1, 1, 2) with intent 1007 (LPS mm, as ANTs and ITK write) or 1006 (RAS mm); other tools would "
            f"misread this file in silence"
        )
    if header.name in MAPPING:
        raise InputError(
            f"{path}: its intent is named {header.name!r}, as {'SPM' if header.name == 'Mapping' else 'NiftyReg'} "
            f"does, not ITK; leave --from out"
        )
    world, grid = read_vectors(path)
    if header.intent == VECTOR and are_places(world, grid):
        raise InputError(
            f"{path}: by their size these are places in the world, as SPM and NiftyReg write them, not displacements; "
            f"say which: pullback convert --from spm, or --from niftyreg"
        )
    if header.intent == VECTOR:
        world = world * ras_lps(grid.ndim).view(-1, *[1] * grid.ndim)
    return Displacement(grid.from_mm(world[None]).float(), grid)


def read_vectors(path: str | Path) -> tuple[Tensor, Grid]:
    """Return the vectors of a file as stored, `(d, *shape)` float64, and their grid.

    Raises:
        InputError: no vectors along the fifth axis, some that are not finite, or nowhere in the world.
    """
    image = load(path)
    header = Header.of(image)
    if not header.is_vectors:
        raise InputError(
            f"{path}: shape {header.shape}; a vector for each voxel along the fifth axis is expected, (X, Y, Z, 1, 3) "
            f"or (X, Y, 1, 1, 2)"
        )
    ndim = header.shape[4]
    grid = stored_grid(image, header.shape[:ndim], path)
    data = stored_voxels(image, path).astype(np.float64)
    refuse_not_finite(data, "components", path)
    return torch.from_numpy(data.reshape(*grid.shape, ndim)).movedim(-1, 0), grid


def save_vectors(
    vectors: Tensor, grid: Grid, path: str | Path, name: str = "", parameter: float = 0, description: str = ""
) -> None:
    """Write vectors `(d, *grid.shape)` as float32 along the fifth axis, with intent 1007 of this name.

    Raises:
        InputError: the name is not NIfTI's, or writing fails.
    """
    data = vectors.movedim(0, -1).numpy().astype(np.float32)
    image = nib.Nifti1Image(data.reshape(*grid.shape, *[1] * (4 - grid.ndim), grid.ndim), affine3(grid.affine))
    image.header.set_intent(VECTOR, name=name)
    image.header["intent_p1"], image.header["descrip"] = parameter, description.encode()
    save(image, path)


def as_places(places: Tensor, grid: Grid) -> Displacement:
    """Return the map that takes each voxel to its place in the world, `(d, *shape)` RAS mm, as a displacement."""
    where = grid.voxels(places)
    return Displacement((grid.to_voxels(places[None]) - where).float(), grid)


def as_displacements(vectors: Tensor, grid: Grid) -> Displacement:
    """Return the displacement of vectors `(d, *shape)` in RAS mm."""
    return Displacement(grid.from_mm(vectors[None]).float(), grid)


def slope(vectors: Tensor, grid: Grid) -> Tensor:
    """Return the matrix `(d, d)` by which vectors `(d, *shape)` in RAS mm grow with the place of their voxel: the
    nearest affine map's."""
    ndim, moved = grid.ndim, vectors.double()
    columns = []
    for axis, n in enumerate(grid.shape):
        off = torch.arange(n, dtype=torch.float64) - (n - 1) / 2
        profile = moved.movedim(1 + axis, 1).reshape(ndim, n, -1).mean(2)
        columns.append(profile @ off / off.square().sum().clamp(min=0.5))
    return torch.stack(columns, 1) @ torch.linalg.inv(grid.affine[:-1, :-1])


def are_places(vectors: Tensor, grid: Grid) -> bool:
    """Return whether vectors `(d, *shape)` in RAS mm look like places in the world rather than displacements.

    Places grow with the place of their voxel by about as much: their `slope` is nearer to the identity than to 0.
    """
    found = slope(vectors, grid)
    return float((found - torch.eye(grid.ndim, dtype=torch.float64)).norm()) < 0.5 * float(found.norm())


def are_displacements(vectors: Tensor, grid: Grid) -> bool:
    """Return whether vectors `(d, *shape)` in RAS mm cannot be places: somewhere they hardly grow with their voxel's
    place."""
    return float(torch.linalg.svdvals(slope(vectors, grid)).min()) < 0.1
