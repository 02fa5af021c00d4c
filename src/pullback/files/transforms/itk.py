"""Transforms of ITK, ANTs and Slicer: `.h5`, `.tfm`, `.txt`, `.mat`, and displacement fields as images."""

from functools import reduce, singledispatch
from pathlib import Path
from typing import TypeGuard

import h5py
import numpy as np
import SimpleITK as sitk
import torch

from pullback.errors import InputError
from pullback.files.images.nifti import refuse_sheared
from pullback.files.itk_names import name_for_itk
from pullback.files.suffixes import ITK_IMAGES, NIFTI, ends, refuse_absent, refuse_batch
from pullback.files.transforms.kind import Evidence, Kind
from pullback.files.transforms.lps import (
    FIELDS,
    flip,
    from_vector_image,
    last_line,
    read_image_field,
    vector_image,
    write_image_field,
)
from pullback.files.transforms.nifti_field import DISPVECT, VECTOR
from pullback.numerics.singular import is_singular
from pullback.records.atomic import atomic_write
from pullback.space import (
    Affine,
    Dense,
    Displacement,
    Flow,
    FreeForm,
    Geodesic,
    Grid,
    Linear,
    Transform,
    Velocity,
    split,
)

HDF5 = (".h5", ".hdf5")
STORED = (Displacement, Velocity, Flow, Geodesic)  # files hold their displacement; it is linear between voxels
TRANSFORMS = (*HDF5, ".tfm", ".txt", ".mat")


def write_transform(transform: Transform, path: str | Path, on: Grid | None = None) -> None:
    """Write a transform by the name's ending: one field as an image of vectors, any transform as an ITK transform file.

    Given `on`, the fixed image's grid, any transform is first sampled there: all of it for an image, all but the
    affine that ends it for an ITK file.

    Raises:
        InputError: a batch, an ending that is none of these, a kind of file that does not hold this transform, a grid
            that is sheared, or writing fails.
    """
    refuse_batch(transform.batch, path)
    if ends(path, FIELDS):
        field = transform if on is None else Displacement(transform.displacement(on), on)
        if not is_field(field):
            raise InputError(
                f"{path}: this {type(field).__name__} is no single field; write it as .h5, or name the grid (the fixed "
                f"image) on which to sample it: --fixed, or `like` of pb.write"
            )
        write_image_field(Displacement(field.own_displacement, field.grid), path)
    elif str(path).endswith(TRANSFORMS):
        if on is not None:
            affine, rest = affine_and_field(transform, on)
            transform = affine if rest is None else affine @ rest
        with atomic_write(path) as temporary:
            try:
                with name_for_itk(temporary) as name:
                    sitk.WriteTransform(_to_itk(transform, path), name)
            except RuntimeError as error:
                raise InputError(f"{path}: ITK cannot write this: {last_line(error)}") from error
            if str(path).endswith(HDF5):
                _forget_when(temporary)
    else:
        raise InputError(f"{path}: transforms are written as {', '.join(FIELDS + TRANSFORMS)}")


def read_itk_transform(path: str | Path) -> Transform:
    """Read a transform of `write_transform`, ITK or ANTs: affine, displacement field, B-splines, or a composite.

    Raises:
        InputError: no such file, or not a transform of these kinds.
    """
    if ends(path, FIELDS):
        return read_image_field(path)
    refuse_absent(path)
    if ends(path, HDF5):
        _refuse_cut(path)
    try:
        with name_for_itk(path) as name:
            return from_itk(sitk.ReadTransform(name), path)
    except RuntimeError as error:
        kinds = ", ".join(FIELDS + TRANSFORMS)
        raise InputError(f"{path}: not a transform that ITK reads ({kinds}); see pullback convert") from error


def affine_and_field(transform: Transform, on: Grid) -> tuple[Affine, Dense | None]:
    """Split `φ = A ∘ ψ` into A and ψ: A is the identity where φ does not end in an affine, ψ None where φ is one.

    ψ stays on its own grid where it is a displacement or a velocity; else it is sampled on `on`.
    """
    affine, rest = split(transform)
    return affine, rest if rest is None or is_field(rest) else Displacement(rest.displacement(on), on)


