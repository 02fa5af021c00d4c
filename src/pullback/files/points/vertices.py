"""Labels and numbers of the vertices of a surface, in GIFTI and FreeSurfer's own files; and tables of connections."""

from pathlib import Path
from xml.parsers.expat import ExpatError

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.files.suffixes import GIFTI, ends, refuse_absent
from pullback.records.csv_records import AS_NAMED

UNREADABLE = (OSError, ValueError, ExpatError, nib.filebasedimages.ImageFileError)
ANNOT = (".annot",)
NOWHERE = ("unknown", "???", "medial_wall", "medialwall")
"""Names of what is no region, in small letters."""


def is_vertex_labels(path: str | Path) -> bool:
    """Return whether a name is that of labels of vertices: `.label.gii`, `.annot`."""
    return ends(path, (".label.gii", *ANNOT))


def read_vertex_labels(path: str | Path) -> tuple[Tensor, dict[int, str]]:
    """Read the label of each vertex, from `.label.gii` or FreeSurfer's `.annot`, and the names of labels.

    Vertices of no region, whose label is not known or called unknown, ??? or medial wall, are 0.

    Returns:
        `(V,)` int64, and the names that the file has.

    Raises:
        InputError: no such file.
    """
    refuse_absent(path)
    try:
        values, names = _annot(path) if ends(path, ANNOT) else _gifti(path)
    except (*UNREADABLE, IndexError, KeyError, TypeError) as error:
        raise InputError(f"{path}: labels of vertices, .label.gii or .annot, expected ({error})") from error
    for value, name in names.items():
        if name.lower() in NOWHERE:
            values[values == value] = 0
    return torch.from_numpy(values), {v: name for v, name in names.items() if name.lower() not in NOWHERE}


def _annot(path: str | Path) -> tuple[np.ndarray, dict[int, str]]:
    """Return labels by their place in the table of colours, from 1 on."""
    labels, _, names = nib.freesurfer.read_annot(str(path))
    return labels.astype(np.int64) + 1, {n + 1: name.decode(errors="replace") for n, name in enumerate(names)}


def _gifti(path: str | Path) -> tuple[np.ndarray, dict[int, str]]:
    image = nib.gifti.GiftiImage.from_filename(str(path))
    (array,) = image.get_arrays_from_intent("NIFTI_INTENT_LABEL")
    values = np.asarray(array.data).astype(np.int64).copy()
    if values.ndim != 1 or values.min() < 0:
        raise ValueError(f"one label from 0 on for each vertex expected, got {values.shape}")
    return values, {int(each.key): str(each.label) for each in image.labeltable.labels}


def read_vertex_values(path: str | Path) -> Tensor:
    """Read a number for each vertex, such as depth or thickness, from GIFTI (`.shape.gii`) or FreeSurfer (`lh.sulc`).

    Returns:
        `(V,)` float64.

    Raises:
        InputError: no such file.
    """
    refuse_absent(path)
    try:
        if ends(path, GIFTI):
            (array,) = nib.gifti.GiftiImage.from_filename(str(path)).darrays
            values = np.asarray(array.data, np.float64)
        else:
            values = nib.freesurfer.read_morph_data(str(path)).astype(np.float64)
        _refuse_shape(values, (len(values),))
    except (*UNREADABLE, AttributeError) as error:
        raise InputError(f"{path}: one number for each vertex expected ({error})") from error
    return torch.from_numpy(values.copy())


def read_connections(path: str | Path) -> tuple[Tensor, list[str]]:
    """Read a matrix of connections: a CSV whose first line names the regions, with a line for each of them.

    Lines may begin with the name of their region.

    Returns:
        `(m, m)` float64, and the names.

    Raises:
        InputError: no such table.
    """
    refuse_absent(path)
    try:
        with Path(path).open(**AS_NAMED) as file:
            head, *lines = [line.strip().split(",") for line in file if line.strip()]
        named = len(lines) + 1 == len(head) or (bool(lines) and len(lines[0]) == len(head) + 1)
        names = [name.strip().strip('"') for name in (head[1:] if len(lines) + 1 == len(head) else head)]
        rows = [[float(cell) for cell in (line[1:] if named else line)] for line in lines]
        if named:
            _refuse_names([line[0].strip().strip('"') for line in lines], names)
        values = torch.tensor(rows, dtype=torch.float64)
        _refuse_shape(values, (len({*names}),) * 2)
    except (OSError, ValueError, IndexError) as error:
        raise InputError(
            f"{path}: a square table of numbers, parted by commas, whose first line names the regions, expected "
            f"({error})"
        ) from error
    return values, names


def _refuse_names(lines: list[str], columns: list[str]) -> None:
    if lines != columns:
        raise ValueError("the lines are named otherwise than the columns")


def _refuse_shape(values: np.ndarray | Tensor, shape: tuple[int, ...]) -> None:
    if tuple(values.shape) != shape:
        raise ValueError(f"numbers of shape {shape} expected, got {tuple(values.shape)}")
