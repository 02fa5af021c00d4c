"""Reading and writing of transform files of any kind."""

from collections.abc import Sequence
from pathlib import Path

from pullback.files.transforms.ants import chained
from pullback.files.transforms.kinds import TransformKind, kind_of, kind_to_write
from pullback.space import Grid, Transform


def read_any(
    path: str | Path, kind: TransformKind | None = None, fixed: Grid | None = None, moving: Grid | None = None
) -> Transform:
    """Read the transform in a file of `kind`; None tells it by all that names it: endings, headers, first bytes.

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
    return (kind or kind_to_write(path)).kind.meaning(path)