def is_field(transform: Transform) -> TypeGuard[Dense]:
    """Return whether files hold a transform as the displacement on its own grid, which is linear between voxels."""
    return isinstance(transform, STORED)


def holds(transform: Transform) -> bool:
    """Return whether an ITK file holds a transform as it is: linear maps, fields and chains of them."""
    return all(to_itk.dispatch(type(part)) is not to_itk.dispatch(object) for part in transform.parts)


def _looks(evidence: Evidence) -> bool:
    header, name = evidence.header, evidence.name
    if header is not None:
        spm = header.description.startswith(("Deformation", "Velocity", "Flow"))
        return header.is_vectors and header.intent in (VECTOR, DISPVECT) and not header.name and not spm
    if ends(name, HDF5):
        return evidence.hdf5 != "X5"
    if ends(name, ".mat"):
        return any(word in evidence.start[20:100] for word in (b"_double_", b"_float_")) or "genericaffine" in name
    return evidence.text.startswith("#Insight Transform File") or ends(name, (".tfm", *ITK_IMAGES))


def _meaning(path: str | Path) -> str:
    if ends(path, NIFTI):
        return "a displacement field, intent 1007, LPS mm: takes points fixed → moving, brings images moving → fixed"
    return "an ITK transform, LPS mm: takes points fixed → moving, brings images moving → fixed"


def _write_any(
    transform: Transform, path: str | Path, fixed: Grid | None = None, moving: Grid | None = None
) -> tuple[Path, ...]:
    """Write a transform as it is where the file holds it, else sampled on `fixed`."""
    held = is_field(transform) if ends(path, FIELDS) else holds(transform)
    write_transform(transform, path, on=None if held else fixed)
    return (Path(path),)


KIND = Kind(
    "itk",
    _looks,
    lambda name: ends(name, (*HDF5, ".tfm", ".txt", "genericaffine.mat", *FIELDS)),
    lambda path, fixed, moving: read_itk_transform(path),
    _write_any,
    _meaning,
)


def _forget_when(path: Path) -> None:
    """Copy an HDF5 file without its time of writing, so that the same work gives the same bytes."""
    with atomic_write(path) as temporary, h5py.File(path) as timed, h5py.File(temporary, "w") as plain:

        def copied(name: str, part: h5py.Dataset | h5py.Group) -> None:
            if isinstance(part, h5py.Dataset):
                plain.create_dataset(name, data=part[()], dtype=part.dtype)

        timed.visititems(copied)


def _refuse_cut(path: str | Path) -> None:
    """Refuse an HDF5 file that is shorter than it says, of which ITK's reader would print pages on stderr.

    The place of the length depends on the version of the superblock (HDF5 file format specification, II.A).
    """
    content = Path(path).read_bytes()
    at = {0: 40, 1: 44, 2: 28, 3: 28}.get(content[8] if len(content) > 52 else -1)
    if not content.startswith(b"\x89HDF\r\n\x1a\n") or at is None:
        raise InputError(f"{path}: not a transform: no HDF5 file, whatever its name says; copy it anew")
    length = int.from_bytes(content[at : at + 8], "little")
    if len(content) < length:
        raise InputError(f"{path}: not a transform: cut short, {len(content)} of {length} bytes; copy it anew")


def _to_itk(transform: Transform, path: str | Path) -> sitk.Transform:
    """Return a transform as ITK's, which applies the part added last first; HDF5 gets a composite, for nitransforms."""
    if str(path).endswith(".mat") and transform.as_affine is None:
        raise InputError(f"{path}: .mat holds an affine, and this transform deforms; write it as .h5")
    parts = [to_itk(part, path) for part in transform.parts]
    return parts[0] if len(parts) == 1 and not str(path).endswith(HDF5) else sitk.CompositeTransform(parts)


