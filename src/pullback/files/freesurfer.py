"""Geometry of volumes as FreeSurfer keeps it in transforms and surfaces, and the two worlds that it knows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pullback.space import Grid

CORONAL = np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # of its columns x, y and z, the axes of conformed volumes


@dataclass(frozen=True)
class Volume:
    """A volume by its voxels, the directions of its axes, and its centre.

    Attributes:
        shape: voxels along each axis.
        spacing: in mm.
        directions: `(3, 3)`, a column for each axis in RAS.
        centre: `c_ras`, RAS mm of the voxel `shape / 2`.
    """

    shape: Sequence[float]
    spacing: Sequence[float]
    directions: np.ndarray
    centre: Sequence[float]

    @classmethod
    def of(cls, grid: Grid) -> "Volume":
        """Return the volume of a 3-D grid."""
        affine, spacing = grid.affine.numpy(), grid.spacing.numpy()
        centre = affine[:3, :3] @ (np.array(grid.shape) / 2) + affine[:3, 3]
        return cls(grid.shape, spacing.tolist(), affine[:3, :3] / spacing, centre.tolist())

    @classmethod
    def named(cls, said: Mapping[str, Sequence[float]]) -> "Volume":
        """Return the volume that a text describes, by the names of LTA files and of surfaces.

        Raises:
            KeyError: a name that is missing.
        """
        directions = np.array([said["xras"], said["yras"], said["zras"]], np.float64).T
        return cls(said["volume"], said["voxelsize"], directions, said["cras"])

    @property
    def scanner(self) -> np.ndarray:
        """The matrix from voxels to RAS mm, `(4, 4)`."""
        return self._affine(self.directions, self.centre)

    @property
    def tkregister(self) -> np.ndarray:
        """The matrix from voxels to surface coordinates (tkRAS): coronal axes about the middle of the volume."""
        return self._affine(CORONAL, (0.0, 0.0, 0.0))

    @property
    def surface_to_scanner(self) -> np.ndarray:
        """The matrix from surface coordinates to RAS mm; of a conformed volume, the shift by its centre."""
        return self.scanner @ np.linalg.inv(self.tkregister)

    def _affine(self, directions: np.ndarray, centre: Sequence[float]) -> np.ndarray:
        out = np.eye(4)
        out[:3, :3] = directions * np.array(self.spacing)
        out[:3, 3] = np.array(centre) - out[:3, :3] @ (np.array(self.shape) / 2)
        return out
