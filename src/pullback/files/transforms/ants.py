"""Output files of ANTs: an affine, a warp, its inverse, and the composite of the first two."""

from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path

from pullback.errors import InputError
from pullback.files.images.nifti import refuse_sheared
from pullback.files.transforms.itk import affine_and_field, read_itk_transform, write_transform
from pullback.files.transforms.kind import Evidence, Kind
from pullback.space import Grid, Transform, inverted

AFFINE, WARP, INVERSE, COMPOSITE = "0GenericAffine.mat", "1Warp.nii.gz", "1InverseWarp.nii.gz", "Composite.h5"


def write_ants(transform: Transform, prefix: str | Path, fixed: Grid) -> tuple[Path, ...]:
    """Write `φ = A ∘ ψ` as the files of ANTs: A, ψ, ψ⁻¹ and φ.

    Images come to the fixed grid by `-t 1Warp -t 0GenericAffine.mat`, and back by `-t [0GenericAffine.mat,1] -t
    1InverseWarp`. Where φ does not end in an affine, A is the identity; where φ is an affine, there are no warps. ψ is
    written on its own grid where it is one field, else sampled on `fixed`.

    Returns:
        The names of the files written.

    Raises:
        InputError: a grid is sheared, or writing fails.
    """
    affine, warp = affine_and_field(transform, fixed)
    pieces: dict[str, Transform] = {AFFINE: affine, COMPOSITE: affine}
    if warp is not None:
        refuse_sheared(warp.grid, f"{prefix}{WARP}")  # before the first of them is written
        pieces |= {WARP: warp, INVERSE: warp.inverse(), COMPOSITE: affine @ warp}
    for name, piece in pieces.items():
        write_transform(piece, f"{prefix}{name}")
    return tuple(Path(f"{prefix}{name}") for name in pieces)


def read_ants(pieces: Sequence[str | Path], invert: Sequence[bool] = ()) -> Transform:
    """Read the transform that `antsApplyTransforms -t` makes of a list of files; points meet the first file first.

    Args:
        pieces: affines, warps and composites.
        invert: for each piece, whether it is inverted first, as `[piece,1]` is; missing ones are not.

    Raises:
        InputError: no pieces, one of them cannot be read, or they differ in their number of dimensions.
    """
    return chained(pieces, invert, read_itk_transform)


def chained(
    pieces: Sequence[str | Path], invert: Sequence[bool], reader: Callable[[str | Path], Transform]
) -> Transform:
    """Return the transforms of several files as one, as `read_ants` orders them, each read by `reader`.

    Raises:
        InputError: as of `read_ants`.
    """
    if not pieces or len(invert) > len(pieces):
        raise InputError(
            f"transforms: {len(pieces)} pieces and {len(invert)} marks of inversion; give each mark its piece"
        )
    marks = [*invert, *[False] * (len(pieces) - len(invert))]
    read = [reader(piece) for piece in pieces]
    for piece, transform in zip(pieces[1:], read[1:], strict=True):
        if transform.ndim != read[0].ndim:
            raise InputError(
                f"{piece}: moves points in {transform.ndim} dimensions, {pieces[0]} in {read[0].ndim}; "
                f"give transforms that are alike"
            )
    turned = [inverted(part) if mark else part for part, mark in zip(read, marks, strict=True)]
    return reduce(lambda inner, outer: outer @ inner, turned)


def read_prefix(prefix: str | Path) -> Transform:
    """Read the forward transform by the prefix of ANTs' files: warp and affine, or the one of them that exists.

    Raises:
        InputError: neither is there, or they cannot be read.
    """
    return read_ants(pieces_of(prefix))


def pieces_of(prefix: str | Path) -> tuple[Path, ...]:
    """Return the files of the forward transform that exist, in the order of `read_ants`.

    Raises:
        InputError: none is there.
    """
    pieces = [Path(f"{prefix}{name}") for name in (WARP, AFFINE)]
    there = tuple(piece for piece in pieces if piece.is_file())
    if not there:
        raise InputError(f"{prefix}: neither {pieces[0].name} nor {pieces[1].name} is there; give ANTs' output prefix")
    return there


def _write(transform: Transform, path: str | Path, fixed: Grid | None, moving: Grid | None) -> tuple[Path, ...]:
    if fixed is None:
        raise InputError(f"{path}: ANTs' warp needs the fixed image's grid; give --fixed")
    return write_ants(transform, path, fixed)


def _looks(evidence: Evidence) -> bool:
    return any(Path(f"{evidence.path}{piece}").is_file() for piece in (AFFINE, WARP))


KIND = Kind(
    "ants",
    _looks,
    lambda name: False,
    lambda path, fixed, moving: read_prefix(path),
    _write,
    lambda path: "what antsApplyTransforms -t takes: 1Warp, then 0GenericAffine.mat (or Composite.h5 alone), LPS mm",
    pieces_of,
    lambda path: tuple(Path(f"{path}{piece}") for piece in (AFFINE, WARP, INVERSE, COMPOSITE)),
)
