"""NIfTI images, read and written."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.files.images.image_file import ImageSource, load, spatial, stored_voxels
from pullback.files.images.orientation import SHEAR, stored_grid
from pullback.files.images.slide import Slide, opens_as_slide
from pullback.files.suffixes import NIFTI, PICTURES, SLIDES, ends, refuse_batch
from pullback.records.atomic import atomic_write
from pullback.space import Grid, Image, Labels

MM, TIME = 2, 56  # NIfTI's code of millimetres, and the bits of its unit of time, which stays


def read_image(path: ImageSource, mask: str | Path | None = None) -> Image:
    """Read one scalar image, `(1, 1, *shape)` float32, and its mask, the non-zero voxels of `mask` on the same grid.

    Other formats than NIfTI are read through ITK, by the name's ending (`FORMATS`). Warns where ITK and ANTs may place
    a NIfTI image elsewhere. A 2-D image lies in two dimensions: in world x and y where its plane is theirs, else
    (coronal, oblique) in the axes of its own plane that are nearest to two of the world's.

    Raises:
        InputError: not one scalar volume or slice, nowhere in the world, not finite, constant, or an empty mask.
    """
    image = read_scalar(path)
    if image.data.min() == image.data.max():
        raise InputError(f"{path}: every voxel is {float(image.data.min()):g}; a constant image cannot be aligned")
    inside = None if mask is None else read_labels(mask, on=image.grid, what="mask").data != 0
    if inside is not None and not inside.any():
        raise InputError(f"{mask}: the mask is 0 everywhere; leave it out, or mark where to look")
    return replace(image, mask=inside)


def read_scalar(path: ImageSource, ndim: int | None = None) -> Image:
    """Read one scalar image as `read_image` does, but also a constant one: such an image can be moved, not aligned.

    With `ndim` 3 a slice keeps its plane in the world, one voxel thick: `(1, 1, X, Y, 1)`.

    Raises:
        InputError: not one scalar volume or slice, nowhere in the world, or not finite.
    """
    values, grid = _scalar(path, ndim)
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    refuse_not_finite(values, "voxels", path)
    return Image(torch.from_numpy(values)[None, None], grid)


def read_exact(path: ImageSource, ndim: int | None = None) -> Image | Labels:
    """Read one scalar image with the file's own numbers, for nearest neighbours to copy.

    Whole numbers that are stored as such are `Labels` of a type that holds them all, others an `Image` in float32 or,
    where the file or its scaling asks for more, float64. `ndim` is as in `read_scalar`.

    Raises:
        InputError: as of `read_scalar`, and whole numbers beyond 32 bits, which are not written.
    """
    values, grid = _scalar(path, ndim)
    thing = exact(values, grid, path)
    refuse_wide(thing, path)
    return thing


def exact(values: np.ndarray, grid: Grid, path: ImageSource) -> Image | Labels:
    """Return values `(*grid.shape,)` of a file with no digit lost: whole numbers as `Labels`, others as an `Image`.

    Raises:
        InputError: numbers that are not finite, or whole ones beyond 63 bits.
    """
    if values.dtype.kind == "f":
        refuse_not_finite(values, "voxels", path)
        floats = np.ascontiguousarray(values, np.float32 if values.dtype.itemsize <= 4 else np.float64)
        return Image(torch.from_numpy(floats)[None, None], grid)
    if values.dtype.kind == "u" and values.dtype.itemsize == 8 and values.max() > np.iinfo(np.int64).max:
        raise InputError(f"{path}: numbers up to {values.max()} do not fit 63 bits; number them anew")
    wider = {"u2": "i4", "u4": "i8", "u8": "i8"}  # torch knows few unsigned types
    stored = values.dtype.str[1:]
    whole = np.ascontiguousarray(values, np.dtype(wider.get(stored, stored)))
    return Labels(torch.from_numpy(whole)[None, None], grid)


def refuse_wide(thing: Image | Labels, path: ImageSource) -> None:
    """Refuse whole numbers that need more than 32 bits, which is what readers of NIfTI accept.

    Raises:
        InputError: there are any.
    """
    if isinstance(thing, Labels):
        low, high = (int(end) for end in thing.data.aminmax())
        if narrowest(low, high).itemsize > 4:
            raise InputError(
                f"{path}: labels from {low} to {high} do not fit 32 bits, which is what NIfTI readers accept; number "
                f"them anew"
            )


def narrowest(low: int, high: int) -> np.dtype:
    """Return the smallest type of integers that holds all from `low` to `high`."""
    return np.result_type(np.min_scalar_type(low), np.min_scalar_type(high))


def read_grid(path: ImageSource, ndim: int | None = None) -> Grid:
    """Read the grid of an image, whatever its voxels hold; of a series, the grid of its frames.

    With `ndim` 3 a slice keeps its plane in the world: its grid is one voxel thick.

    Raises:
        InputError: no image, too few voxels along an axis, or nowhere in the world.
    """
    return grid_of(load(path), path, ndim)


def grid_of(image: nib.Nifti1Pair, path: ImageSource, ndim: int | None = None) -> Grid:
    """Return the grid of an image file that is open, as `read_grid` does."""
    if ndim == 3 and is_slice(image, path):
        return stored_grid(image, (*image.shape, 1)[:3], str(path))
    shape = spatial(image)[:3]
    if len(shape) == 3 and shape.count(1) == 1:  # several frames of a slice
        shape = tuple(n for n in shape if n > 1)
    return stored_grid(image, _thick(shape, path), str(path))


def read_labels(path: ImageSource, on: Grid | None = None, what: str = "labels", ndim: int | None = None) -> Labels:
    """Read integer labels, `(1, 1, *shape)`, placed as `read_image` places images; `on` is the grid they must lie on.

    `ndim` is as in `read_scalar`. Their dtype is the smallest of uint8, int16, int32 and int64 that holds them. Errors
    call them `what`.

    Raises:
        InputError: not one volume or slice of whole numbers, nowhere in the world, or on another grid than `on`.
    """
    _refuse_coloured(path, what)
    values, grid = _scalar(path, ndim)
    rounded = np.rint(values) if values.dtype.kind == "f" else values
    if rounded is not values and (not np.isfinite(values).all() or np.abs(values - rounded).max() > 1e-3):
        raise InputError(
            f"{path}: {what}: whole numbers are expected; this looks like an image or a probability map"
            f"{': threshold it' if what == 'mask' else ''}"
        )
    if on is not None and grid != on:
        raise InputError(
            f"{path}: {what} on another grid than the image: {_differs(grid, on)}; resample onto it (nearest)"
        )
    low, high = int(rounded.min()), int(rounded.max())
    for dtype in (np.uint8, np.int16, np.int32, np.int64):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return Labels(torch.from_numpy(rounded.astype(dtype))[None, None], on or grid)
    raise InputError(f"{path}: labels from {low:g} to {high:g} do not fit 64 bits; number them anew")


def _refuse_coloured(path: ImageSource, what: str) -> None:
    """Refuse labels in colour: whether white or black is meant, and by which number, is not told."""
    if opens_as_slide(str(path)) and Slide.open(str(path)).coloured:
        raise InputError(f"{path}: {what} in colour; save them in grey, 0 where there is nothing")


def write_image(thing: Image | Labels, path: str | Path, like: str | Path | None = None) -> None:
    """Write an image's first channel as float32, or float64 where it is that, or labels as the smallest integers that
    hold them.

    A slice is placed where the slice in the file `like` lies, on whose grid it must be, and stored as that one is;
    without `like`, in the plane of world x and y.

    Raises:
        InputError: a batch, the name is not NIfTI's, the grid is sheared, labels exceed 32 bits, or writing fails.
    """
    refuse_batch(thing.batch, path)
    data = thing.data[0, 0].detach().cpu().numpy()
    if isinstance(thing, Labels):
        refuse_wide(thing, path)
        data = data.astype(narrowest(int(data.min()), int(data.max())), copy=False)
    refuse_sheared(thing.grid, path)
    affine = affine3(thing.grid.affine)
    if like is not None and thing.grid.ndim == 2:
        lent = load(like)
        data, affine = data.reshape(lent.shape[:3]), lent.affine
    save(nib.Nifti1Image(data, affine), path)


def refuse_sheared(grid: Grid, path: ImageSource) -> None:
    """Refuse a grid with sheared axes, which ITK, with its spacing and rotation, would read as another grid.

    Raises:
        InputError: the axes of the grid are not orthogonal.
    """
    direction = grid.affine[:-1, :-1] / grid.spacing
    skew = float((direction.T @ direction - torch.eye(grid.ndim, dtype=torch.float64)).abs().max())
    if skew > SHEAR:
        raise InputError(
            f"{path}: the grid is sheared, its axes {np.degrees(np.arcsin(min(skew, 1))):.2g}° from orthogonal; ITK "
            f"and ANTs would read another grid. Resample it (a fixed image: before registering) onto a grid whose "
            f"affine is a rotation times the spacing"
        )


def refuse_not_finite(values: np.ndarray, what: str, path: ImageSource) -> None:
    """Refuse numbers that are NaN, infinite or beyond float32; `what` names them in the error.

    Raises:
        InputError: there are any.
    """
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise InputError(f"{path}: {bad} {what} are NaN or infinite (or beyond float32); replace them first")


def save(image: nib.Nifti1Image, path: str | Path) -> None:
    """Write a NIfTI image to a temporary file, then rename it.

    Raises:
        InputError: another ending than .nii or .nii.gz.
    """
    refuse_other_names(path)
    image.header["xyzt_units"] = int(image.header["xyzt_units"]) & TIME | MM
    image.set_qform(image.affine, code=1)
    image.set_sform(image.affine, code=1)
    with atomic_write(path) as temporary:
        nib.save(image, temporary)


def refuse_other_names(path: str | Path) -> None:
    """Refuse a name that is not NIfTI's, as which images are written.

    Raises:
        InputError: another ending than .nii or .nii.gz.
    """
    if not ends(path, NIFTI):
        raise InputError(f"{path}: images are written as .nii or .nii.gz")


def is_slice(image: nib.Nifti1Pair, path: ImageSource) -> bool:
    """Return whether an image, or each of its frames, is one slice that lies in the world, as pictures do not."""
    stored = (*image.shape, 1)[:3]
    return len(stored) == 3 and stored.count(1) == 1 and not ends(str(path), (*PICTURES, *SLIDES))


def _scalar(path: ImageSource, ndim: int | None = None) -> tuple[np.ndarray, Grid]:
    """Read a 2-D or 3-D array, with the shape of its grid, and the grid."""
    image = load(path)
    shape = spatial(image)
    if len(shape) not in (2, 3):
        raise InputError(
            f"{path}: a {len(shape)}-D image of shape {tuple(image.shape)}; one 2-D or 3-D volume is expected: "
            f"take one frame out of it first"
        )
    _thick(shape, path)
    grid = grid_of(image, path, ndim)
    values = stored_voxels(image, path)
    return values.reshape(grid.shape), grid


def _thick(shape: tuple[int, ...], path: ImageSource) -> tuple[int, ...]:
    if len(shape) < 2 or min(shape) < 2:
        raise InputError(f"{path}: shape {shape}; at least two voxels along each axis are needed")
    return shape


def affine3(affine: Tensor) -> np.ndarray:
    """Return a 4 × 4 affine; a 2-D one is laid in the plane of the first two world axes."""
    out = np.eye(4)
    keep = [*range(affine.shape[0] - 1), 3]
    out[np.ix_(keep, keep)] = affine.numpy()
    return out


def ras_lps(ndim: int) -> Tensor:
    return torch.tensor([-1.0, -1.0, 1.0][:ndim], dtype=torch.float64)


def _differs(grid: Grid, on: Grid) -> str:
    """Say how two grids differ."""
    said = [] if grid.shape == on.shape else [f"shape {grid.shape} against {on.shape}"]
    if grid.ndim == on.ndim:
        if not torch.allclose(grid.spacing, on.spacing, rtol=1e-4):
            said.append(f"spacing {_short(grid.spacing)} against {_short(on.spacing)}")
        if not torch.allclose(grid.affine[:-1, :-1] / grid.spacing, on.affine[:-1, :-1] / on.spacing, atol=1e-3):
            said.append("its axes point elsewhere")
        apart = float((grid.affine - on.affine)[:-1, -1].norm())
        if apart > 0.01 * float(on.spacing.min()):
            said.append(f"its first voxel lies {apart:.3g} mm from the image's")
    return ", ".join(said) or "the affines differ"


def _short(numbers: Tensor) -> str:
    return "×".join(f"{x:.6g}" for x in numbers.tolist())
