"""Lung keypoints of the DIR-Lab COPDgene scans, by case and by fold."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from pullback.data.case import LOADED, Singles, Test, Validation
from pullback.errors import InputError
from pullback.example import PointPair
from pullback.files.images.image_file import load, stored_voxels
from pullback.space import SURFACE, Grid, Labels, Points, outline

CASES = tuple(range(2, 11))  # case 01 has no exhale cloud
FOLDS = ((2,), (3, 4), (5, 6), (7, 8), (9, 10))  # the paper's pairs of patients in order, less case 01


@dataclass(frozen=True, eq=False)
class LungScans:
    """The unpaired keypoints of an exhale scan (fixed) and an inhale scan (moving) of one patient.

    Points are voxels × the nominal spacing, in mm: the millimetres of the published tables. The true voxel size differs
    from patient to patient.

    Attributes:
        pair: Förstner points, and 400 and 4,000 points on the surfaces of the lungs, float32; 300 landmarks of experts,
            float64.
        nominal, true: voxel sizes `(3,)` in mm, float64.
        shape: of the scan in voxels.
    """

    pair: PointPair
    nominal: Tensor
    true: Tensor
    shape: tuple[int, ...]


def read_lung(folder: str | Path, case: int) -> LungScans:
    """Read one case from `copd_NN.npz` and `masks/`; the automatic matches in the same file are not read.

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
    here, there = landmarks
    parts = (fixed, moving, *surfaces, here * nominal, there * nominal)
    names = [f"{side}{what}" for what in ("", "_surface", "_landmarks") for side in ("fixed", "moving")]
    known: dict[str, Any] = {name: Points(part[None]) for name, part in zip(names, parts, strict=True)}
    return LungScans(PointPair(**known, name=path.stem), nominal, true, sizes)


@dataclass(frozen=True)
class LungCase:
    """A case that is the clouds of one patient in a folder."""

    root: str
    number: int

    @property
    def name(self) -> str:
        return f"copd_{self.number:02d}"

    def load(self) -> PointPair:
        return LOADED.get(self, lambda: read_lung(self.root, self.number).pair)


@dataclass(frozen=True)
class LungKeypoints:
    """A dataset of keypoints of nine patients' lungs, by folds: one for test, the next for validation, the rest learn.

    Attributes:
        root: the folder, or "" until one is given.
        fold: the one for test, 0 to 4.

    Raises:
        InputError: not one of the folds.
    """

    root: str = ""
    fold: int = 0

    def __post_init__(self) -> None:
        lung_fold(self.fold)

    @property
    def train(self) -> Singles:
        held = (*FOLDS[self.fold], *FOLDS[self._next])
        return Singles(self._cases([case for case in CASES if case not in held]), of=self)

    @property
    def validation(self) -> Validation:
        return Validation.singles(self._cases(FOLDS[self._next]))

    @property
    def test(self) -> Test:
        return Test.singles(self._cases(FOLDS[self.fold]))

    @property
    def _next(self) -> int:
        return (self.fold + 1) % len(FOLDS)

    def _cases(self, numbers: Sequence[int]) -> tuple[LungCase, ...]:
        if not self.root or not Path(self.root).is_dir():
            raise InputError(
                f"{self.root or 'no folder given'}: not a folder; say where copd_02.npz is with --data DIR"
            )
        return tuple(LungCase(self.root, number) for number in numbers)


def lung_fold(fold: int) -> tuple[Sequence[int], Sequence[int]]:
    """Return the cases to train on and the cases to test on of one of five folds, by patient.

    Raises:
        InputError: not one of the five.
    """
    if not 0 <= fold < len(FOLDS):
        raise InputError(f"fold {fold}: one of 0 to {len(FOLDS) - 1} expected")
    return tuple(case for case in CASES if case not in FOLDS[fold]), FOLDS[fold]


def _surface(path: Path, shape: tuple[int, ...], nominal: Tensor, count: int) -> Tensor:
    """Return points `(count, 3)` of the surface of a mask, in nominal mm; its header, which is wrong, is ignored."""
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
