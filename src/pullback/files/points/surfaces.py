"""Surfaces in GIFTI, VTK's PolyData and FreeSurfer's own files: vertices move, all else stays as it was read."""

import copy
import re
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

import nibabel as nib
import numpy as np
import torch

from pullback.errors import InputError
from pullback.files.images.nifti import refuse_not_finite
from pullback.files.points.freesurfer import is_freesurfer, of_gifti, read_triangles
from pullback.files.points.tables import SIGNS, agreed
from pullback.files.suffixes import GIFTI, VTK, ends, refuse_absent
from pullback.numerics.singular import is_singular
from pullback.records.atomic import atomic_write
from pullback.space import Points, normals


@dataclass(frozen=True, eq=False)
class Surface:
    """The vertices of a surface, with the mesh they were read from.

    Attributes:
        points: `(1, N, 3)` RAS mm, float64.
        faces: `(F, 3)` indices of its triangles, int64, larger polygons cut into triangles; empty where it has none.
            Seen from the side where its normals point, the corners run counterclockwise, in the world too.
        source: the library's own mesh, or what a file of FreeSurfer holds beside vertices, which is never changed.
        to_file: `(4, 4)` float64, RAS mm to the file's coordinates.
        ending: of the file's name, which says the format; empty for FreeSurfer's own files, of any name.
        title: second line of a legacy VTK file; else empty.
    """

    points: Points
    source: Any
    to_file: torch.Tensor
    ending: str
    title: str = ""
    faces: torch.Tensor = torch.empty(0, 3, dtype=torch.long)

    @property
    def normals(self) -> torch.Tensor:
        """The normals at its vertices, `(1, N, 3)`, by `space.normals`: of unit length, or 0 without faces."""
        return normals(self.points, self.faces)

    def moved(self, points: Points) -> "Surface":
        """Return the mesh with its vertices elsewhere, in the same order.

        Raises:
            ValueError: another number of points, or of dimensions.
        """
        if points.data.shape[1:] != self.points.data.shape[1:]:
            raise ValueError(f"Surface: {tuple(self.points.data.shape)} expected, got {tuple(points.data.shape)}")
        return replace(self, points=points)


def read_surface(path: str | Path, space: str | None = None) -> Surface:
    """Read the vertices of a surface of GIFTI, VTK PolyData (`.vtk`, `.vtp`) or FreeSurfer (`lh.white`), in the world.

    GIFTI says its space: where that is not named, FreeSurfer's volume (`VolGeom…`) places the vertices, else a matrix
    to a space that is named. FreeSurfer's own files say where their volume is. VTK says its space where 3D Slicer wrote
    it (`SPACE=LPS`); for others pass `space`, `"ras"` or `"lps"`.

    Raises:
        InputError: not such a file, no vertices or a space that is not named, or no library that reads it.
    """
    refuse_absent(path)
    if space is not None and space.lower() not in SIGNS:
        raise InputError(f"{path}: the space of points is ras or lps, not {space}")
    if is_freesurfer(path):
        return _freesurfer(path, space)
    return _gifti(path, space) if ends(path, GIFTI) else _polydata(path, space)


def write_surface(surface: Surface, path: str | Path) -> None:
    """Write a surface in the format and space of the file that was read; its cells, arrays and normals stay as read.

    Raises:
        InputError: the name ends otherwise, or writing fails.
    """
    if not ends(path, surface.ending):
        raise InputError(f"{path}: surfaces are written as they were read, here as {surface.ending}")
    world = surface.points.data[0].detach().cpu().double()
    vertices = (world @ surface.to_file[:3, :3].T + surface.to_file[:3, 3]).numpy()
    with atomic_write(path) as temporary:
        if not surface.ending:
            nib.freesurfer.write_geometry(temporary, vertices, **surface.source)
        elif surface.ending in VTK:
            _save_polydata(surface, vertices, temporary, path)
        else:
            image = copy.deepcopy(surface.source)
            (array,) = image.get_arrays_from_intent("NIFTI_INTENT_POINTSET")
            array.data = vertices.astype(array.data.dtype)
            nib.save(image, temporary)


def _gifti(path: str | Path, space: str | None) -> Surface:
    try:
        image: Any = nib.load(path)
        arrays = image.get_arrays_from_intent("NIFTI_INTENT_POINTSET")
    except (nib.filebasedimages.ImageFileError, ExpatError, OSError, ValueError, AttributeError, KeyError) as error:
        raise InputError(f"{path}: not a readable GIFTI file ({error})") from error
    if len(arrays) != 1 or arrays[0].data.ndim != 2 or arrays[0].data.shape[1] != 3:
        raise InputError(f"{path}: {len(arrays)} sets of vertices; a surface with one, (N, 3), is expected (.surf.gii)")
    if space is not None and space.lower() != "ras":
        raise InputError(f"{path}: GIFTI's coordinates are RAS; leave --space out")
    system = arrays[0].coordsys
    matrix = np.eye(4)
    if system is None or system.dataspace == 0:
        matrix = _unnamed(arrays[0], path)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or is_singular(torch.from_numpy(matrix[:3, :3])):
        raise InputError(f"{path}: the matrix to the world cannot be inverted: {matrix.tolist()}")
    triangles = [array.data for array in image.get_arrays_from_intent("NIFTI_INTENT_TRIANGLE")]
    faces = triangles[0] if len(triangles) == 1 else np.empty((0, 3))
    return _placed(arrays[0].data, faces, torch.from_numpy(matrix), path, image, GIFTI[0])


