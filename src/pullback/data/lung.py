"""Lung keypoints of the DIR-Lab COPDgene scans, by case and by fold."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
PUBLISHED = tuple(range(1, 11))
FOLDS = ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10))  # the paper's pairs of patients in order


@dataclass(frozen=True, eq=False)
class LungScans:
    """The unpaired keypoints of an exhale scan (fixed) and an inhale scan (moving) of one patient.

    Points are voxels × the nominal spacing, in mm: the millimetres of the published tables. The true voxel size differs
    from patient to patient.

    Attributes:
        pair: the clouds, and 400 and 4,000 points on the surfaces of the lungs, float32; 300 landmarks of experts,
            float64.
        nominal, true: voxel sizes `(3,)` in mm, float64.
        shape: of the scan in voxels.
    """

    pair: PointPair
    nominal: Tensor
    true: Tensor
    shape: tuple[int, ...]


def read_lung(folder: str | Path, case: int, landmarks: str | None = None) -> LungScans:
    """Read one case from `copd_NN.npz` and `masks/`; the automatic matches in the same file are not read.

    Args:
        folder: of the clouds.
        case: its number.
        landmarks: as of `LungKeypoints`.

    Raises:
        InputError: no such file, not such a file, a part of it is missing or of another shape, or a mask is empty.
    """
    names = ("exhale_keypoints", "inhale_keypoints") if landmarks is None else ("fixed", "moving")
    about = Path(folder) / (landmarks or ".")
    path, where = (each / f"copd_{case:02d}.npz" for each in (about, Path(folder)))
    with _opened(where) as stored:
        clouds = [_points(stored, name, where) for name in names]
    with _opened(path) as stored:
        here, there = (_points(stored, name, path) for name in ("landmarks_exhale", "landmarks_inhale"))
        nominal, true, shape = (_triple(stored, n, path) for n in ("spacing_nominal", "spacing_true", "shape"))
    if len(here) != len(there):
        raise InputError(f"{path}: as many landmarks at exhale as at inhale expected, got {[len(here), len(there)]}")
    sizes = tuple(int(n) for n in shape.tolist())
    masks = (about / "masks" / f"case_{case:02d}_{breath}_mask.nii.gz" for breath in ("exp", "insp"))
    surfaces = [_surface(mask, sizes, nominal, count).float() for mask, count in zip(masks, SURFACE, strict=True)]
    fixed, moving = ((points * nominal).float() for points in clouds)
    parts = (fixed, moving, *surfaces, here * nominal, there * nominal)
    called = [f"{side}{what}" for what in ("", "_surface", "_landmarks") for side in ("fixed", "moving")]
    known: dict[str, Any] = {name: Points(part[None]) for name, part in zip(called, parts, strict=True)}
    return LungScans(PointPair(**known, name=path.stem), nominal, true, sizes)


@contextmanager
def _opened(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            yield stored
    except (OSError, BadZipFile, ValueError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: a case of the lung keypoints (.npz) expected: {error}") from error


@dataclass(frozen=True)
class LungCase:
    """A case that is the clouds of one patient in a folder; `landmarks` as of `LungKeypoints`."""

    root: str
    number: int
    landmarks: str | None = None

    @property
    def name(self) -> str:
        return f"copd_{self.number:02d}"

    def load(self) -> PointPair:
        return self.scans().pair

    def scans(self) -> LungScans:
        """Return the clouds with what is known of their scans."""
        return LOADED.get(self, lambda: read_lung(self.root, self.number, self.landmarks))


@dataclass(frozen=True)
class LungKeypoints:
    """A dataset of keypoints of patients' lungs, by folds: one for test, the next for validation, the rest learn.

    There are Förstner points of both scans, of nine patients. Or those that the group of Bigalke et al. (MICCAI 2022)
    published, of ten (`landmarks`): there the moving cloud is twice as dense, and the fixed one is where the moving
    points were found in the exhale scan by image content. So half of its points have a partner within 2 mm, of the
    others a quarter; errors on one are not errors on the other.

    Attributes:
        root: the folder, or "" until one is given.
        fold: the one for test, 0 to 4.
        landmarks: the folder, from `root`, of landmarks, spacings and masks, where the clouds in `root` are those that
            were published, `fixed` and `moving`; None where all is in `root`.

    Raises:
        InputError: not one of the folds.
    """

    root: str = ""
    fold: int = 0
    landmarks: str | None = None

    def __post_init__(self) -> None:
        lung_fold(self.fold)

    @property
    def train(self) -> Singles:
        held = (*FOLDS[self.fold], *FOLDS[self._next])
        return Singles(self._cases([case for case in PUBLISHED if case not in held]), of=self)

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
        """Return those of these cases that there are."""
        if not self.root or not Path(self.root).is_dir():
            raise InputError(
                f"{self.root or 'no folder given'}: not a folder; say where copd_02.npz is with --data DIR"
            )
        known = CASES if self.landmarks is None else PUBLISHED
        return tuple(LungCase(self.root, number, self.landmarks) for number in numbers if number in known)


def lung_fold(fold: int, cases: Sequence[int] = CASES) -> tuple[Sequence[int], Sequence[int]]:
    """Return the cases to train on and the cases to test on of one of five folds, by patient.

    Raises:
        InputError: not one of the five.
    """
    if not 0 <= fold < len(FOLDS):
        raise InputError(f"fold {fold}: one of 0 to {len(FOLDS) - 1} expected")
    test = tuple(case for case in FOLDS[fold] if case in cases)
    return tuple(case for case in cases if case not in test), test


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
