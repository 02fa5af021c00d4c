"""Kinds of transform files, and the evidence that one is known by."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import h5py
import nibabel as nib

from pullback.errors import InputError
from pullback.files.images.image_file import load
from pullback.files.suffixes import NIFTI, ends
from pullback.space import Grid, Transform

START = 4096  # bytes, of which each format says its name in the first few
Reader = Callable[[str | Path, Grid | None, Grid | None], Transform]
Writer = Callable[[Transform, str | Path, Grid | None, Grid | None], tuple[Path, ...]]


@dataclass(frozen=True)
class Evidence:
    """Evidence of the kind of a file: its name, its first bytes, its header.

    Attributes:
        path: where it lies; or the prefix of several files.
    """

    path: str | Path

    @property
    def name(self) -> str:
        """The file's name without folders, in small letters."""
        return Path(self.path).name.lower()

    @cached_property
    def start(self) -> bytes:
        """The first bytes; none where no file can be read."""
        try:
            with Path(self.path).open("rb") as file:
                return file.read(START)
        except OSError:
            return b""

    @cached_property
    def text(self) -> str:
        """The beginning of a text file; empty for any other file."""
        return "" if b"\0" in self.start else self.start.decode("utf-8", errors="replace")

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """Numbers of numbers in each line, where the text holds nothing else; else empty."""
        try:
            return tuple(len([float(word) for word in line.split()]) for line in self.text.splitlines() if line.strip())
        except ValueError:
            return ()

    @cached_property
    def header(self) -> "Header | None":
        """The header of a NIfTI image; None for any other file."""
        return Header.of(load(self.path)) if ends(self.path, NIFTI) and self.start else None

    @cached_property
    def hdf5(self) -> str:
        """The format that an HDF5 file names, such as `X5`; empty where it names none."""
        if not self.start.startswith(b"\x89HDF\r\n\x1a\n"):
            return ""
        try:
            with h5py.File(self.path) as file:
                return str(file.attrs.get("Format", ""))
        except OSError:
            return ""

    @property
    def is_matrix(self) -> bool:
        """Whether it is text of one homogeneous matrix, in two or three dimensions."""
        return self.numbers in ((3, 3, 3), (4, 4, 4, 4))


@dataclass(frozen=True)
class Header:
    """Statements of a NIfTI header about the meaning of its voxels.

    Attributes:
        shape: of the array as stored.
        intent: the code of the intent.
        name: of the intent.
        parameter: the first of the intent.
        description: free text, in which tools name themselves.
    """

    shape: tuple[int, ...]
    intent: int
    name: str
    parameter: float
    description: str

    @classmethod
    def of(cls, image: nib.Nifti1Pair) -> "Header":
        """Return the statements of an open image's header."""
        header = image.header
        name, description = (
            header[key].tobytes().split(b"\0")[0].decode("latin-1").strip() for key in ("intent_name", "descrip")
        )
        return cls(tuple(image.shape), int(header["intent_code"]), name, float(header["intent_p1"]), description)

    @property
    def is_vectors(self) -> bool:
        """Whether one vector belongs to each voxel, along the fifth axis."""
        return len(self.shape) == 5 and (self.shape[3:] == (1, 3) or self.shape[2:] == (1, 1, 2))


@dataclass(frozen=True)
class Kind:
    """A kind of transform file.

    Attributes:
        word: its name in `--from` and `--to`.
        looks: whether a file to be read is one by all that names it.
        names: whether a file to be written is one by its name.
        read: a transform from a path and, where given, the grids of the fixed and the moving image.
        write: a transform to a path, likewise; the answer names the files written.
        meaning: of a file to be written, in one phrase: whose it is, in which units, and which way it goes.
        reads: the files that are read for a path.
        writes: the files that may be written for a path.
    """

    word: str
    looks: Callable[[Evidence], bool]
    names: Callable[[str], bool]
    read: Reader
    write: Writer
    meaning: Callable[[str | Path], str]
    reads: Callable[[str | Path], tuple[Path, ...]] = lambda path: (Path(path),)
    writes: Callable[[str | Path], tuple[Path, ...]] = lambda path: (Path(path),)


def both(path: str | Path, word: str, fixed: Grid | None, moving: Grid | None) -> tuple[Grid, Grid]:
    """Return the grids of both images, for a kind of files that means nothing without them.

    Raises:
        InputError: one is missing, or they differ in their number of dimensions.
    """
    if fixed is None or moving is None:
        raise InputError(
            f"{path}: {word} files mean nothing without both images: pullback convert takes them as --fixed and "
            f"--moving"
        )
    if fixed.ndim != moving.ndim:
        raise InputError(f"{path}: the fixed image is {fixed.ndim}-D, the moving {moving.ndim}-D; give images alike")
    return fixed, moving
