"""NIfTI in and out. The only room, with `itk.py`, that knows LPS."""

import gzip
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from nibabel.filebasedimages import ImageFileError
from torch import Tensor

from pullback.errors import InputError
from pullback.files.beside import beside
from pullback.space import Displacement, Grid, Image, Labels

VECTOR = 1007  # NIFTI_INTENT_VECTOR: LPS mm, as ITK and ANTs write and read
DISPVECT = 1006  # NIFTI_INTENT_DISPVECT: RAS mm


def read_image(path: str | Path, mask: str | Path | None = None) -> Image:
    """One scalar image, `(1, 1, *shape)` float32; non-zero voxels of `mask`, on the same grid, are where to look."""
    values, grid = _scalar(path)
    if not np.isfinite(values).all():
        raise InputError(f"{path}: {int((~np.isfinite(values)).sum())} voxels are NaN or infinite; replace them first")
    if values.min() == values.max():
        raise InputError(f"{path}: every voxel is {values.min():g}; a constant image cannot be aligned")
    inside = None if mask is None else read_labels(mask, on=grid).data > 0
    return Image(torch.from_numpy(values.astype(np.float32))[None, None], grid, inside)


def read_labels(path: str | Path, on: Grid | None = None) -> Labels:
    """Integer labels, `(1, 1, *shape)` int64; on the grid `on` where one is given."""
    values, grid = _scalar(path)
    rounded = np.rint(values)
    if not np.isfinite(values).all() or np.abs(values - rounded).max() > 1e-3:
        raise InputError(f"{path}: labels must be whole numbers; this looks like an image or a probability map")
    if on is not None and grid != on:
        raise InputError(
            f"{path}: the labels lie on another grid than their image: shape {grid.shape} against {on.shape}, "
            f"spacing {_short(grid.spacing)} against {_short(on.spacing)}; resample them (nearest) onto the image"
        )
    return Labels(torch.from_numpy(rounded.astype(np.int64))[None, None], on or grid)


def write_image(thing: Image | Labels, path: str | Path) -> None:
    """The first image of the batch and its first channel: float32, or the smallest integers that hold the labels."""
    data = thing.data[0, 0].detach().cpu().numpy()
    if isinstance(thing, Labels):
        data = data.astype(np.result_type(np.min_scalar_type(data.min()), np.min_scalar_type(data.max())))
        if data.dtype.itemsize > 4:
            raise InputError(
                f"{path}: labels up to {data.max()} do not fit 32 bits, which is what NIfTI readers accept"
            )
    else:
        data = data.astype(np.float32)
    _save(nib.Nifti1Image(data, _affine3(thing.grid.affine)), path)


def write_field(transform: Displacement, path: str | Path) -> None:
    """A displacement as ITK and ANTs read it: `(X, Y, Z, 1, 3)`, or `(X, Y, 1, 1, 2)`, intent 1007, float32, LPS mm."""
    grid = transform.grid
    linear = grid.affine[:-1, :-1]
    world = torch.einsum("ab,b...->a...", linear, transform.field[0].detach().cpu().double())
    world = world * _ras_lps(grid.ndim).view(-1, *[1] * grid.ndim)
    data = world.movedim(0, -1).numpy().astype(np.float32)
    data = data.reshape(*grid.shape, *[1] * (4 - grid.ndim), grid.ndim)
    image = nib.Nifti1Image(data, _affine3(grid.affine))
    image.header.set_intent(VECTOR)
    _save(image, path)


