"""Normals of surfaces."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pullback.space.points import Points


def normals(points: Points, faces: Tensor) -> Tensor:
    """Compute the normals of a surface at its vertices: the area-weighted mean normal of the faces about each.

    Args:
        points: the vertices, `(B, N, d)` in mm.
        faces: `(F, d)` indices of the corners of its triangles, in 2-D of the ends of its edges. The normal points to
            where triangles are seen counterclockwise from; in 2-D, to the right of an edge.

    Returns:
        `(B, N, d)`, of unit length; 0 at a vertex without faces, or whose faces have no area together.

    Raises:
        ValueError: faces of another number of corners.
    """
    data, d = points.data, points.data.shape[2]
    if faces.ndim != 2 or faces.shape[1] != d:
        raise ValueError(f"normals: faces (F, {d}) of points in {d}-D expected, got {tuple(faces.shape)}")
    corners = data[:, faces.to(data.device)]
    along = corners[:, :, 1:] - corners[:, :, :1]
    if d == 3:
        facing = torch.linalg.cross(along[:, :, 0], along[:, :, 1])
    else:
        facing = torch.stack([along[:, :, 0, 1], -along[:, :, 0, 0]], -1)
    # each face's normal d times, `(B, F·d, d)`, once for each corner
    total = torch.zeros_like(data).index_add(1, faces.flatten().to(data.device), facing.repeat_interleave(d, 1))
    return F.normalize(total, dim=2)
