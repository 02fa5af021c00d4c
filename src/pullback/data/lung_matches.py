"""Matched keypoints of exhale and inhale CT: the motion of real lungs, one file for each person."""

from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from pullback.errors import InputError

SHAPE = (192, 192, 208)
"""Voxels of the grid on which the scans of all persons were laid."""
SPACING = (1.75, 1.25, 1.75)
"""Its voxel size in mm for exhale, which is nominal: the true one differs from person to person."""
PEOPLE = ("copd_[0-9]*.npz", "l2r_[0-9]*.npz")
LEAST = 10  # matches


def people_in(folder: str | Path) -> tuple[str, ...]:
    """Return the names of the persons whose matches lie in a folder, sorted.

    Raises:
        InputError: no such folder, or nobody in it.
    """
    root = Path(folder)
    found = sorted(path.stem for pattern in PEOPLE for path in root.glob(pattern)) if str(folder) else []
    if not found:
        where = f"{folder}: nobody" if folder else "no folder given"
        raise InputError(f"{where}; matches of lungs expected, copd_02.npz or l2r_001.npz: say where with --data DIR")
    return tuple(found)


def read_matches(folder: str | Path, person: str) -> tuple[Tensor, Tensor]:
    """Read where points of the exhale scan lie in the inhale scan of the same person.

    These are the matches of an automatic method, good to about 1.6 mm. Where only points of the inhale scan were
    matched, as of `copd_01`, their matches are the points at exhale.

    Returns:
        Points at exhale and the same at inhale, `(N, 3)` float64 each, in voxels of `SHAPE`.

    Raises:
        InputError: no such file, or not such a file.
    """
    path = Path(folder) / f"{person}.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            backwards = "exhale_keypoints" not in stored.files
            names: Sequence[str] = ("exhale_keypoints", "exhale_match_in_inhale")
            if backwards:
                names = ("inhale_match_in_exhale", "inhale_keypoints")
            missing = [name for name in names if name not in stored.files]
            if missing:
                raise InputError(
                    f"{path}: {' and '.join(missing)} expected, got {', '.join(stored.files) or 'nothing'}"
                )
            exhale, inhale = (torch.from_numpy(stored[name].astype(np.float64)) for name in names)
    except InputError:
        raise
    except (OSError, BadZipFile, ValueError, EOFError) as error:
        raise InputError(f"{path}: matches of lungs (.npz) expected: {error}") from error
    sound = exhale.ndim == 2 and exhale.shape[1] == 3 and len(exhale) >= LEAST and exhale.shape == inhale.shape
    if not sound or not (exhale.isfinite().all() and inhale.isfinite().all()):
        raise InputError(
            f"{path}: {LEAST} finite points or more, (N, 3), and as many matches expected, got {tuple(exhale.shape)} "
            f"and {tuple(inhale.shape)}"
        )
    return exhale, inhale
