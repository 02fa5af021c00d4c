"""Geometry and vectors as ITK has them, LPS mm, and displacement fields in images."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.files.images.nifti import ras_lps, refuse_not_finite, refuse_sheared
from pullback.files.itk_names import name_for_itk
from pullback.files.suffixes import ITK_IMAGES, NIFTI, ends, refuse_absent
from pullback.files.transforms.nifti_field import read_field, write_field
from pullback.records.atomic import atomic_write
from pullback.space import Displacement, Grid

FIELDS = (*NIFTI, *ITK_IMAGES)
LPS = ("left-posterior-superior", "lps")  # the space of a NRRD file
HEADER = 65536  # bytes, within which its header ends


def read_image_field(path: str | Path) -> Displacement:
    """Read a displacement field out of an image: of NIfTI as `read_field` does, of ITK's own formats in LPS mm.

    Raises:
        InputError: no image of vectors, or a NRRD in another space.
    """
    if ends(path, NIFTI):
        return read_field(path)
    refuse_absent(path)
    try:
        with name_for_itk(path) as name:
            image = sitk.ReadImage(name)
    except RuntimeError as error:
        raise InputError(f"{path}: not a readable image ({last_line(error)}); copy or convert it anew") from error
    ndim, count = image.GetDimension(), image.GetNumberOfComponentsPerPixel()
    if ndim not in (2, 3) or count != ndim or "float" not in image.GetPixelIDTypeAsString():
        raise InputError(
            f"{path}: not a displacement field: {count} components of {image.GetPixelIDTypeAsString()} in {ndim} "
            f"dimensions; one floating-point component for each dimension is expected, in LPS mm"
        )
    if ends(path, (".nrrd", ".nhdr")):
        _refuse_turned(path)
    return from_vector_image(image, path)


def _refuse_turned(path: str | Path) -> None:
    """Refuse a NRRD whose vectors are not LPS: ITK's reader turns the grid of another space, but not its vectors."""
    with Path(path).open("rb") as file:
        head = file.read(HEADER).split(b"\n\n")[0].decode("latin-1")
    said = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in head.splitlines())}
    space = said.get("space", LPS[0]).lower()
    frame = np.array([float(word) for word in re.findall(r"[-+.\de]+", said.get("measurement frame", ""))])
    size = round(len(frame) ** 0.5)
    if space not in LPS or (size and not np.allclose(frame, np.eye(size).ravel())):
        raise InputError(
            f"{path}: vectors in the space {space}{' with a frame of their own' * bool(size)}; ITK's are in {LPS[0]}. "
            f"Save the field from Slicer or ITK as .nrrd, or as .mha"
        )


def write_image_field(field: Displacement, path: str | Path) -> None:
    """Write a displacement field as an image of vectors in LPS mm, float32.

    Raises:
        InputError: the grid is sheared, or writing fails.
    """
    if ends(path, NIFTI):
        return write_field(field, path)
    refuse_sheared(field.grid, path)
    with atomic_write(path) as temporary, name_for_itk(temporary) as name:
        sitk.WriteImage(sitk.Cast(vector_image(field.grid, field.field), sitk.sitkVectorFloat32), name)
    return None


def vector_image(grid: Grid, field: Tensor) -> sitk.Image:
    """Return vectors in voxels of their grid, `(1, d, *shape)`, as ITK's image of vectors in LPS mm."""
    ndim = grid.ndim
    world = grid.to_mm(field[:1].detach().cpu().double())[0].permute(*range(ndim, -1, -1)) * ras_lps(ndim)
    image = sitk.GetImageFromArray(world.contiguous().numpy(), isVector=True)
    spacing, direction, origin = in_lps(grid)
    image.SetSpacing(spacing.tolist())
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin(origin.tolist())
    return image


def in_lps(grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the spacing, the direction `(d, d)` and the origin of a grid as ITK has them."""
    lps = flip(grid.ndim) @ grid.affine.numpy()
    spacing = np.linalg.norm(lps[:-1, :-1], axis=0)
    return spacing, lps[:-1, :-1] / spacing, lps[:-1, -1]


def grid_of_lps(shape: Sequence[int], spacing: Sequence[float], direction: np.ndarray, origin: Sequence[float]) -> Grid:
    """Return the grid of `in_lps`.

    Raises:
        ValueError: it cannot be inverted.
    """
    lps = np.eye(len(shape) + 1)
    lps[:-1, :-1] = direction * np.array(spacing)
    lps[:-1, -1] = origin
    return Grid(tuple(shape), torch.from_numpy(flip(len(shape)) @ lps))


def from_vector_image(image: sitk.Image, path: str | Path) -> Displacement:
    """Return the displacement that an image of vectors in LPS mm holds.

    Raises:
        InputError: components that are not finite.
    """
    ndim = image.GetDimension()
    world = sitk.GetArrayFromImage(image).astype(np.float64)
    refuse_not_finite(world, "components", path)
    mm = (torch.from_numpy(world) * ras_lps(ndim)).permute(*range(ndim, -1, -1))
    grid = _grid_of(image)
    return Displacement(grid.from_mm(mm[None]).float(), grid)


def _grid_of(image: sitk.Image) -> Grid:
    ndim = image.GetDimension()
    direction = np.array(image.GetDirection()).reshape(ndim, ndim)
    return grid_of_lps(image.GetSize(), image.GetSpacing(), direction, image.GetOrigin())


def flip(ndim: int) -> np.ndarray:
    """Return the matrix that takes RAS to LPS and back."""
    return np.diag([-1.0, -1.0, 1.0, 1.0] if ndim == 3 else [-1.0, -1.0, 1.0])


def last_line(error: Exception) -> str:
    """Return the last line of ITK's message."""
    return str(error).strip().splitlines()[-1].strip()