def read_field(path: str | Path) -> Displacement:
    """A displacement field of ITK or ANTs (intent 1007, LPS mm) or NIfTI (1006, RAS mm), on its own grid."""
    image = _load(path)
    intent, stored = int(image.header["intent_code"]), tuple(image.shape)
    known = len(stored) == 5 and (stored[3:] == (1, 3) or stored[2:] == (1, 1, 2))
    if intent not in (VECTOR, DISPVECT) or not known:
        raise InputError(
            f"{path}: not a displacement field: shape {stored}, intent {intent}; expected (X, Y, Z, 1, 3) or "
            f"(X, Y, 1, 1, 2) with intent 1007 (LPS mm, as ANTs and ITK write) or 1006 (RAS mm); other tools would "
            f"misread this file in silence"
        )
    ndim = stored[4]
    grid = _grid(image, stored[:ndim], path)
    data = _voxels(image, path).astype(np.float64)
    if not np.isfinite(data).all():
        raise InputError(f"{path}: {int((~np.isfinite(data)).sum())} components are NaN or infinite; mend the field")
    world = torch.from_numpy(data.reshape(*grid.shape, ndim)).movedim(-1, 0)
    if intent == VECTOR:
        world = world * _ras_lps(ndim).view(-1, *[1] * ndim)
    field = torch.einsum("ab,b...->a...", torch.linalg.inv(grid.affine[:-1, :-1]), world)
    return Displacement(field[None].float(), grid)


def _save(image: nib.Nifti1Image, path: str | Path) -> None:
    if not str(path).endswith((".nii", ".nii.gz")):
        raise InputError(f"{path}: images are written as .nii or .nii.gz")
    image.header.set_xyzt_units("mm")
    image.set_qform(image.affine, code=1)
    image.set_sform(image.affine, code=1)
    with beside(path) as temporary:
        nib.save(image, temporary)


def _load(path: str | Path) -> nib.Nifti1Pair:
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    try:
        image = nib.load(path)
        if not isinstance(image, nib.Nifti1Pair):
            raise InputError(f"{path}: a {type(image).__name__}; convert it to NIfTI (.nii or .nii.gz)")
        return image
    except (ImageFileError, EOFError, OSError, ValueError, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a readable NIfTI image ({error})") from error


def _scalar(path: str | Path) -> tuple[np.ndarray, Grid]:
    """A 2-D or 3-D array, stored axes of length one at the end dropped, and its grid."""
    image = _load(path)
    shape = tuple(image.shape)
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (2, 3):
        raise InputError(
            f"{path}: a {len(shape)}-D image of shape {tuple(image.shape)}; one 2-D or 3-D volume is expected: "
            f"take one frame out of it first"
        )
    if min(shape) < 2:
        raise InputError(f"{path}: shape {shape}; at least two voxels along each axis are needed")
    grid = _grid(image, shape, path)
    values = _voxels(image, path)
    return values.astype(np.float64 if values.dtype.itemsize > 2 else np.float32).reshape(shape), grid


def _voxels(image: nib.Nifti1Pair, path: str | Path) -> np.ndarray:
    try:
        if str(path).endswith(".gz") and isinstance(image, nib.Nifti1Image):
            # to the very end, where the checksum is: nibabel stops before it and takes damaged voxels for good
            image = type(image).from_bytes(gzip.decompress(Path(path).read_bytes()))
        values = np.asanyarray(image.dataobj)
    except (EOFError, OSError, ValueError, TypeError, zlib.error) as error:
        raise InputError(f"{path}: the header is fine but the voxels cannot be read ({error})") from error
    if values.dtype.kind not in "iuf":
        raise InputError(f"{path}: voxels of type {values.dtype}; plain numbers are expected, one per voxel")
    return values


def _grid(image: nib.Nifti1Pair, shape: tuple[int, ...], path: str | Path) -> Grid:
    """Where the voxels are; for 2-D images the third axis of the stored affine is left out."""
    keep = [*range(len(shape)), 3]
    affine = np.asarray(image.affine, dtype=np.float64)[np.ix_(keep, keep)]
    try:
        return Grid(shape, torch.from_numpy(affine.copy()))
    except ValueError as error:
        raise InputError(f"{path}: the header does not say where the voxels are. {error}") from error


def _affine3(affine: Tensor) -> np.ndarray:
    """A 4 × 4 affine; a 2-D one is laid in the plane of the first two world axes."""
    out = np.eye(4)
    keep = [*range(affine.shape[0] - 1), 3]
    out[np.ix_(keep, keep)] = affine.numpy()
    return out


def _ras_lps(ndim: int) -> Tensor:
    return torch.tensor([-1.0, -1.0, 1.0][:ndim], dtype=torch.float64)


def _short(numbers: Tensor) -> str:
    return "×".join(f"{x:.3g}" for x in numbers.tolist())
