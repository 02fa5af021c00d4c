"""Planes in 3-D: a slice is a 3-D image one voxel thick, or a 2-D image and the plane in which it lies."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.files.images.image_file import ImageSource
from pullback.files.images.nifti import read_image, read_scalar
from pullback.space import Grid, Image, Labels
from pullback.space.image import Gridded

EVEN = 1e-3  # cosine, up to which axes are orthogonal


@dataclass(frozen=True, eq=False)
class SlicePlane:
    """A plane of the world with two axes in it.

    Attributes:
        origin: of its coordinates, `(3,)` float64 RAS mm.
        axes: `(3, 2)` float64, orthonormal columns: a point (u, v) of the plane, in mm, is origin + axes @ (u, v).

    Raises:
        ValueError: axes that are not orthonormal.
    """

    origin: Tensor
    axes: Tensor

    def __post_init__(self) -> None:
        if float((self.axes.mT @ self.axes - torch.eye(2, dtype=self.axes.dtype)).abs().max()) > EVEN:
            raise ValueError(f"SlicePlane: two orthonormal axes expected, got {self.axes.tolist()}")

    @classmethod
    def of(cls, grid: Grid) -> "SlicePlane":
        """Return the plane of a 3-D grid one voxel thick: its axes are the grid's, its origin the first voxel's middle.

        Raises:
            ValueError: another grid.
        """
        thin = thin_axis(grid)
        columns = grid.affine[:3, [axis for axis in range(3) if axis != thin]]
        return cls(grid.affine[:3, 3], columns / columns.norm(dim=0))

    @property
    def normal(self) -> Tensor:
        """The unit normal, `(3,)`, by the right hand from the first axis to the second."""
        return torch.linalg.cross(self.axes[:, 0], self.axes[:, 1])

    def points(self, flat: Tensor) -> Tensor:
        """Return points `(…, 2)` of the plane, in mm, where they are in the world: `(…, 3)`."""
        return flat @ self.axes.mT.to(flat) + self.origin.to(flat)

    def lay(self, image: Gridded, thickness: float = 1.0) -> Gridded:
        """Return a 2-D image as the 3-D image one voxel thick that lies in this plane, `thickness` mm of it.

        The 2-D world is the plane's: mm along its axes from its origin.

        Raises:
            ValueError: an image that is not 2-D.
        """
        if image.grid.ndim != 2:
            raise ValueError(f"SlicePlane.lay: a 2-D image expected, got {image.grid.ndim}-D")
        affine = torch.eye(4, dtype=torch.float64)
        affine[:3, :2] = self.axes.double() @ image.grid.affine[:2, :2]
        affine[:3, 2] = self.normal.double() * thickness
        affine[:3, 3] = self.points(image.grid.affine[:2, 2])
        return _on(image, Grid((*image.grid.shape, 1), affine))

    def flat(self, image: Gridded) -> Gridded:
        """Return a 3-D image one voxel thick that lies in this plane as a 2-D one: undoes `lay`.

        Raises:
            ValueError: an image of another plane.
        """
        thin = thin_axis(image.grid)
        keep = [axis for axis in range(3) if axis != thin]
        columns, first = image.grid.affine[:3, keep], image.grid.affine[:3, 3] - self.origin
        off = max(float((self.normal @ columns).abs().max() / columns.norm()), float((self.normal @ first).abs()))
        if off > EVEN * float(columns.norm()):
            raise ValueError("SlicePlane.flat: the image lies in another plane")
        affine = torch.eye(3, dtype=torch.float64)
        affine[:2, :2], affine[:2, 2] = self.axes.mT @ columns, self.axes.mT @ first
        return _on(image, Grid(tuple(image.grid.shape[axis] for axis in keep), affine))


def read_slice(path: ImageSource, thickness: float = 1.0) -> Image:
    """Read one slice as a 3-D image one voxel thick: of NIfTI and the like where it lies, `(1, 1, X, Y, 1)`.

    Its thin axis may be any of the three. A picture, which lies nowhere, is laid into the world's x and y at z = 0,
    `thickness` mm of it.

    Raises:
        InputError: no slice, or an image that cannot be read.
    """
    image = read_scalar(path, ndim=3)
    if image.grid.ndim == 2:
        axes = torch.eye(3, dtype=torch.float64)[:, :2]
        return SlicePlane(torch.zeros(3, dtype=torch.float64), axes).lay(read_image(path), thickness)
    if 1 not in image.grid.shape:
        raise InputError(f"{path}: a volume of {' × '.join(map(str, image.grid.shape))} voxels; one slice is expected")
    return image


def thin_axis(grid: Grid) -> int:
    """Return the axis along which a 3-D grid is one voxel thick.

    Raises:
        ValueError: it is along none, or along several.
    """
    thin = [axis for axis, n in enumerate(grid.shape) if n == 1]
    if grid.ndim != 3 or len(thin) != 1:
        raise ValueError(f"plane: a 3-D grid one voxel thick expected, got {grid}")
    return thin[0]


def _on(image: Gridded, grid: Grid) -> Gridded:
    """Return the same values on a grid that has an axis more or less, of one voxel."""
    data = image.data.reshape(*image.data.shape[:2], *grid.shape)
    if isinstance(image, Labels):
        return Labels(data, grid)
    mask = None if image.mask is None else image.mask.reshape(*image.mask.shape[:2], *grid.shape)
    return Image(data, grid, mask)