def _unnamed(array: Any, path: str | Path) -> np.ndarray:
    """Return the matrix to RAS mm of vertices whose space is not named: by FreeSurfer's volume, else by the matrix to a
    space that is named."""
    try:
        placed = of_gifti(dict(array.meta))
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path}: VolGeom metadata of FreeSurfer that are no numbers ({error}); write it anew"
        ) from error
    if placed is not None:
        return placed
    system = array.coordsys
    return np.array(system.xform, np.float64) if system is not None and system.xformspace != 0 else np.eye(4)


def _freesurfer(path: str | Path, space: str | None) -> Surface:
    vertices, faces, matrix, source = read_triangles(path)
    if matrix is None and (space or "").lower() != "ras":
        raise InputError(
            f"{path}: the surface does not say where its volume is; if its vertices are in scanner coordinates say "
            f"--space ras, else write it anew with its volume: mris_convert --vol-geom orig.mgz IN OUT"
        )
    if matrix is not None and space is not None:
        raise InputError(f"{path}: the surface says where its volume is; leave --space out")
    to_world = torch.eye(4, dtype=torch.float64) if matrix is None else torch.from_numpy(matrix)
    return _placed(vertices, faces, to_world, path, source, "")


def _placed(
    vertices: np.ndarray,
    faces: np.ndarray,
    to_world: torch.Tensor,
    path: str | Path,
    source: Any,
    ending: str,
    title: str = "",
) -> Surface:
    data = torch.from_numpy(np.array(vertices, np.float64))
    if not len(data):
        raise InputError(f"{path}: a surface without vertices; write it anew")
    refuse_not_finite(data.numpy(), "coordinates", path)
    corners = torch.from_numpy(np.array(faces, np.int64))
    fits = corners.ndim == 2 and corners.shape[1] == 3
    if not fits or bool(((corners < 0) | (corners >= len(data))).any()):
        raise InputError(f"{path}: triangles of the {len(data)} vertices expected, (F, 3), got {tuple(corners.shape)}")
    world = data @ to_world[:3, :3].T + to_world[:3, 3]
    if torch.linalg.det(to_world[:3, :3]) < 0:
        corners = corners.flip(1)  # seen in a mirror they run the other way round
    return Surface(Points(world[None]), source, torch.linalg.inv(to_world), ending, title, corners)


def _polydata(path: str | Path, space: str | None) -> Surface:
    ending = Path(path).suffix.lower()
    if ending not in VTK:
        raise InputError(f"{path}: surfaces are read from {', '.join(GIFTI + VTK)}")
    reader = _vtk(path, ending, "Reader")
    reader.SetFileName(str(path))
    if not (reader.IsFilePolyData() if ending == ".vtk" else reader.CanReadFile(str(path))):
        raise InputError(f"{path}: not VTK PolyData; save the surface as PolyData")
    failed: list[str] = []
    reader.AddObserver("ErrorEvent", lambda *_: failed.append("ErrorEvent"))
    reader.Update()
    mesh = reader.GetOutput()
    if failed or not mesh.GetNumberOfPoints():
        raise InputError(f"{path}: not readable as VTK PolyData, or without vertices; the file may be cut short")
    title = reader.GetHeader() if ending == ".vtk" else ""
    said = mesh.GetFieldData().GetAbstractArray("SPACE")
    found = re.search(r"SPACE=(RAS|LPS)", title) or re.match(r"(RAS|LPS)", str(said.GetValue(0)) if said else "")
    named = found.group(1).lower() if found else None
    known = agreed(named, space, path)
    if known is None:
        raise InputError(
            f"{path}: vertices of which space? Pass --space lps (3D Slicer, ITK) or --space ras (scanner RAS, which "
            f"FreeSurfer writes by mris_convert --to-scanner)"
        )
    to_world = torch.diag(torch.tensor([*SIGNS[known], 1.0], dtype=torch.float64))
    numpy_support = import_module("vtkmodules.util.numpy_support")
    vertices = numpy_support.vtk_to_numpy(mesh.GetPoints().GetData())
    return _placed(vertices, _triangles(mesh), to_world, path, mesh, ending, title)


def _triangles(mesh: Any) -> np.ndarray:
    """Return the triangles of a mesh's polygons and strips, `(F, 3)`."""
    cut = import_module("vtkmodules.vtkFiltersCore").vtkTriangleFilter()
    cut.SetInputData(mesh)
    cut.PassVertsOff()
    cut.PassLinesOff()
    cut.Update()
    corners = cut.GetOutput().GetPolys().GetConnectivityArray()
    return import_module("vtkmodules.util.numpy_support").vtk_to_numpy(corners).reshape(-1, 3)


def _save_polydata(surface: Surface, vertices: np.ndarray, temporary: Path, path: str | Path) -> None:
    mesh = surface.source.NewInstance()
    mesh.DeepCopy(surface.source)
    for n, vertex in enumerate(vertices.tolist()):
        mesh.GetPoints().SetPoint(n, vertex)
    writer = _vtk(path, surface.ending, "Writer")
    writer.SetFileName(str(temporary))
    writer.SetInputData(mesh)
    if surface.title:
        writer.SetHeader(surface.title)
    if not writer.Write():
        raise InputError(f"{path}: VTK cannot write this surface")


def _vtk(path: str | Path, ending: str, what: str) -> Any:
    """Return a reader or writer of VTK, for legacy or XML files."""
    module, prefix = ("vtkIOLegacy", "vtk") if ending == ".vtk" else ("vtkIOXML", "vtkXML")
    try:
        return getattr(import_module(f"vtkmodules.{module}"), f"{prefix}PolyData{what}")()
    except ImportError as error:
        raise InputError(f"{path}: VTK surfaces need vtk: pip install 'pullback[surfaces]'") from error
