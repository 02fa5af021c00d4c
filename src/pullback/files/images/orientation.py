"""Orientation and position of a NIfTI image by its header, here and in ITK."""

import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from nibabel.spatialimages import HeaderDataError

from pullback.errors import InputError
from pullback.space import Grid

SHEAR = 1e-4  # cosine between axes, up to which they are orthogonal


def stored_grid(image: nib.Nifti1Pair, shape: tuple[int, ...], path: str | Path) -> Grid:
    """Return an image's grid by its sform, else its qform, as nibabel does; warn where other tools may differ.

    Raises:
        InputError: the affine cannot be inverted.
    """
    affine = np.array(image.affine, dtype=np.float64)
    try:
        grid = Grid(shape, torch.from_numpy(in_plane(affine, thin_axis(image)) if len(shape) == 2 else affine))
        doubt = where_itk_differs(image)
    except ValueError as error:
        raise InputError(
            f"{path}: the header does not say where the voxels are: the affine {affine.round(6).tolist()} cannot be "
            f"inverted; set it anew with nibabel: image.set_sform(affine, 1)"
        ) from error
    if doubt:
        warnings.warn(f"{path}: {doubt}", UserWarning, stacklevel=2)
    return grid


def thin_axis(image: nib.Nifti1Pair) -> int:
    """Return the axis along which a slice is stored as one voxel; the third where none is."""
    return next((axis for axis, n in enumerate(image.shape[:3]) if n == 1), 2)


def in_plane(affine: np.ndarray, thin: int = 2) -> np.ndarray:
    """Return the `(3, 3)` affine of a slice that is one voxel thick along the axis `thin` of `affine`, `(4, 4)`.

    The spacing is the length of the voxels' edges in the world, in mm. A slice along world x and y lies in them. Any
    other is given the orthonormal axes of its plane nearest to the two world axes that the plane is least inclined to:
    x and z for a coronal slice, y and z for a sagittal one. They depend on the plane alone, so that slices of one plane
    lie to each other as in the world.
    """
    affine = np.delete(affine, thin, axis=1)
    columns = affine[:3, :2]
    if np.abs(columns[2]).max() <= 1e-3 * np.abs(columns).max():
        return affine[[0, 1, 3]]
    basis = np.linalg.qr(columns)[0]
    normal = np.abs(np.cross(basis[:, 0], basis[:, 1])).round(6)  # rounded: a plane at 45° has one answer
    left, _, right = np.linalg.svd(np.delete(basis, normal.argmax(), axis=0).T)
    out = np.eye(3)
    out[:2] = (basis @ left @ right).T @ affine[:3]
    return out


def where_itk_differs(image: nib.Nifti1Pair) -> str:
    """Say how ITK and ANTs place an image elsewhere, and the remedy; empty where they agree to half a voxel."""
    qform, sform = int(image.header["qform_code"]), int(image.header["sform_code"])
    ours = "the sform" if sform > 0 else "the qform" if qform > 0 else "the image's middle at the world's origin"
    how, theirs = _as_itk(image)
    last = np.array([n - 1 for n in (*image.shape, 1, 1)[:3]])
    corners = np.vstack([np.array([*np.ndindex(2, 2, 2)]).T * last[:, None], np.ones(8)])
    shift = np.linalg.pinv(image.affine[:3, :3]) @ (theirs - image.affine)[:3] @ corners
    apart = float(np.nan_to_num(np.abs(shift).max(), nan=np.inf))
    if apart <= 0.5:
        return ""
    where = f"may place it up to {apart:.3g} voxels from there, by" if apart < np.inf else "cannot place it:"
    return (
        f"here, as in nibabel, the image lies by {ours} (sform code {sform}, qform code {qform}), in mm; ITK and ANTs "
        f"{where} {how}. To make all agree, resample it if it is sheared, and with nibabel: "
        f'image.set_qform(affine, 1), image.set_sform(affine, 1), image.header.set_xyzt_units("mm"), and save'
    )


def _as_itk(image: nib.Nifti1Pair) -> tuple[str, np.ndarray]:
    """Say how ITK 5 places an image, and return its `(4, 4)` affine in RAS mm; NaN where ITK cannot place it.

    The spacing is always pixdim's, in the header's unit. The directions are the sform's where there is no qform, or
    where its code is 1 and it is not sheared; else the qform's. Without either, voxel 0 is the origin.
    """
    header = image.header
    unit, scale = {1: ("metres", 1e3), 3: ("micrometres", 1e-3)}.get(int(header["xyzt_units"]) & 7, ("mm", 1.0))
    pixdim = np.abs(header["pixdim"][1:4].astype(np.float64))
    size = np.diag([*[scale] * 3, 1.0])
    sform = header.get_sform()
    turn = sform[:3, :3] / np.linalg.norm(sform[:3, :3], axis=0).clip(1e-12)
    sheared = np.abs(turn.T @ turn - np.eye(3)).max() > SHEAR
    if header["qform_code"] <= 0 and header["sform_code"] <= 0:
        return "the first voxel at the origin, y to the back", size @ np.diag([-1.0, -1, 1, 1]) @ np.diag([*pixdim, 1])
    if header["sform_code"] > 0 and header["qform_code"] <= 0 and sheared:
        return "the sform is sheared and there is no qform", np.full((4, 4), np.nan)
    if header["sform_code"] > 0 and (header["qform_code"] <= 0 or (header["sform_code"] == 1 and not sheared)):
        sform[:3, :3] = turn * pixdim
        return f"the sform with the spacing of pixdim in {unit}", size @ sform
    try:
        return f"the qform in {unit}", size @ header.get_qform()
    except (ValueError, HeaderDataError):
        return "the qform is damaged", np.full((4, 4), np.nan)
