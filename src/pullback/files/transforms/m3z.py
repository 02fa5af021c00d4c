"""Warps of FreeSurfer, `.m3z`: for each node of an atlas its place in the image that was morphed.

Big-endian and compressed (FreeSurfer's `gcamorph`): a header, the nodes, x slowest, then tagged blocks, of which one
says where both volumes are, and one whether places are voxels or RAS mm.
"""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import torch

from pullback.errors import InputError
from pullback.files.freesurfer import Volume
from pullback.files.images.nifti import refuse_not_finite
from pullback.files.suffixes import refuse_absent
from pullback.files.transforms.nifti_field import as_places
from pullback.space import Displacement, Grid

HEADER = struct.Struct(">f4if")  # version, shape, spacing of the nodes in voxels, a weight
NODE = np.dtype([("before", ">f4", 3), ("place", ">f4", 3), ("atlas", ">i4", 3)])
GEOMETRY = struct.Struct(">4i15f512x")  # valid, shape, spacing, axes, centre, file name
GEOMETRY_TAG, TYPE_TAG, LABELS_TAG = 10, 11, 12
RAS_PLACES, VOXEL_PLACES = 1, 2


def read_m3z(path: str | Path) -> Displacement:
    """Read a warp as the map from the world of the atlas to that of the image, on the grid of its nodes.

    Nodes that FreeSurfer marks as invalid move as the nearest valid one does.

    Raises:
        InputError: no such file, cut short, or one that does not say where its volumes are.
    """
    refuse_absent(path)
    try:
        content = gzip.decompress(Path(path).read_bytes())
        version, *shape, step, _ = HEADER.unpack_from(content)
        if version != 1 or min(*shape, step) < 1:
            raise InputError(f"{path}: a .m3z of version {version:g} with {shape} nodes; version 1 is read")
        nodes = np.frombuffer(content, NODE, int(np.prod(shape)), HEADER.size).reshape(shape)
        image, atlas, kind = _blocks(content, HEADER.size + nodes.nbytes, nodes.size)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise InputError(f"{path}: not a readable .m3z of FreeSurfer ({error}); copy it anew") from error
    if image is None or atlas is None:
        raise InputError(
            f"{path}: the file does not say where its volumes are; write it anew, or in FreeSurfer: mri_warp_convert "
            f"--inm3z IN --outitk OUT.nii.gz"
        )
    places = np.array(nodes["place"], np.float64)
    refuse_not_finite(places, "places of nodes", path)
    if kind == VOXEL_PLACES:
        places = places @ image.scanner[:3, :3].T + image.scanner[:3, 3]
    grid = Grid(tuple(shape), torch.from_numpy(atlas.scanner @ np.diag([step, step, step, 1.0])))
    invalid = ((nodes["place"] == 0) & (nodes["before"] == 0)).all(-1)
    moved = as_places(torch.from_numpy(places).movedim(-1, 0), grid)
    if not invalid.any() or invalid.all():
        return moved
    from scipy.ndimage import distance_transform_edt  # noqa: PLC0415 (slow to import, and few need it)

    nearest = distance_transform_edt(invalid, return_distances=False, return_indices=True)
    return Displacement(moved.field[(slice(None), slice(None), *torch.from_numpy(nearest).long())], grid)


def _blocks(content: bytes, at: int, count: int) -> tuple[Volume | None, Volume | None, int]:
    """Return the volumes of image and atlas, where they are valid, and the kind of places, from the tagged blocks."""
    image = atlas = None
    kind = VOXEL_PLACES
    while len(content) >= at + 4:
        (tag,) = struct.unpack_from(">i", content, at)
        at += 4
        if tag == GEOMETRY_TAG:
            image, atlas = _volume(content, at), _volume(content, at + GEOMETRY.size)
            at += 2 * GEOMETRY.size
        elif tag == TYPE_TAG:
            (kind,) = struct.unpack_from(">i", content, at)
            at += 4
        elif tag == LABELS_TAG:
            at += 4 * count
        else:
            break  # what follows has no length, and is not needed
    if kind not in (RAS_PLACES, VOXEL_PLACES):
        raise ValueError(f"places of kind {kind}")
    return image, atlas, kind


def _volume(content: bytes, at: int) -> Volume | None:
    valid, *numbers = GEOMETRY.unpack_from(content, at)
    directions = np.array(numbers[6:15], np.float64).reshape(3, 3).T
    return Volume(numbers[:3], numbers[3:6], directions, numbers[15:]) if valid else None
