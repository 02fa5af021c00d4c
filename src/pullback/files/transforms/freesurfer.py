"""Transforms of FreeSurfer: affines `.lta`, and warps `.m3z`, which are read.

An LTA takes the world of its source, the moving image, to that of its destination (`mri_vol2vol --mov --targ --lta`),
but a matrix of type 14, as in `register.dat`, takes surface coordinates of the destination to those of the source.
"""

import re
from pathlib import Path

import numpy as np

from pullback.errors import InputError
from pullback.files.freesurfer import Volume
from pullback.files.suffixes import ends, refuse_absent, refuse_batch
from pullback.files.transforms.kind import Evidence, Kind
from pullback.files.transforms.m3z import read_m3z
from pullback.files.transforms.ras_matrix import affine_of
from pullback.records.atomic import atomic_write
from pullback.space import Affine, Grid, Transform

VOXELS, SCANNER, SURFACE = 0, 1, 14  # types: between voxels, RAS mm, and surface coordinates the other way
TITLES = ("src volume info", "dst volume info")


def write_lta(transform: Transform, path: str | Path, fixed: Grid | None = None, moving: Grid | None = None) -> None:
    """Write an affine between RAS coordinates (type 1), with the geometry of those images that are known.

    Raises:
        InputError: a batch, two dimensions, a transform that deforms, or writing fails.
    """
    refuse_batch(transform.batch, path)
    if not ends(path, ".lta"):
        raise InputError(f"{path}: affines of FreeSurfer are written as .lta")
    affine = transform.as_affine
    if affine is None or affine.ndim != 3:
        raise InputError(
            f"{path}: .lta holds a 3-D affine; write ITK's .nii.gz of this {type(transform).__name__}, and in "
            f"FreeSurfer: mri_warp_convert --initk IN --outm3z OUT"
        )
    matrix = np.linalg.inv(affine.matrix.detach().cpu().double().reshape(4, 4).numpy())
    lines = [f"type      = {SCANNER}", "nxforms   = 1", "mean      = 0.0 0.0 0.0", "sigma     = 1.0", "1 4 4"]
    lines += [" ".join(f"{value:.17g}" for value in row) for row in matrix]
    for title, grid in zip(TITLES, (moving, fixed), strict=True):
        lines += [title, *_geometry(grid)]
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_lta(path: str | Path, fixed: Grid | None = None, moving: Grid | None = None) -> Affine:
    """Read an affine of type 0 (between voxels), 1 (RAS to RAS) or 14 (surface coordinates, as `register.dat`).

    The grids serve where the file does not say where its volumes are.

    Raises:
        InputError: another type, several transforms, volumes that are not described, or no such file.
    """
    refuse_absent(path)
    try:
        text = "\n".join(line.split("#")[0] for line in Path(path).read_text(encoding="latin-1").splitlines())
        head, *parts = re.split("|".join(TITLES), text)
        said = dict(re.findall(r"^\s*(\w+)\s*=\s*(\S+)\s*$", head, re.MULTILINE))
        kind, count = int(said["type"]), int(said["nxforms"])
        matrix = np.array(re.split(r"^\s*1\s+4\s+4\s*$", head, flags=re.MULTILINE)[1].split()[:16], np.float64)
        matrix = matrix.reshape(4, 4)
    except (OSError, LookupError, ValueError) as error:
        raise InputError(f"{path}: not a readable LTA file of FreeSurfer ({error!r}); write it anew") from error
    if count != 1 or kind not in (VOXELS, SCANNER, SURFACE):
        raise InputError(
            f"{path}: {count} transforms of type {kind}; one of type 0, 1 or 14 is read: lta_convert --inlta IN "
            f"--outlta OUT makes one of type 1"
        )
    if kind == SCANNER:
        return affine_of(np.linalg.inv(affine_of(matrix, path).matrix.numpy()), path)
    volumes = [_volume(part, grid) for part, grid in zip([*parts, "", ""][:2], (moving, fixed), strict=True)]
    source, destination = volumes
    if source is None or destination is None:
        raise InputError(
            f"{path}: the matrix is between voxels, and the file does not say where they are; pullback convert takes "
            f"the images as --fixed and --moving"
        )
    if kind == VOXELS:
        return affine_of(
            source.scanner @ np.linalg.inv(destination.scanner @ affine_of(matrix, path).matrix.numpy()), path
        )
    return affine_of(source.surface_to_scanner @ matrix @ np.linalg.inv(destination.surface_to_scanner), path)


def _geometry(grid: Grid | None) -> list[str]:
    if grid is None or grid.ndim != 3:
        return ["valid = 0"]
    volume = Volume.of(grid)
    rows = {"volume": volume.shape, "voxelsize": volume.spacing}
    rows |= {f"{axis}ras": column for axis, column in zip("xyz", volume.directions.T.tolist(), strict=True)}
    rows |= {"cras": volume.centre}
    told = [f"{key:<6} = {' '.join(f'{value:.15g}' for value in values)}" for key, values in rows.items()]
    return ["valid = 1", "filename = ", *told]


def _volume(text: str, grid: Grid | None) -> Volume | None:
    """Return the volume that a part of the file describes, else that of the grid."""
    said = {key: value.split() for key, value in re.findall(r"^\s*(\w+)\s*=\s*(.*)$", text, re.MULTILINE)}
    try:
        if int(said["valid"][0]) == 1:
            numbers = ("volume", "voxelsize", "xras", "yras", "zras", "cras")
            return Volume.named({key: [float(word) for word in said[key]] for key in numbers})
    except (LookupError, ValueError):
        pass
    return None if grid is None or grid.ndim != 3 else Volume.of(grid)


def _looks(evidence: Evidence) -> bool:
    return (
        ends(evidence.name, (".lta", ".m3z")) or re.search(r"^type\s+=\s+\d+", evidence.text, re.MULTILINE) is not None
    )


def _read(path: str | Path, fixed: Grid | None, moving: Grid | None) -> Transform:
    return read_m3z(path) if ends(path, ".m3z") else read_lta(path, fixed, moving)


def _write(transform: Transform, path: str | Path, fixed: Grid | None, moving: Grid | None) -> tuple[Path, ...]:
    write_lta(transform, path, fixed, moving)
    return (Path(path),)


KIND = Kind(
    "freesurfer",
    _looks,
    lambda name: ends(name, ".lta"),
    _read,
    _write,
    lambda path: "an affine of FreeSurfer, RAS to RAS: mri_vol2vol --lta brings images moving → fixed",
)
