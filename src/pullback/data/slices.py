"""Slices, which show plates of an atlas: examples, files and their numbers, and batches to learn from."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from pullback.data.case import LOADED, Singles, stamp
from pullback.data.normalise import normalised
from pullback.errors import InputError
from pullback.files import read_image
from pullback.files.suffixes import NIFTI, ends
from pullback.numerics.smooth import gaussian
from pullback.space import Grid, Image, around, canonical, cropped, resample

FAINT = 0.1  # of an image's range: what is no tissue is darker, when it is smoothed a little
NUMBER = re.compile(r"^\d+|\d+(?=\D*$)")  # of a plate: the digits that a name begins with, or its last ones


@dataclass(frozen=True, eq=False)
class Plates:
    """The plates of an atlas, in its order.

    Attributes:
        image: `(P, 1, S, S)`, as of `as_square`.
        numbers: `(P,)` int64, rising.
        files: of the plates; none where they are planes of a volume.

    Raises:
        InputError: fewer than two plates, another count of numbers, or numbers that do not rise.
    """

    image: Image
    numbers: Tensor
    files: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if len(self.numbers) < 2 or len(self.numbers) != self.image.batch or not bool((self.numbers.diff() > 0).all()):
            raise InputError(
                f"plates: two or more, each with a number of its own, expected, got {self.image.batch} images and "
                f"{len(self.numbers)} numbers"
            )

    def to(self, device: torch.device) -> Self:
        """Return the plates on `device`."""
        return replace(self, image=self.image.to(device), numbers=self.numbers.to(device))

    def some(self, numbers: Tensor) -> Image:
        """Return the plates of these numbers as one batch.

        Raises:
            InputError: there is no plate of a number.
        """
        places = torch.searchsorted(self.numbers, numbers).clamp(max=len(self.numbers) - 1)
        if not torch.equal(self.numbers[places], numbers):
            lost = sorted({*numbers.tolist()} - {*self.numbers.tolist()})
            raise InputError(f"no plate {lost[0]}: there are {int(self.numbers[0])} to {int(self.numbers[-1])}")
        return replace(self.image, data=self.image.data[places])


class Atlas(Protocol):
    """An atlas of plates that can be loaded."""

    def load(self) -> Plates: ...


@runtime_checkable
class OfAtlas(Protocol):
    """A dataset of slices that says which atlas their plates are of."""

    @property
    def atlas(self) -> Atlas: ...
    @property
    def pixels(self) -> int: ...


@dataclass(frozen=True, eq=False)
class LabelledSlices:
    """Slices, with the number of the plate that each shows: an example by itself.

    Attributes:
        image: `(B, 1, S, S)`.
        plates: `(B,)` int64.
        is_plate: `(B,)` bool: which of them are the plates themselves.
        atlas: the plates among which they may be sought.
    """

    image: Image
    plates: Tensor
    is_plate: Tensor
    atlas: Plates | None = None
    name: str = ""

    @property
    def images(self) -> tuple[Image, ...]:
        """The images, as one batch."""
        return (self.image,)

    def to(self, device: torch.device) -> Self:
        """Return the slices with all their parts on `device`."""
        parts: dict[str, Any] = {name: getattr(self, name).to(device) for name in ("image", "plates", "is_plate")}
        return replace(self, **parts, atlas=self.atlas and self.atlas.to(device))


@dataclass(frozen=True)
class PlateFiles:
    """An atlas of plates in files, whose names say their numbers.

    Attributes:
        root: the folder.
        pattern: of the files under it.
        pixels: along each edge of a loaded plate.
    """

    root: str
    pattern: str = "*"
    pixels: int = 80

    def load(self) -> Plates:
        """Return all plates; those that were loaded before are kept until a file changes.

        Raises:
            InputError: no such folder, fewer than two plates in it, two of one number, or a file that is no image.
        """
        files = numbered(Path(self.root), self.pattern)
        double = sorted({number for number, _ in files if [n for n, _ in files].count(number) > 1})
        if double:
            named = ", ".join(path.name for number, path in files if number == double[0])
            raise InputError(f"{self.root}: {named} are all plate {double[0]}; one file of each number expected")
        if len(files) < 2:
            raise InputError(
                f"{self.root}: {len(files)} plates called {self.pattern!r}; two or more expected, with numbers in "
                f"their names, such as 1.png, 2.png or plate_001.png"
            )
        return LOADED.get((self, *(stamp(path) for _, path in files)), lambda: self._read(files))

    def _read(self, files: Sequence[tuple[int, Path]]) -> Plates:
        images = [read_square(path, self.pixels) for _, path in files]
        return Plates(
            images[0].stack(images[1:]), torch.tensor([number for number, _ in files]), tuple(path for _, path in files)
        )


def numbered(folder: Path, pattern: str = "*") -> list[tuple[int, Path]]:
    """Return the files of a folder whose names have a number, sorted by it: `91.png` and `91_2.png` have 91.

    Raises:
        InputError: no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of plates or slices")
    found = []
    for path in sorted(folder.glob(pattern)):
        digits = NUMBER.search(plain(path))
        if digits and path.is_file() and not path.name.startswith("."):
            found.append((int(digits[0]), path))
    return sorted(found)


def plain(path: Path) -> str:
    """Return the name of a file without its suffix."""
    return next((path.name[: -len(end)] for end in NIFTI if ends(path.name, end)), path.stem)


