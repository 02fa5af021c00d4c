"""Lung keypoints of the DIR-Lab COPDgene scans, by case and by fold."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.files.nifti import load, stored_voxels
from pullback.space import SURFACE, Grid, Labels, outline

CASES = tuple(range(2, 11))  # case 01 has no exhale cloud
FOLDS = ((2,), (3, 4), (5, 6), (7, 8), (9, 10))  # the paper's pairs of patients in order, less case 01


@dataclass(frozen=True, eq=False)
class LungPair:
    """Unpaired keypoints of an exhale scan (fixed) and an inhale scan (moving) of one patient.

    Points are voxels × the nominal spacing, in mm: the millimetres of the published tables. The true voxel size differs
    from patient to patient.

    Attributes:
        case: number.
        fixed, moving: Förstner points `(N, 3)` and `(M, 3)`, float32.
        fixed_surface, moving_surface: points on the surfaces of the lungs, `(400, 3)` and `(4000, 3)`, float32.
        fixed_landmarks, moving_landmarks: of experts, one to one, `(300, 3)`, float64.
        nominal, true: voxel sizes `(3,)` in mm, float64.
        shape: of the scan in voxels.
    """

    case: int
    fixed: Tensor
    moving: Tensor
    fixed_surface: Tensor
    moving_surface: Tensor
    fixed_landmarks: Tensor
    moving_landmarks: Tensor
    nominal: Tensor
    true: Tensor
    shape: tuple[int, ...]


def read_lung(folder: str | Path, case: int) -> LungPair:
    """One case of `copd_NN.npz`, and of `masks/`. Of the automatic matches in the same file nothing is read.

    Raises:
        InputError: no such file, not such a file, a part of it is missing or of another shape, or a mask is empty.
    """
    path = Path(folder) / f"copd_{case:02d}.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            clouds = [_points(stored, name, path) for name in ("exhale_keypoints", "inhale_keypoints")]
            landmarks = [_points(stored, name, path) for name in ("landmarks_exhale", "landmarks_inhale")]
            nominal, true, shape = (_triple(stored, n, path) for n in ("spacing_nominal", "spacing_true", "shape"))
    except (OSError, BadZipFile, ValueError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: a case of the lung keypoints (.npz) expected: {error}") from error
    if len(landmarks[0]) != len(landmarks[1]):
        raise InputError(f"{path}: as many landmarks at exhale as at inhale expected, got {[*map(len, landmarks)]}")
    sizes = tuple(int(n) for n in shape.tolist())
    masks = (Path(folder) / "masks" / f"case_{case:02d}_{breath}_mask.nii.gz" for breath in ("exp", "insp"))
    surfaces = [_surface(mask, sizes, nominal, count).float() for mask, count in zip(masks, SURFACE, strict=True)]
    fixed, moving = ((points * nominal).float() for points in clouds)
    first, second = (points * nominal for points in landmarks)
    return LungPair(case, fixed, moving, surfaces[0], surfaces[1], first, second, nominal, true, sizes)


def lung_fold(fold: int) -> tuple[Sequence[int], Sequence[int]]:
    """The cases to train on and the cases to test on of one of five folds, by patient.

    Raises:
        InputError: not one of the five.
    """
    if not 0 <= fold < len(FOLDS):
        raise InputError(f"fold {fold}: one of 0 to {len(FOLDS) - 1} expected")
    return tuple(case for case in CASES if case not in FOLDS[fold]), FOLDS[fold]


def _surface(path: Path, shape: tuple[int, ...], nominal: Tensor, count: int) -> Tensor:
    """Points `(count, 3)` of the surface of a mask, in nominal mm; its header, which is wrong, is not heeded."""
    inside = stored_voxels(load(path), path) > 0
    if inside.shape != shape:
        raise InputError(f"{path}: a mask of {shape} voxels expected, like its keypoints, got {inside.shape}")
    affine = torch.diag(torch.cat([nominal, torch.ones(1, dtype=torch.float64)]))
    points = outline(Labels(torch.from_numpy(inside)[None, None], Grid(shape, affine)), count).data[0]
    if len(points) < count:
        raise InputError(f"{path}: at least {count} voxels of surface expected, got {len(points)}")
    return points


def _points(stored: np.lib.npyio.NpzFile, name: str, path: Path) -> Tensor:
    values = _part(stored, name, path)
    if values.ndim != 2 or values.shape[1] != 3 or len(values) == 0 or not np.isfinite(values).all():
        raise InputError(f"{path}: {name}: finite points (N, 3) expected, got {values.shape}")
    return torch.from_numpy(values.astype(np.float64))


def _triple(stored: np.lib.npyio.NpzFile, name: str, path: Path) -> Tensor:
    values = _part(stored, name, path)
    if values.shape != (3,) or not (values > 0).all():
        raise InputError(f"{path}: {name}: three positive numbers expected, got {values.tolist()}")
    return torch.from_numpy(values.astype(np.float64))


def _part(stored: np.lib.npyio.NpzFile, name: str, path: Path) -> np.ndarray:
    if name not in stored.files:
        raise InputError(f"{path}: {name} is missing; of cases 02 to 10 both clouds are known")
    return stored[name]
