"""Transforms in X5, the HDF5 files of nitransforms: RAS mm, 3-D affines and displacement fields, and chains of them.

Needs nitransforms (`pip install nitransforms`), which reads and writes the file; what it cannot hold is refused.
"""

from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pullback.errors import InputError
from pullback.files.images.nifti import refuse_not_finite
from pullback.files.suffixes import ends, refuse_batch
from pullback.files.transforms.itk import STORED, affine_and_field, is_field
from pullback.files.transforms.kind import Kind
from pullback.records.atomic import atomic_write
from pullback.space import Affine, Displacement, Grid, Transform

KINDS = ("space", "space", "space", "vector")


def write_x5(transform: Transform, path: str | Path, on: Grid | None = None) -> None:
    """Write affines and fields as nodes, with the chain that applies the innermost first.

    Given `on`, all but the affine that ends the transform is sampled there.

    Raises:
        InputError: a batch, nitransforms is missing, two dimensions, a transform that is neither, or writing fails.
    """
    refuse_batch(transform.batch, path)
    x5, h5py = _libraries(path)
    if on is not None:
        affine, rest = affine_and_field(transform, on)
        transform = affine if rest is None else affine @ rest
    nodes = [_node(x5, part, path) for part in reversed(transform.parts)]
    with atomic_write(path) as temporary:
        x5.to_filename(temporary, nodes)
        with h5py.File(temporary, "r+") as file:
            file.create_group("TransformChain").create_dataset("0", data="/".join(map(str, range(len(nodes)))))


def read_x5(path: str | Path) -> Transform:
    """Read the first chain of a file, or its only transform.

    Raises:
        InputError: nitransforms is missing, no X5 file, several transforms without a chain, or other kinds of them.
    """
    x5, h5py = _libraries(path)
    try:
        nodes = x5.from_filename(path)
        with h5py.File(path) as file:
            said = file["TransformChain/0"][()].decode() if "TransformChain/0" in file else ""
        order = [nodes[int(n)] for n in said.split("/")] if said else nodes
    except (OSError, KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a readable X5 file ({error})") from error
    if not order or (len(order) > 1 and not said):
        raise InputError(f"{path}: {len(order)} transforms and no chain that orders them; write one with nitransforms")
    return reduce(lambda inner, outer: outer @ inner, (_part(node, path) for node in order))


def _libraries(path: str | Path) -> tuple[Any, Any]:
    try:
        return import_module("nitransforms.io.x5"), import_module("h5py")
    except ImportError as error:
        raise InputError(f"{path}: X5 needs nitransforms: pip install nitransforms; or use ITK's .h5") from error


def _node(x5: Any, transform: Transform, path: str | Path) -> Any:
    affine = transform.as_affine
    if affine is not None and affine.ndim == 3:
        matrix = affine.matrix.detach().cpu().double().reshape(-1, 4, 4)[0].numpy()
        return x5.X5Transform("linear", matrix, "affine", "matrix", dimension_kinds=KINDS)
    if isinstance(transform, STORED) and transform.grid.ndim == 3:
        grid = transform.grid
        mm = grid.to_mm(transform.own_displacement[:1].detach().cpu().double())
        world = mm[0].movedim(0, -1).numpy().astype(np.float32)
        domain = x5.X5Domain(True, grid.shape, grid.affine.numpy(), "cartesian")
        return x5.X5Transform("nonlinear", world, "densefield", "displacements", None, KINDS, domain)
    raise InputError(
        f"{path}: X5 holds affines and fields in three dimensions, not this {type(transform).__name__}; use ITK's .h5"
    )


def _part(node: Any, path: str | Path) -> Transform:
    refuse_not_finite(node.transform, "numbers", path)
    if node.type == "linear" and node.transform.shape == (4, 4):
        return Affine(torch.from_numpy(node.transform.astype(np.float64)))
    if node.type == "nonlinear" and node.subtype != "bspline" and node.domain is not None and node.domain.grid:
        shape = tuple(int(n) for n in node.domain.size)
        if node.transform.shape == (*shape, 3) and node.representation in ("displacements", "deformations"):
            try:
                grid = Grid(shape, torch.from_numpy(np.array(node.domain.mapping, np.float64)))
            except ValueError as error:
                said = " ".join(str(error).split())
                raise InputError(f"{path}: the file does not say where the field is. {said}") from error
            world = torch.from_numpy(node.transform.astype(np.float64)).movedim(-1, 0)
            if node.representation == "deformations":
                world = world - grid.to_world(grid.voxels(world)[None])[0]
            return Displacement(grid.from_mm(world[None]).float(), grid)
    raise InputError(
        f"{path}: a {node.type} transform ({node.subtype}, {node.representation}) of shape {node.transform.shape}; "
        f"affines and dense fields in three dimensions are read"
    )


def _write(transform: Transform, path: str | Path, fixed: Grid | None, moving: Grid | None) -> tuple[Path, ...]:
    held = all(part.as_affine is not None or is_field(part) for part in transform.parts)
    write_x5(transform, path, on=None if held else fixed)
    return (Path(path),)


KIND = Kind(
    "x5",
    lambda evidence: evidence.hdf5 == "X5" or ends(evidence.name, ".x5"),
    lambda name: ends(name, ".x5"),
    lambda path, fixed, moving: read_x5(path),
    _write,
    lambda path: "an X5 transform of nitransforms, RAS mm: takes points fixed → moving, brings images moving → fixed",
)
