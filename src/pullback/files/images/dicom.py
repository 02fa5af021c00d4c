"""DICOM: a series of slices in a folder, or one file, laid out as the NIfTI image it would be."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from pullback.errors import InputError
from pullback.files.images.itk_image import in_memory, read_itk
from pullback.files.itk_names import name_for_itk

MAGIC, WHERE = b"DICM", 128
PARALLEL = 1e-3
"""Cosine or share of a slice's distance: what rounding in headers may take from parallel, evenly spaced slices."""
EVEN = 0.02
NAMED = re.compile(r"(?P<folder>.+)@(?P<number>\d+)")


@dataclass(frozen=True)
class Slice:
    """A DICOM file by its header.

    Attributes:
        path: the file.
        tags: values of the public elements, by their number such as "0020|0032".
    """

    path: Path
    tags: dict[str, str]

    def words(self, tag: str) -> list[str]:
        """Return the values of an element, none where it is missing."""
        return [word.strip() for word in self.tags.get(tag, "").split("\\") if word.strip()]

    def numbers(self, tag: str, count: int, what: str) -> np.ndarray:
        """Return the numbers of an element.

        Raises:
            InputError: there are not `count` of them.
        """
        try:
            values = np.array([float(word) for word in self.words(tag)])
        except ValueError:
            values = np.empty(0)
        if len(values) != count:
            raise InputError(
                f"{self.path}: the header has no {what} ({tag.replace('|', ',')}); it is no image in space"
            )
        return values

    @property
    def series(self) -> str:
        """The identifier of its series."""
        return self.tags.get("0020|000e", "").strip()

    @property
    def number(self) -> str:
        """The number of its series, as the scanner counts them."""
        return self.tags.get("0020|0011", "").strip()

    @property
    def about(self) -> str:
        """The description of its series and its kind, in a few words."""
        words = (self.tags.get(tag, "").strip() for tag in ("0008|0060", "0008|103e"))
        return " ".join(word for word in words if word) or "without a description"

    @cached_property
    def position(self) -> np.ndarray:
        """The middle of its first pixel, `(3,)` LPS mm."""
        return self.numbers("0020|0032", 3, "position")

    @cached_property
    def axes(self) -> np.ndarray:
        """The directions along a row, along a column, and across the slice, `(3, 3)`, one in each row."""
        along = self.numbers("0020|0037", 6, "orientation").reshape(2, 3)
        return np.vstack([along, np.cross(*along)])

    @cached_property
    def spacing(self) -> np.ndarray:
        """Distances in mm of pixels along a row and along a column."""
        return self.numbers("0028|0030", 2, "pixel spacing")[::-1]

    @property
    def height(self) -> float:
        """The place across the slices, in mm."""
        return float(self.axes[2] @ self.position)

    def pixels(self) -> np.ndarray:
        """Return the values `(columns, rows)`, by the slope and intercept of this file.

        Raises:
            InputError: they cannot be read, or are colours.
        """
        try:
            with name_for_itk(self.path) as name:
                image = sitk.ReadImage(name)
        except RuntimeError as error:
            raise InputError(f"{self.path}: the pixels cannot be read; copy the file anew") from error
        if image.GetNumberOfComponentsPerPixel() > 1:
            raise InputError(f"{self.path}: pixels are colours; one plain number per pixel is expected")
        values = sitk.GetArrayFromImage(image)
        return values.reshape(values.shape[-2:]).T


def is_dicom(path: str | Path) -> bool:
    """Return whether a path is a folder, one of its series by number as in `scans@3`, or a file of DICOM."""
    path = Path(path)
    if path.is_dir() or (not path.exists() and _folder_of(path) is not None):
        return True
    try:
        with path.open("rb") as file:
            return file.read(WHERE + 4)[WHERE:] == MAGIC
    except OSError:
        return False


def read_dicom(path: str | Path) -> nib.Nifti1Image:
    """Read a folder with one series of DICOM, one series of several as in `scans@3`, or a file, in RAS mm.

    Slices are sorted by where they lie, and each has its own slope. Copies of a slice count once.

    Raises:
        InputError: no DICOM, several series (they are listed), or slices that make no image: of several places in one
            (times, echoes), with a gap, tilted against their axis, not parallel, or of several sizes.
    """
    if Path(path).is_file():
        return read_itk(path)
    slices = _chosen(Path(path))
    if len(slices) == 1:
        return read_itk(slices[0].path)
    slices = _sorted(slices, path)
    step = _step(slices, path)
    first = slices[0]
    values = np.stack([each.pixels() for each in slices], axis=-1)
    values = values.astype(np.float32) if values.dtype == np.float64 else values
    affine = np.eye(4)
    affine[:3, :2] = (first.axes[:2] * first.spacing[:, None]).T
    affine[:3, 2], affine[:3, 3] = step, first.position
    return in_memory(values, np.diag([-1.0, -1, 1, 1]) @ affine)


