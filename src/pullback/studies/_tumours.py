"""Data of the study of weighted metamorphosis: the authors' pictures, and slices of heads with made tumours."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pullback.alignment import Pair
from pullback.data import FileCase, Subject, Test, normalised
from pullback.data.case import LOADED
from pullback.data.phantoms.lesions import Lesions
from pullback.errors import InputError
from pullback.methods.pair.classical import BALANCED
from pullback.space import Affine, Grid, Image, Labels, around, cropped, pull, resampled
from pullback.studies._pairs import OnePair

OVALS, HALF = 185, 127  # grey of the ovals; and half of white
PATIENTS = ("00090", "00147")  # of BraTS 2021
MARGIN = 16.0  # mm about the head


def picture(path: Path, shape: tuple[int, int] | None = None) -> Tensor:
    """Read the first channel of a PNG as `(1, 1, columns, rows)` in 0 … 1, from the bottom up; shrunk by area means.

    Raises:
        InputError: there is no such file.
    """
    from PIL import Image as Picture  # noqa: PLC0415 (slow to import)

    if not path.is_file():
        raise InputError(f"{path}: no such file; name the folder in which it is with --data NAME=DIR")
    with Picture.open(path) as file:
        values = Picture.fromarray(np.asarray(file.convert("RGBA"))[..., 0])
        values = values if shape is None else values.resize(shape, Picture.Resampling.BOX)
    return torch.from_numpy(np.asarray(values)[::-1].T / np.float32(255))[None, None].contiguous()


@dataclass(frozen=True)
class Toy(OnePair):
    """The toy of figure 1: ovals on a disc, and a triangle that has grown between them.

    Attributes:
        root: the folder of the authors' pictures, or "" until one is given.
        size: pixels along each side; 300 in the paper.
    """

    root: str = ""
    size: int = 100

    @property
    def name(self) -> str:
        return f"toy {self.size}²"

    def load(self) -> Pair:
        """Return the pair, fixed with a mask that hides the triangle; the ovals have label 1."""
        folder, shape = Path(self.root), (self.size, self.size)
        grid = Grid.centred(shape, 300 / self.size)
        source, target, triangle = (picture(folder / f"reg_test_{name}.png", shape) for name in ("23", "24", "21_seg"))
        new = triangle > HALF / 255
        fixed = Image(torch.where(new, 0.5, target), grid, ~new)
        one, two = (self._ovals(folder / f"reg_test_{name}.png", grid) for name in ("24", "23"))
        return Pair(fixed, Image(source, grid), one, two, name=self.name)

    def _ovals(self, path: Path, grid: Grid) -> Labels:
        """Return the voxels that lie in an oval by more than a half."""
        whole = (picture(path) * 255).round() == OVALS
        share = torch.nn.functional.interpolate(whole.float(), grid.shape, mode="area")
        return Labels((share > 0.5).long(), grid)


@dataclass(frozen=True)
class Patients:
    """The two slices of BraTS 2021 of figure 2, each with the template SRI24 as its moving image; a test split alone.

    Attributes:
        root: the folder of the authors' pictures, or "" until one is given.
    """

    root: str = ""

    @property
    def test(self) -> Test:
        """The pairs."""
        return Test.singles([Patient(self.root, number) for number in PATIENTS])


@dataclass(frozen=True)
class Patient:
    """A slice of a patient with a tumour, with the template as its moving image."""

    root: str
    number: str

    @property
    def name(self) -> str:
        return f"BraTS2021 {self.number}"

    def load(self) -> Pair:
        """Return the pair, fixed with a mask that hides oedema and necrosis."""
        names = (f"BraTS2021_{self.number}_80_", f"BraTS2021_{self.number}_seg", "reg_test_sri24")
        target, tumour, source = (picture(Path(self.root) / f"{name}.png") for name in names)
        grid = Grid.centred(tuple(target.shape[2:]), 1.0)
        return Pair(Image(target, grid, tumour < 0.5), Image(source, grid), name=self.name)


@dataclass(frozen=True)
class Tumours:
    """Slices of heads with made tumours, and slices of others that are aligned to them affinely; a test split alone.

    Attributes:
        root: the folder of OASIS-TRT-20, with `images` and `labels`, or "" until one is given.
        lesions: makes the tumours.
        spacing: of the voxels, mm.
        count: of the pairs, from the first on.
    """

    root: str = ""
    lesions: Lesions = Lesions()
    spacing: float = 2.0
    count: int = 20

    @property
    def test(self) -> Test:
        """The pairs: each head in turn, with the next one, then each with the one after the next.

        Raises:
            InputError: there are fewer than three heads.
        """
        names = sorted(path.name.removesuffix(".nii.gz") for path in (Path(self.root) / "images").glob("*.nii.gz"))
        if len(names) < 3:
            raise InputError(f"{self.root or 'no folder given'}: images/*.nii.gz and labels/*.nii.gz expected")
        others = [(n % len(names), (n + 1 + n // len(names)) % len(names)) for n in range(self.count)]
        return Test.singles([Tumour(self, names[a], names[b], n) for n, (a, b) in enumerate(others)])


@dataclass(frozen=True)
class Tumour:
    """A slice with a tumour, and one of another head."""

    data: Tumours
    fixed: str
    moving: str
    number: int

    @property
    def name(self) -> str:
        return f"{self.fixed} ← {self.moving}"

    def load(self) -> Pair:
        """Return the pair with all labels, intensities 0 … 1, fixed with a mask that hides the tumour."""
        return LOADED.get(self, self._made)

    def _made(self) -> Pair:
        made = self.data.lesions(self._subject(self.fixed), self.number)
        other = self._subject(self.moving)
        fixed = resampled(made.masked, (self.data.spacing,) * 2)
        start = replace(BALANCED, deformable=None)(fixed, resampled(other.image, (self.data.spacing,) * 2)).transform
        fixed = cropped(fixed, around(fixed.data > 0.05, fixed.grid, MARGIN))
        assert made.subject.labels is not None
        assert other.labels is not None
        return Pair(
            fixed,
            pull(other.image, start, onto=fixed),
            pull(made.subject.labels, Affine.identity(2), onto=fixed),
            pull(other.labels, start, onto=fixed),
            name=self.name,
        )

    def _subject(self, name: str) -> Subject:
        image, labels = (Path(self.data.root) / folder / f"{name}.nii.gz" for folder in ("images", "labels"))
        read = FileCase(name, image, labels, as_stored=True).load()
        return replace(read, image=normalised(read.image))
