"""NIfTI in and out. The only room, with `itk.py`, that knows LPS."""

from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from nibabel.filebasedimages import ImageFileError
from torch import Tensor

from pullback.errors import InputError
from pullback.files.write import beside
from pullback.space import Displacement, Grid, Image, Labels

VECTOR = 1007  # NIFTI_INTENT_VECTOR: LPS mm, as ITK and ANTs write and read
DISPVECT = 1006  # NIFTI_INTENT_DISPVECT: RAS mm


def read_image(path: str | Path, mask: str | Path | None = None) -> Image:
    """One scalar image, `(1, 1, *shape)` float32; non-zero voxels of `mask`, on the same grid, are where to look."""
    values, grid = _scalar(path)
    if not np.isfinite(values).all():
        raise InputError(f"{path}: {int((~np.isfinite(values)).sum())} voxels are NaN or infinite; mend or mask them")
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
    intent = int(image.header["intent_code"])
    data = np.asarray(image.dataobj, dtype=np.float64)
    if intent not in (VECTOR, DISPVECT) or data.ndim != 5 or data.shape[3] != 1 or data.shape[4] not in (2, 3):
        raise InputError(
            f"{path}: not a displacement field: shape {data.shape}, intent {intent}; expected (X, Y, Z, 1, 3) or "
            f"(X, Y, 1, 1, 2) with intent 1007 (LPS mm, as ANTs and ITK write) or 1006 (RAS mm); other tools would "
            f"misread this file in silence"
        )
    ndim = data.shape[4]
    shape = data.shape[:ndim]
    grid = Grid(shape, _affine(image.affine, ndim))
    world = torch.from_numpy(data.reshape(*shape, ndim)).movedim(-1, 0)
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
    except (ImageFileError, EOFError, OSError, ValueError) as error:
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
    try:
        values = np.asanyarray(image.dataobj)
        values = values.astype(np.float64 if values.dtype.itemsize > 2 else np.float32)
    except (EOFError, OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: the header is fine but the voxels cannot be read ({error})") from error
    return values.reshape(shape), Grid(shape, _affine(image.affine, len(shape)))


def _affine(affine: np.ndarray, ndim: int) -> Tensor:
    """The stored affine, without the third axis for 2-D images."""
    keep = [*range(ndim), 3]
    return torch.from_numpy(np.asarray(affine, dtype=np.float64)[np.ix_(keep, keep)].copy())


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
