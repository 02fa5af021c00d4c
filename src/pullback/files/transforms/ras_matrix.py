"""Affines as text, rows of one matrix fixed → moving in RAS mm: of c3d, greedy, ITK-SNAP and NiftyReg."""

from pathlib import Path

import numpy as np
import torch

from pullback.errors import InputError
from pullback.files.suffixes import ends, refuse_absent, refuse_batch
from pullback.files.transforms.kind import Kind
from pullback.records.atomic import atomic_write
from pullback.space import Affine, Grid, Transform


def write_matrix(transform: Transform, path: str | Path) -> None:
    """Write an affine as d + 1 rows of numbers.

    Raises:
        InputError: a batch, another ending than .txt and .mat, a transform that deforms, or writing fails.
    """
    refuse_batch(transform.batch, path)
    if not ends(path, (".txt", ".mat")):
        raise InputError(f"{path}: affines of c3d, greedy and ITK-SNAP are written as .txt or .mat")
    affine = transform.as_affine
    if affine is None:
        raise InputError(f"{path}: a text of numbers holds an affine, and this deforms; write a field, as .nii.gz")
    matrix = affine.matrix.detach().cpu().double().reshape(transform.ndim + 1, -1)
    with atomic_write(path) as temporary:
        np.savetxt(temporary, matrix.numpy(), fmt="%.17g")


def read_matrix(path: str | Path) -> Affine:
    """Read d + 1 rows of d + 1 numbers, the last row being 0 … 0 1.

    Raises:
        InputError: no such text, or a matrix that cannot be inverted.
    """
    refuse_absent(path)
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        rows = [[float(word) for word in line.split()] for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a matrix of numbers alone: {error}") from error
    size = len(rows)
    if size not in (3, 4) or any(len(row) != size for row in rows) or rows[-1] != [0.0] * (size - 1) + [1.0]:
        raise InputError(f"{path}: four rows of four numbers (2-D: three of three) are expected, the last 0 0 0 1")
    return affine_of(np.array(rows), path)


def affine_of(matrix: np.ndarray, path: str | Path) -> Affine:
    """Return the map of a homogeneous matrix, RAS mm.

    Raises:
        InputError: it cannot be inverted.
    """
    linear = matrix[:-1, :-1]
    if not np.isfinite(matrix).all() or np.linalg.cond(linear) > 1e12:
        raise InputError(f"{path}: the affine cannot be inverted, it flattens the image; estimate it anew")
    return Affine(torch.from_numpy(matrix.astype(np.float64)))


def _write(transform: Transform, path: str | Path, fixed: Grid | None, moving: Grid | None) -> tuple[Path, ...]:
    write_matrix(transform, path)
    return (Path(path),)


KIND = Kind(
    "c3d",
    lambda evidence: evidence.is_matrix,
    lambda name: False,
    lambda path, fixed, moving: read_matrix(path),
    _write,
    lambda path: "an affine of c3d and greedy, RAS mm: takes points fixed → moving",
)
