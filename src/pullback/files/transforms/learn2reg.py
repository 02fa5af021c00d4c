"""Displacements as submitted to Learn2Reg: `disp_FFFF_MMMM.nii.gz` or `.npz`, `(*fixed.shape, d)`.

The evaluation (Hering et al. 2023) adds the displacement to the indices of the fixed image's voxels and looks up the
moving image's voxels there: it takes fixed voxels to moving voxels, and the headers of both images have no part in it.
"""

import zipfile
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from pullback.errors import InputError
from pullback.files.images.image_file import load, stored_voxels
from pullback.files.images.nifti import affine3, refuse_not_finite, save
from pullback.files.suffixes import NIFTI, ends, refuse_batch
from pullback.files.transforms.index_space import between, landed_points
from pullback.files.transforms.kind import Evidence, Kind, both
from pullback.records.atomic import atomic_write
from pullback.space import Grid, Transform


def write_learn2reg(transform: Transform, path: str | Path, fixed: Grid, moving: Grid) -> None:
    """Write a transform sampled on `fixed`: the index i, j, k in `moving` less that in `fixed`, in voxels, float32.

    Raises:
        InputError: a batch, the name ends otherwise, or writing fails.
    """
    refuse_batch(transform.batch, path)
    there = moving.to_voxels(landed_points(transform, fixed)[None])[0]
    data = (there - fixed.voxels(there)).movedim(0, -1).numpy().astype(np.float32)
    if ends(path, NIFTI):
        save(nib.Nifti1Image(data, affine3(fixed.affine)), path)
    elif ends(path, ".npz"):
        with atomic_write(path) as temporary:
            np.savez_compressed(temporary, data)
    else:
        raise InputError(f"{path}: Learn2Reg's displacements are written as .nii.gz or .npz")


def read_learn2reg(path: str | Path, fixed: Grid, moving: Grid) -> Transform:
    """Read a submission for these two images.

    Raises:
        InputError: not one array `(*fixed.shape, d)` of finite numbers.
    """
    data = _stored(path) if ends(path, NIFTI) else _zipped(path)
    expected = (*fixed.shape, fixed.ndim)
    if data.shape != expected:
        raise InputError(
            f"{path}: shape {data.shape}; expected {expected}: the fixed image's shape, then the displacement along "
            f"its axes, in voxels"
        )
    refuse_not_finite(data, "components", path)
    field = torch.from_numpy(data.astype(np.float64)).movedim(-1, 0)
    return between(moving.affine @ torch.linalg.inv(fixed.affine), field, fixed, moving)


def _stored(path: str | Path) -> np.ndarray:
    image = load(path)
    intent = int(image.header["intent_code"])
    if intent:
        raise InputError(f"{path}: intent {intent}, which names another kind than Learn2Reg's; leave --from out")
    return stored_voxels(image, path)


def _zipped(path: str | Path) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = list(stored.values())
    except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not a readable .npz file ({error})") from error
    if len(arrays) != 1 or not isinstance(arrays[0], np.ndarray) or arrays[0].dtype.kind != "f":
        raise InputError(f"{path}: {len(arrays)} arrays; one of floating point is expected")
    return arrays[0]


def _looks(evidence: Evidence) -> bool:
    header = evidence.header
    if header is not None:
        ndim = len(header.shape) - 1
        return header.intent == 0 and ndim in (2, 3) and header.shape[-1] == ndim
    return ends(evidence.name, ".npz")


def _named(name: str) -> bool:
    return ends(name, ".npz") or (name.startswith("disp_") and ends(name, NIFTI))


def _write(transform: Transform, path: str | Path, fixed: Grid | None, moving: Grid | None) -> tuple[Path, ...]:
    write_learn2reg(transform, path, *both(path, "learn2reg", fixed, moving))
    return (Path(path),)


KIND = Kind(
    "learn2reg",
    _looks,
    _named,
    lambda path, fixed, moving: read_learn2reg(path, *both(path, "learn2reg", fixed, moving)),
    _write,
    lambda path: "a displacement of Learn2Reg: fixed voxels to moving voxels, in voxels along the array's axes",
)
