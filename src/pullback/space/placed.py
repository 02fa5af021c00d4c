"""Images moved by linear maps without resampling: their grid moves, their voxels stay."""

from dataclasses import replace

import torch

from pullback.space.grid import Grid
from pullback.space.image import Gridded
from pullback.space.transform import Linear


def placed(image: Gridded, start: Linear) -> Gridded:
    """Return the image where `start`, fixed → moving, puts it in the fixed world: another affine, the same voxels.

    Raises:
        ValueError: a batch of maps.
    """
    matrix = start.matrix.detach().to(image.grid.affine).reshape(-1, *image.grid.affine.shape)
    if len(matrix) != 1:
        raise ValueError(f"placed: one linear map expected, got a batch of {len(matrix)}")
    return replace(image, grid=Grid(image.grid.shape, torch.linalg.inv(matrix[0]) @ image.grid.affine))
