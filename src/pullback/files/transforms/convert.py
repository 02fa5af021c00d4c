"""Reading and writing of transform files of any kind."""

from enum import Enum
from pathlib import Path

from pullback.errors import InputError
from pullback.files.images.image_file import load
from pullback.files.suffixes import NIFTI, ends
from pullback.files.transforms.ants import AFFINE, COMPOSITE, INVERSE, WARP, pieces_of, read_prefix, write_ants
from pullback.files.transforms.fsl import read_fsl, write_fsl
from pullback.files.transforms.itk import holds, is_field, read_transform, write_transform
from pullback.files.transforms.learn2reg import read_learn2reg, write_learn2reg
from pullback.files.transforms.x5 import read_x5, write_x5
from pullback.space import Grid, Transform

FIELD = "a displacement field, intent 1007, LPS mm: takes points fixed → moving, brings images moving → fixed"
MEANING = {
    "itk": "an ITK transform, LPS mm: takes points fixed → moving, brings images moving → fixed",
    "ants": "what antsApplyTransforms -t takes: 1Warp, then 0GenericAffine.mat (or Composite.h5 alone), LPS mm",
    "fsl": "a relative warp of FSL on the fixed grid: applywarp brings images moving → fixed",
    "learn2reg": "a displacement of Learn2Reg: fixed voxels to moving voxels, in voxels along the array's axes",
    "x5": "an X5 transform of nitransforms, RAS mm: takes points fixed → moving, brings images moving → fixed",
}


class TransformKind(Enum):
    """The kind of a transform file: ITK (also ANTs and Slicer), ANTs' files by their prefix, FSL, Learn2Reg or X5."""

    ITK = "itk"
    ANTS = "ants"
    FSL = "fsl"
    LEARN2REG = "learn2reg"
    X5 = "x5"


def read_any(
    path: str | Path, kind: TransformKind | None = None, fixed: Grid | None = None, moving: Grid | None = None
) -> Transform:
    """Read the transform in a file of `kind`; None tells it by the name, of NIfTI by the shape, of ANTs by the prefix.

    `ANTS` takes the prefix of the files. `FSL` and `LEARN2REG` know the world only by both images' grids.

    Raises:
        InputError: a name that fits several kinds, a grid that is missing, or not such a file.
    """
    kind = kind or _kind_of_file(path)
    if kind is TransformKind.ITK:
        return read_transform(path)
    if kind is TransformKind.ANTS:
        return read_prefix(path)
    if kind is TransformKind.X5:
        return read_x5(path)
    fixed, moving = _both(path, kind, fixed, moving)
    return (read_fsl if kind is TransformKind.FSL else read_learn2reg)(path, fixed, moving)


def write_any(
    transform: Transform,
    path: str | Path,
    kind: TransformKind | None = None,
    fixed: Grid | None = None,
    moving: Grid | None = None,
) -> tuple[Path, ...]:
    """Write a file of `kind` and return the names written; None tells it by the name, `.nii.gz` being ITK's.

    Where a file of ITK or X5 cannot hold the transform as it is, it is sampled on `fixed`, if that is given.

    Raises:
        InputError: a name that fits several kinds, a grid that is missing, or a file that cannot hold the transform.
    """
    kind = _kind_to_write(path, kind)
    if kind is TransformKind.ITK:
        write_transform(transform, path, on=None if _held(transform, path) else fixed)
    elif kind is TransformKind.X5:
        write_x5(transform, path, on=None if _held(transform, path) else fixed)
    elif kind is TransformKind.ANTS:
        if fixed is None:
            raise InputError(f"{path}: ANTs' warp needs the fixed image's grid; give --fixed")
        return write_ants(transform, path, fixed)
    else:
        fixed, moving = _both(path, kind, fixed, moving)
        (write_fsl if kind is TransformKind.FSL else write_learn2reg)(transform, path, fixed, moving)
    return (Path(path),)


def files_read(path: str | Path, kind: TransformKind | None = None) -> tuple[Path, ...]:
    """Return the files that `read_any` reads: the file itself, or those of ANTs' files that exist.

    Raises:
        InputError: a name that fits several kinds, or no such pieces.
    """
    return pieces_of(path) if (kind or _kind_of_file(path)) is TransformKind.ANTS else (Path(path),)


def files_written(path: str | Path, kind: TransformKind | None = None) -> tuple[Path, ...]:
    """Return the files that `write_any` may write: the file itself, or each of ANTs' files.

    Raises:
        InputError: a name that fits several kinds.
    """
    pieces = (AFFINE, WARP, INVERSE, COMPOSITE) if _kind_to_write(path, kind) is TransformKind.ANTS else ("",)
    return tuple(Path(f"{path}{piece}") for piece in pieces)


def meaning(path: str | Path, kind: TransformKind | None = None) -> str:
    """Say in one phrase what a file of `write_any` means: whose it is, in which units, and which way it goes.

    Raises:
        InputError: a name that fits several kinds.
    """
    kind = _kind_to_write(path, kind)
    if kind is TransformKind.ITK and ends(path, NIFTI):
        return FIELD
    if kind is TransformKind.FSL and str(path).endswith(".mat"):
        return "a matrix of FLIRT, FSL's mm: flirt -applyxfm brings images moving → fixed"
    return MEANING[kind.value]


def _held(transform: Transform, path: str | Path) -> bool:
    """Return whether a file holds the transform without sampling: NIfTI one field, others affines and fields."""
    if ends(path, NIFTI):
        return is_field(transform)
    return holds(transform)


def _both(path: str | Path, kind: TransformKind, fixed: Grid | None, moving: Grid | None) -> tuple[Grid, Grid]:
    if fixed is None or moving is None:
        raise InputError(f"{path}: {kind.value} files mean nothing without both images; give --fixed and --moving")
    if fixed.ndim != moving.ndim:
        raise InputError(f"{path}: the fixed image is {fixed.ndim}-D, the moving {moving.ndim}-D; give images alike")
    return fixed, moving


def _is_plain_nifti(path: str | Path) -> bool:
    return ends(path, NIFTI) and not Path(path).name.startswith("disp_")


def _kind_to_write(path: str | Path, kind: TransformKind | None) -> TransformKind:
    return kind or (TransformKind.ITK if _is_plain_nifti(path) else _kind_of_name(path))


def _kind_of_file(path: str | Path) -> TransformKind:
    if any(Path(f"{path}{piece}").is_file() for piece in (AFFINE, WARP)):
        return TransformKind.ANTS
    if not _is_plain_nifti(path):
        return _kind_of_name(path)
    shape = load(path).shape
    if len(shape) == 5:
        return TransformKind.ITK
    raise InputError(f"{path}: a field of shape {tuple(shape)} is FSL's or Learn2Reg's; say which with --from")


def _kind_of_name(path: str | Path) -> TransformKind:
    if ends(path, (".h5", ".hdf5", ".tfm", ".txt", "genericaffine.mat")):
        return TransformKind.ITK
    if ends(path, ".x5"):
        return TransformKind.X5
    if ends(path, ".npz") or (Path(path).name.startswith("disp_") and ends(path, NIFTI)):
        return TransformKind.LEARN2REG
    named = ", ".join(kind.value for kind in TransformKind)
    raise InputError(f"{path}: the name does not say what kind of transform it is; say with --from or --to: {named}")
