"""Frames written one after the other, so that a file of any length is made in the memory of one."""

import gzip
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy

from pullback.errors import InputError
from pullback.files.images.image_file import load
from pullback.files.images.nifti import refuse_other_names
from pullback.files.suffixes import ends
from pullback.records.atomic import atomic_write
from pullback.space import Image

FASTEST = 1  # of gzip


def stream_series(
    frames: Iterable[Image], path: str | Path, like: str | Path, exact: bool = False, count: int | None = None
) -> None:
    """Write frames as a 4-D NIfTI file with the header of another, whose grid they have.

    Times, units, both affines, what is known of slices, and words are kept. Numbers are float32; or, where they are
    `exact` copies of those in `like` and these are whole and have no scale, of its type.

    Args:
        frames: images `(1, 1, *grid.shape)`, each asked for when the one before is written.
        path: to write.
        like: a file of frames, or of one.
        exact: whether all values are such as `like` holds.
        count: number of the frames; None is as many as `like` has.

    Raises:
        InputError: the name is not NIfTI's, another number of frames, or frames of another size.
    """
    refuse_other_names(path)
    source = load(like)
    shape = (*source.shape, 1, 1)[:3]
    count = (*source.shape, 1, 1)[3] if count is None else count
    header = _header(source, (*shape, count), exact)
    written = 0
    with atomic_write(path) as temporary, ExitStack() as stack:
        file: Any = stack.enter_context(temporary.open("wb"))
        if ends(path, ".nii.gz"):
            file = stack.enter_context(gzip.GzipFile(fileobj=file, mode="wb", compresslevel=FASTEST, filename=""))
        header.write_to(file)
        file.write(b"\0" * (int(header["vox_offset"]) - file.tell()))
        for frame in frames:
            values = frame.data.detach().cpu().numpy()
            if values.size != np.prod(shape):
                raise InputError(f"{path}: frames of {shape} voxels as in {like} expected, got {values.shape}")
            kept = values.reshape(shape).astype(header.get_data_dtype(), order="F")
            file.write(kept.tobytes(order="F"))
            written += 1
        if written != count:
            raise InputError(f"{path}: {count} frames expected, got {written}")


def _header(source: nib.Nifti1Pair, shape: tuple[int, ...], exact: bool) -> nib.Nifti1Header:
    """Return the header of one file with its voxels, without extensions."""
    kind = nib.Nifti2Header if isinstance(source.header, nib.Nifti2Header) else nib.Nifti1Header
    header = kind(source.header.binaryblock, source.header.endianness, check=False)
    stored, proxy = source.get_data_dtype(), source.dataobj
    scaled = isinstance(proxy, ArrayProxy) and (proxy.slope, proxy.inter) != (1.0, 0.0)
    whole = exact and stored.kind in "iu" and not scaled
    header.set_data_shape(shape)
    header.set_data_dtype(stored if whole else np.float32)
    header.set_slope_inter(1.0, 0.0)
    header["magic"] = header.single_magic
    header["vox_offset"] = header.single_vox_offset
    return header
