"""The planes of a volume as plates of an atlas."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from pullback.data.case import LOADED, stamp
from pullback.data.slices import Plates, as_square
from pullback.errors import InputError
from pullback.files import read_image
from pullback.files.suffixes import PICTURES, ends
from pullback.numerics.rotation import of_vector
from pullback.space import Affine, Grid, Image, canonical, pull


@dataclass(frozen=True)
class Planes:
    """An atlas whose plates are planes of a volume; their numbers are those of voxels along an axis.

    Attributes:
        path: of the volume.
        axis: across the planes: 0, 1 or 2, of the voxels as they are stored along axes near R, A and S; None for the
            pages of a picture's file, and of other volumes for the axis near A, whose planes are coronal.
        pixels: along each edge of a loaded plate.

    Raises:
        InputError: no such axis.
    """

    path: str
    axis: int | None = None
    pixels: int = 80

    def __post_init__(self) -> None:
        if self.axis not in (None, 0, 1, 2):
            raise InputError(f"axis across the planes: 0, 1 or 2 expected, got {self.axis}")

    def load(self) -> Plates:
        """Return the planes that show anything, kept until the file changes.

        Raises:
            InputError: no volume of two such planes.
        """
        return LOADED.get((self, stamp(Path(self.path))), self._read)

    def volume(self) -> tuple[Image, int]:
        """Return the volume, with the axis across its planes.

        Raises:
            InputError: no volume.
        """
        image = canonical(read_image(self.path))
        if image.grid.ndim != 3:
            raise InputError(f"{self.path}: a volume expected, whose planes are plates, got {image.grid.shape}")
        usual = 2 if ends(self.path, PICTURES) else 1
        return image, usual if self.axis is None else self.axis

    def plane(self, number: int) -> Image:
        """Return a plane as it is, 2-D."""
        image, axis = self.volume()
        return plane_of(image, axis, number)

    def _read(self) -> Plates:
        image, axis = self.volume()
        low, high = float(image.data.min()), float(image.data.max())
        shown = {}
        for n in range(image.grid.shape[axis]):
            plane = plane_of(image, axis, n)
            if float(plane.data.max()) > low + 0.05 * (high - low) and float(plane.data.min()) < float(
                plane.data.max()
            ):
                shown[n] = as_square(plane, self.pixels)
        if len(shown) < 2:
            raise InputError(f"{self.path}: {len(shown)} planes across axis {axis} show anything; two or more expected")
        first, *others = shown.values()
        return Plates(first.stack(others), torch.tensor([*shown]))


def tilted_plane(image: Image, axis: int, n: int, degrees: tuple[float, float]) -> Image:
    """Return a plane of a volume that is turned about its two own axes, through the middle of plane `n`, as 2-D.

    Args:
        image: the volume.
        axis: across the planes.
        n: of the plane, in voxels.
        degrees: of the turns about its first and its second axis; with none this is `plane_of`, interpolated.
    """
    kept = [a for a in range(3) if a != axis]
    axes = image.grid.affine[:-1, :-1] / image.grid.spacing
    middle = (torch.tensor(image.grid.shape, dtype=torch.float64) - 1) / 2
    middle[axis] = n
    centre = image.grid.affine[:-1, :-1] @ middle + image.grid.affine[:-1, -1]
    turn = torch.eye(3, dtype=torch.float64)
    for along, angle in zip(kept, degrees, strict=True):
        turn = of_vector(math.radians(angle) * axes[:, along][None])[0] @ turn
    shape = tuple(1 if a == axis else size for a, size in enumerate(image.grid.shape))
    affine = image.grid.affine.clone()
    affine[:-1, :-1] = turn @ affine[:-1, :-1]
    middle[axis] = 0
    affine[:-1, -1] = centre - affine[:-1, :-1] @ middle
    seen = pull(image, Affine.identity(3), onto=Grid(shape, affine))
    return plane_of(seen, axis, 0)


def plane_of(image: Image, axis: int, n: int) -> Image:
    """Return a plane of a volume as a 2-D image, by the spacing of its two axes."""
    kept = [a for a in range(3) if a != axis]
    spacing = tuple(image.grid.spacing[kept].tolist())
    data = image.data.select(axis + 2, n)
    return Image(data.contiguous(), Grid.centred(tuple(data.shape[2:]), spacing))