def _folder_of(path: Path) -> tuple[Path, str] | None:
    """Return folder and number of a path such as `scans@3`, or None."""
    named = NAMED.fullmatch(str(path))
    return (Path(named["folder"]), named["number"]) if named and Path(named["folder"]).is_dir() else None


def _chosen(path: Path) -> list[Slice]:
    """Return the slices of the one series, or of the one that is named."""
    folder, number = _folder_of(path) or (path, None)
    found = [each for file in sorted(folder.iterdir()) if file.is_file() and (each := _header(file)) is not None]
    if not found:
        below = sorted({file.parent.name for file in folder.glob("*/*") if file.is_file() and is_dicom(file)})
        more = f"; there is some in {', '.join(below[:5])}: name one of these" if below else ""
        raise InputError(f"{folder}: is a folder without DICOM{more or '; name a file, or a folder of one series'}")
    series: dict[str, list[Slice]] = defaultdict(list)
    for each in found:
        series[each.series].append(each)
    wanted = [group for group in series.values() if number in (None, group[0].number)]
    if len(wanted) == 1:
        return wanted[0]
    listed = "; ".join(f"@{group[0].number or '?'}: {group[0].about}, {len(group)} files" for group in series.values())
    if not wanted:
        raise InputError(f"{path}: there is no series {number}; there is {listed}")
    raise InputError(f"{folder}: holds {len(wanted)} series; name one as {folder}@NUMBER: {listed}")


def _header(path: Path) -> Slice | None:
    """Return a file's header, or None where it is no image of DICOM."""
    if not is_dicom(path):
        return None
    reader = sitk.ImageFileReader()
    try:
        with name_for_itk(path) as name:
            reader.SetFileName(name)
            reader.ReadImageInformation()
            return Slice(path, {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()})
    except RuntimeError:
        return None


def _sorted(slices: Sequence[Slice], path: str | Path) -> list[Slice]:
    """Return slices of one plane and size in the order in which they lie, copies left out."""
    first = slices[0]
    for each in slices:
        if np.abs(each.axes - first.axes).max() > PARALLEL:
            raise InputError(
                f"{path}: slices are not parallel ({first.path.name} and {each.path.name}), as of a scout; "
                f"name a series of one plane"
            )
        sizes = [[one.words(tag) for tag in ("0028|0010", "0028|0011")] for one in (first, each)]
        if sizes[0] != sizes[1] or not np.allclose(each.spacing, first.spacing, rtol=PARALLEL):
            raise InputError(f"{path}: slices have several sizes or spacings ({first.path.name}, {each.path.name})")
    once = list({each.tags.get("0008|0018", str(each.path)): each for each in slices}.values())
    return sorted(once, key=lambda each: each.height)


def _step(slices: Sequence[Slice], path: str | Path) -> np.ndarray:
    """Return the way from a slice to the next, `(3,)` LPS mm, which is the same for all and across them."""
    heights = np.array([each.height for each in slices])
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    doubled = np.flatnonzero(gaps <= EVEN * max(usual, 1e-6))
    if len(doubled):
        one, two = slices[doubled[0]].path.name, slices[doubled[0] + 1].path.name
        raise InputError(
            f"{path}: {len(doubled)} slices lie where another lies ({one} and {two}), as of several times, echoes or "
            f"phases in one series; put each into a folder of its own"
        )
    odd = np.flatnonzero(np.abs(gaps - usual) > EVEN * usual)
    if len(odd):
        worst = odd[np.abs(gaps[odd] - usual).argmax()]
        raise InputError(
            f"{path}: between {slices[worst].path.name} and {slices[worst + 1].path.name} are {gaps[worst]:.4g} mm, "
            f"between others {usual:.4g}: a slice is missing, or they are not evenly spaced; copy the series anew"
        )
    step = (slices[-1].position - slices[0].position) / (len(slices) - 1)
    aside = step - slices[0].axes[2] * (slices[0].axes[2] @ step)
    if np.linalg.norm(aside) > 10 * PARALLEL * np.linalg.norm(step):
        tilt = np.degrees(np.arctan2(np.linalg.norm(aside), usual))
        raise InputError(
            f"{path}: slices are tilted by {tilt:.1f}° against their axis (a tilted gantry), and voxels are no boxes; "
            f"dcm2niix straightens them"
        )
    return step
