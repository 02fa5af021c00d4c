"""Reading and writing of transform files of any kind."""

from collections.abc import Sequence
from pathlib import Path

from pullback.files.transforms.ants import chained
from pullback.files.transforms.kinds import TransformKind, kind_of, kind_to_write
from pullback.space import Grid, Transform

<<<<<<< HEAD
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

=======
>>>>>>> kinds

def read_any(
    path: str | Path, kind: TransformKind | None = None, fixed: Grid | None = None, moving: Grid | None = None
) -> Transform:
<<<<<<< HEAD
    """Read the transform in a file of `kind`; None tells it by the name, of NIfTI by the shape, of ANTs by the prefix.
=======
    """Read the transform in a file of `kind`; None tells it by all that names it: endings, headers, first bytes.
>>>>>>> kinds

    `ANTS` takes the prefix of the files. `FSL` and `LEARN2REG` know the world only by both images' grids.

    Raises:
        InputError: what fits several kinds or none, a grid that is missing, or not such a file.
    """
    return (kind or kind_of(path)).kind.read(path, fixed, moving)


def read_transform(path: str | Path) -> Transform:
    """Read a transform of any kind whose file says where it lies in the world.

    Raises:
        InputError: as of `read_any`.
    """
    return read_any(path)


def read_chain(pieces: Sequence[str | Path], invert: Sequence[bool] = ()) -> Transform:
    """Read transforms of any kind as one; points meet the first file first, as in `antsApplyTransforms -t`.

    Args:
        pieces: the files.
        invert: for each piece, whether it is inverted first; missing ones are not.

    Raises:
        InputError: no pieces, one of them cannot be read, or they differ in their number of dimensions.
    """
    return chained(pieces, invert, read_transform)


def write_any(
    transform: Transform,
    path: str | Path,
    kind: TransformKind | None = None,
    fixed: Grid | None = None,
    moving: Grid | None = None,
) -> tuple[Path, ...]:
    """Write a file of `kind` and return the names written; None tells it by the name, `.nii.gz` being ITK's.

    Where a file cannot hold the transform as it is, it is sampled on `fixed`, if that is given.

    Raises:
        InputError: a name that fits no kind alone, a grid that is missing, or a file that cannot hold the transform.
    """
    return (kind or kind_to_write(path)).kind.write(transform, path, fixed, moving)


def files_read(path: str | Path, kind: TransformKind | None = None) -> tuple[Path, ...]:
    """Return the files that `read_any` reads: the file itself, and those that it goes on from.

    Raises:
        InputError: what fits several kinds or none, or no such pieces.
    """
    return (kind or kind_of(path)).kind.reads(path)


def files_written(path: str | Path, kind: TransformKind | None = None) -> tuple[Path, ...]:
    """Return the files that `write_any` may write: the file itself, or each of ANTs' files.

    Raises:
        InputError: a name that fits no kind alone.
    """
    return (kind or kind_to_write(path)).kind.writes(path)


def meaning(path: str | Path, kind: TransformKind | None = None) -> str:
    """Say in one phrase what a file of `write_any` means: whose it is, in which units, and which way it goes.

    Raises:
        InputError: a name that fits no kind alone.
    """
<<<<<<< HEAD
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
=======
    return (kind or kind_to_write(path)).kind.meaning(path)
>>>>>>> kinds