def read_square(path: Path, pixels: int) -> Image:
    """Read a slice or a plate as it is compared.

    Raises:
        InputError: no two-dimensional image.
    """
    image = read_image(path)
    if image.grid.ndim != 2:
        raise InputError(f"{path}: a slice, which is 2-D, expected, got {image.grid.shape}")
    return as_square(image, pixels)


def as_square(image: Image, pixels: int) -> Image:
    """Return a slice as it is compared, `(1, 1, pixels, pixels)`: `in_square`, without where it lies in the world."""
    return replace(in_square(image, pixels), grid=Grid.centred((pixels, pixels)))


def in_square(image: Image, pixels: int) -> Image:
    """Return a slice's tissue, bright, cut out, and laid in the middle of a square.

    Channels are averaged, and intensities brought to 0 … 1; where the border of the image is bright, as in bright
    field, they are inverted. The longer edge of the tissue's box is the square's; beyond it is 0. Axes are near to
    those of the world.

    Args:
        image: one 2-D image, `(1, C, *spatial)`.
        pixels: along each edge of the answer, `(1, 1, pixels, pixels)`.
    """
    grey = canonical(replace(image, data=image.data.mean(1, keepdim=True), mask=None))
    if is_bright_field(grey):
        grey = replace(grey, data=grey.data.max() + grey.data.min() - grey.data)
    grey = normalised(grey)
    lit = gaussian(grey.data, max(grey.grid.shape) / 100) > FAINT
    tissue = cropped(grey, around(lit if bool(lit.any()) else torch.ones_like(lit), grey.grid))
    extents = torch.tensor(tissue.grid.shape) * tissue.grid.spacing
    edge = float(extents.max()) / pixels
    axes = tissue.grid.affine[:-1, :-1] / tissue.grid.spacing * edge
    affine = torch.eye(3, dtype=torch.float64)
    affine[:-1, :-1] = axes
    affine[:-1, -1] = tissue.grid.centre - axes @ torch.full((2,), (pixels - 1) / 2, dtype=torch.float64)
    return resample(tissue, Grid((pixels, pixels), affine))


def is_bright_field(image: Image) -> bool:
    """Return whether the border of an image is brighter than the middle of its range."""
    data = image.data[0, 0]
    border = torch.cat([data[0], data[-1], data[:, 0], data[:, -1]])
    return float(border.median()) > float(data.min() + data.max()) / 2


@dataclass(frozen=True)
class SliceCase:
    """A slice in a file, and the plate that it shows.

    Attributes:
        path: of the file.
        plate: its number.
        atlas: to which the plate belongs.
        pixels: along each edge of the loaded slice.
        split: the folder that names it apart from others.
    """

    path: Path
    plate: int
    atlas: Atlas
    pixels: int = 80
    split: str = ""

    @property
    def name(self) -> str:
        """The name of the file, behind its folder's."""
        return f"{self.split}/{plain(self.path)}".lstrip("/")

    def load(self) -> LabelledSlices:
        """Return the slice, with the atlas."""
        number, is_plate = torch.tensor([self.plate]), torch.zeros(1, dtype=torch.bool)
        return LabelledSlices(self.image(), number, is_plate, self.atlas.load(), self.name)

    def image(self) -> Image:
        """Return the slice alone; one that was loaded before is kept until its file changes."""
        return LOADED.get((self.path, self.pixels, stamp(self.path)), lambda: read_square(self.path, self.pixels))


@dataclass(frozen=True)
class SliceDraws(Singles):
    """The training split of slices, an example of which is a batch of pairs; its cases say their plate and image.

    A pair is a slice and its plate, or a plate twice, which augmentation tells apart. Of the slices each is another one
    as far as there are enough, and the plates of the other pairs are other plates.

    Attributes:
        atlas: the plates.
        plates: numbers of those that may be learned from alone; () for all.
        at_once: pairs with a slice, of an example.
        alone: pairs of a plate and itself.

    Raises:
        InputError: fewer than two pairs.
    """

    atlas: Atlas | None = None
    plates: tuple[int, ...] = ()
    at_once: int = 12
    alone: int = 4

    def __post_init__(self) -> None:
        if min(self.at_once, self.alone) < 0 or self.at_once + self.alone < 2:
            raise InputError(f"pairs of an example: two or more expected, got {self.at_once} and {self.alone}")

    def draw(self, generator: torch.Generator) -> LabelledSlices:
        """Draw the slices, their plates, and plates twice: `(2 (at_once + alone), 1, S, S)`."""
        assert self.atlas is not None
        atlas = self.atlas.load()
        order = torch.randperm(len(self.cases), generator=generator).tolist() if self.at_once else []
        drawn: list[Any] = [self.cases[order[n % len(order)]] for n in range(self.at_once)]
        shown = [case.plate for case in drawn]
        known = self.plates or tuple(atlas.numbers.tolist())
        others = [number for number in known if number not in shown] or list(known)
        places = torch.randperm(len(others), generator=generator).tolist()
        alone = [others[places[n % len(others)]] for n in range(self.alone)]
        numbers = torch.tensor([*shown, *shown, *alone, *alone])
        plates = atlas.some(numbers[len(shown) :])
        image = replace(plates, data=torch.cat([*(case.image().data for case in drawn), plates.data]))
        return LabelledSlices(image, numbers, torch.arange(len(numbers)) >= len(shown), None, f"{len(numbers)} slices")