@singledispatch
def to_itk(part: Transform, path: str | Path) -> sitk.Transform:
    """Return one part of a transform as ITK's; each kind of transform registers its own form.

    Raises:
        InputError: ITK has no form for this kind, or its grid is sheared.
    """
    raise InputError(
        f"{path}: {type(part).__name__} has no form in ITK; name the grid (the fixed image) on which to sample "
        f"it: --fixed, or `like` of pb.write"
    )


@to_itk.register
def _(part: Linear, path: str | Path) -> sitk.Transform:
    ras = part.matrix.detach().double().cpu().numpy()
    matrix = ras[0] if ras.ndim == 3 else ras
    matrix = flip(len(matrix) - 1) @ matrix @ flip(len(matrix) - 1)
    out = sitk.AffineTransform(len(matrix) - 1)
    out.SetMatrix(matrix[:-1, :-1].ravel().tolist())
    out.SetTranslation(matrix[:-1, -1].tolist())
    return out


@to_itk.register
def _(part: FreeForm, path: str | Path) -> sitk.Transform:
    refuse_sheared(part.grid, path)
    vectors = vector_image(part.grid, part.field)
    return sitk.BSplineTransform([sitk.VectorIndexSelectionCast(vectors, n) for n in range(part.ndim)], part.degree)


@to_itk.register(Displacement)
@to_itk.register(Velocity)
@to_itk.register(Flow)
@to_itk.register(Geodesic)
def _(part: Dense, path: str | Path) -> sitk.Transform:
    refuse_sheared(part.grid, path)
    return sitk.DisplacementFieldTransform(vector_image(part.grid, part.own_displacement))


def from_itk(transform: sitk.Transform, path: str | Path) -> Transform:
    """Return a transform of ITK's: a linear one, a displacement field, B-splines, or a composite of them.

    Raises:
        InputError: another, or an affine that cannot be inverted.
    """
    ndim = transform.GetDimension()
    if transform.GetTransformEnum() == sitk.sitkComposite:
        composite = sitk.CompositeTransform(transform)
        parts = [composite.GetNthTransform(n) for n in range(composite.GetNumberOfTransforms())]
        if not parts:
            return Affine.identity(ndim)
        return reduce(lambda outer, inner: outer @ inner, (from_itk(part, path) for part in parts))
    if transform.GetTransformEnum() == sitk.sitkDisplacementField:
        return from_vector_image(sitk.DisplacementFieldTransform(transform).GetDisplacementField(), path)
    if transform.GetTransformEnum() == sitk.sitkBSplineTransform:
        return _from_splines(sitk.BSplineTransform(transform), path)
    if transform.IsLinear():
        origin = np.array(transform.TransformPoint([0.0] * ndim))
        columns = [np.array(transform.TransformPoint(list(map(float, e)))) - origin for e in np.eye(ndim)]
        matrix = np.eye(ndim + 1)
        matrix[:-1, :-1], matrix[:-1, -1] = np.stack(columns, 1), origin
        if not np.isfinite(matrix).all() or is_singular(torch.from_numpy(matrix[:-1, :-1])):
            raise InputError(f"{path}: the affine cannot be inverted, it flattens the image; estimate it anew")
        return Affine(torch.from_numpy(flip(ndim) @ matrix @ flip(ndim)))
    raise InputError(
        f"{path}: a {transform.GetName()} is not read; affines, displacement fields, B-splines and composites are"
    )


def _from_splines(transform: sitk.BSplineTransform, path: str | Path) -> FreeForm:
    if transform.GetOrder() not in (1, 2, 3):
        raise InputError(f"{path}: B-splines of order {transform.GetOrder()}; orders 1, 2 and 3 are read")
    each = transform.GetCoefficientImages()
    vectors = from_vector_image(sitk.Compose(list(each)), path)
    return FreeForm(vectors.field.double(), vectors.grid, transform.GetOrder())
