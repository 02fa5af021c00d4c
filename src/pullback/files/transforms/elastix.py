"""Transforms of elastix, `TransformParameters.*.txt`: fixed → moving in LPS mm, with those they go on from.

The map of a file follows its initial one (Compose), T(x) = T₁(T₀(x)), or adds its displacement (Add), T(x) = T₀(x) +
T₁(x) − x. See the elastix manual, "Transform"; parameters are as in ITK's transforms of the same names.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F

from pullback.errors import InputError
from pullback.files.images.nifti import ras_lps, refuse_not_finite, refuse_sheared
from pullback.files.suffixes import ends, refuse_absent, refuse_batch
from pullback.files.transforms.itk import from_itk, is_field, to_itk
from pullback.files.transforms.kind import Evidence, Kind
from pullback.files.transforms.lps import grid_of_lps, in_lps, vector_image
from pullback.records.atomic import atomic_write
from pullback.space import Affine, FreeForm, Grid, Transform

LINEAR = {
    "TranslationTransform": (sitk.TranslationTransform, sitk.TranslationTransform),
    "EulerTransform": (sitk.Euler2DTransform, sitk.Euler3DTransform),
    "SimilarityTransform": (sitk.Similarity2DTransform, sitk.Similarity3DTransform),
    "AffineTransform": (sitk.AffineTransform, sitk.AffineTransform),
}
SPLINES = ("BSplineTransform", "RecursiveBSplineTransform")
INITIAL = ("InitialTransformParameterFileName", "InitialTransformParametersFileName")  # since and before version 5.1
NONE = "NoInitialTransform"
BINARY = "UseBinaryFormatForTransformationParameters"  # in a file of their own
REMEDY = "let elastix write its field, transformix -def all -tp FILE -out DIR, and give that"


@dataclass(frozen=True)
class Parameters:
    """The words of a parameter file by their key, and the file.

    Attributes:
        path: where it lies.
        words: of each key.
    """

    path: Path
    words: dict[str, tuple[str, ...]]

    @classmethod
    def read(cls, path: str | Path) -> "Parameters":
        """Read lines such as `(Spacing 1.0 1.0)`, in which words may be quoted.

        Raises:
            InputError: no such file, or one that names no transform.
        """
        refuse_absent(path)
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not a parameter file of elastix: {error}") from error
        lines = re.findall(r"^\s*\(\s*(\w+)\s+(.*?)\)\s*(?://.*)?$", text, re.MULTILINE)
        words = {
            key: tuple(quoted or bare for quoted, bare in re.findall(r'"(.*?)"|([^\s"]+)', rest)) for key, rest in lines
        }
        if "Transform" not in words:
            raise InputError(f"{path}: no (Transform …) in it; give a TransformParameters.*.txt that elastix wrote")
        return cls(Path(path), words)

    def word(self, key: str, default: str = "") -> str:
        """Return the first word of a key."""
        return self.words.get(key, (default,))[0]

    def numbers(self, key: str, count: int | None = None) -> np.ndarray:
        """Return the numbers of a key.

        Raises:
            InputError: none, others than numbers, or another count.
        """
        try:
            found = np.array(self.words[key], np.float64)
        except (KeyError, ValueError) as error:
            raise InputError(
                f"{self.path}: ({key} …) is missing or holds no numbers; let elastix write it anew"
            ) from error
        refuse_not_finite(found, key, self.path)
        if count is not None and len(found) != count:
            raise InputError(f"{self.path}: ({key} …) holds {len(found)} numbers; {count} are expected")
        return found

    @property
    def initial(self) -> Path | None:
        """The file that this one goes on from: where it is said to be, else of that name beside this one."""
        said = next((self.words[key][0] for key in INITIAL if key in self.words), NONE)
        if said == NONE:
            return None
        beside = self.path.parent / Path(said.replace("\\", "/")).name
        return beside if beside.is_file() else Path(said)


def read_elastix(path: str | Path, seen: tuple[Path, ...] = ()) -> Transform:
    """Read a transform of elastix and all that it goes on from.

    Translations, Euler, similarity and affine transforms are read, and B-splines of order 1 to 3.

    Raises:
        InputError: another transform, two B-splines that are added, a chain that runs in a circle, or no such file.
    """
    parameters = Parameters.read(path)
    own = _own(parameters)
    if parameters.initial is None:
        return own
    if parameters.path.resolve() in seen:
        raise InputError(f"{path}: goes on from itself; mend its InitialTransformParameterFileName")
    before = read_elastix(parameters.initial, (*seen, parameters.path.resolve()))
    if parameters.word("HowToCombineTransforms", "Compose") == "Compose":
        return own @ before
    return _sum(before, own, path)


def write_elastix(transform: Transform, path: str | Path, fixed: Grid | None) -> None:
    """Write an affine as AffineTransform, splines as BSplineTransform, one field as splines of order 1; any other
    transform is sampled on `fixed`, the grid to which transformix then brings images.

    Raises:
        InputError: a batch, no grid, a grid that is sheared, or writing fails.
    """
    refuse_batch(transform.batch, path)
    if not ends(path, ".txt"):
        raise InputError(f"{path}: transforms of elastix are written as .txt")
    if fixed is None:
        raise InputError(f"{path}: elastix keeps the fixed image's grid beside the transform; give --fixed")
    refuse_sheared(fixed, path)
    affine = transform.as_affine
    own = _spline_words(transform, path, fixed) if affine is None else _linear_words(affine, path)
    spacing, direction, origin = in_lps(fixed)
    words = own | {
        INITIAL[0]: (NONE,),
        "HowToCombineTransforms": ("Compose",),
        "FixedImageDimension": (fixed.ndim,),
        "MovingImageDimension": (fixed.ndim,),
        "FixedInternalImagePixelType": ("float",),
        "MovingInternalImagePixelType": ("float",),
        "Size": fixed.shape,
        "Index": (0,) * fixed.ndim,
        "Spacing": spacing,
        "Origin": origin,
        "Direction": direction.T.ravel(),
        "UseDirectionCosines": ("true",),
        "ResampleInterpolator": ("FinalBSplineInterpolator",),
        "FinalBSplineInterpolationOrder": (3,),
        "Resampler": ("DefaultResampler",),
        "DefaultPixelValue": (0,),
        "ResultImageFormat": ("nii.gz",),
        "ResultImagePixelType": ("float",),
    }
    lines = [f"({key} {' '.join(map(_word, values))})" for key, values in words.items()]
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _own(parameters: Parameters) -> Transform:
    """Return the map of one file, without that it goes on from."""
    name, path = parameters.word("Transform"), parameters.path
    binary = parameters.word(BINARY, "false") != "false"
    if parameters.word("UseDirectionCosines", "true") != "true" or binary:
        raise InputError(f"{path}: without direction cosines, or with numbers in a file of their own; {REMEDY}")
    if name in SPLINES:
        return _splines(parameters)
    if name not in LINEAR:
        raise InputError(f"{path}: a {name} of elastix; {', '.join((*LINEAR, *SPLINES))} are read: {REMEDY}")
    ndim = int(parameters.numbers("FixedImageDimension", 1)[0])
    if ndim not in (2, 3):
        raise InputError(f"{path}: moves points in {ndim} dimensions; 2 and 3 are read: {REMEDY}")
    make = LINEAR[name][ndim - 2]
    linear: Any = make(ndim) if make in (sitk.AffineTransform, sitk.TranslationTransform) else make()
    values = parameters.numbers("TransformParameters", linear.GetNumberOfParameters())
    if name != "TranslationTransform":
        linear.SetCenter(parameters.numbers("CenterOfRotationPoint", ndim).tolist())
    if name == "EulerTransform" and ndim == 3:
        linear.SetComputeZYX(parameters.word("ComputeZYX", "false") == "true")
    linear.SetParameters(values.tolist())
    return from_itk(linear, path)


def _splines(parameters: Parameters) -> FreeForm:
    path = parameters.path
    shape = tuple(int(n) for n in parameters.numbers("GridSize"))
    ndim = len(shape)
    if ndim not in (2, 3) or parameters.word("UseCyclicTransform", "false") == "true":
        raise InputError(f"{path}: splines in {ndim} dimensions, or cyclic ones; {REMEDY}")
    degree = int(parameters.word("BSplineTransformSplineOrder", "3"))
    if degree not in (1, 2, 3):
        raise InputError(f"{path}: B-splines of order {degree}; orders 1, 2 and 3 are read")
    direction = parameters.numbers("GridDirection", ndim**2).reshape(ndim, ndim).T
    spacing, index = parameters.numbers("GridSpacing", ndim), parameters.numbers("GridIndex", ndim)
    origin = parameters.numbers("GridOrigin", ndim) + direction @ (spacing * index)
    try:
        grid = grid_of_lps(shape, spacing.tolist(), direction, origin.tolist())
    except ValueError as error:
        raise InputError(
            f"{path}: the grid of its control points cannot be inverted; let elastix write it anew"
        ) from error
    values = parameters.numbers("TransformParameters", ndim * int(np.prod(shape)))
    lps = torch.from_numpy(values.reshape(ndim, *reversed(shape))).permute(0, *range(ndim, 0, -1))
    return FreeForm(grid.from_mm((lps * ras_lps(ndim).view(-1, *[1] * ndim))[None]), grid, degree)


def _sum(before: Transform, own: Transform, path: str | Path) -> Transform:
    """Return T₀(x) + T₁(x) − x, where one of the two is linear: A x + u(x) is A ∘ (x + A⁻¹ u(x))."""
    linear, other = (before.as_affine, own) if before.as_affine is not None else (own.as_affine, before)
    if linear is not None and other.as_affine is not None:
        return Affine(linear.matrix + other.as_affine.matrix - torch.eye(linear.ndim + 1, dtype=torch.float64))
    if linear is None or not isinstance(other, FreeForm):
        raise InputError(f"{path}: adds one deformation to another; {REMEDY}")
    grid, inverse = other.grid, torch.linalg.inv(linear.matrix[:-1, :-1])
    vectors = torch.einsum("ab,nb...->na...", inverse, grid.to_mm(other.field))
    return linear @ FreeForm(grid.from_mm(vectors), grid, other.degree)


def _linear_words(transform: Affine, path: str | Path) -> dict[str, Iterable[object]]:
    affine = to_itk(transform, path)
    return {
        "Transform": ("AffineTransform",),
        "NumberOfParameters": (affine.GetNumberOfParameters(),),
        "TransformParameters": affine.GetParameters(),
        "CenterOfRotationPoint": (0,) * transform.ndim,
    }


def _spline_words(transform: Transform, path: str | Path, fixed: Grid) -> dict[str, Iterable[object]]:
    """Return the words of splines: as they are, or of order 1, whose control points are the voxels of a field."""
    splines = transform if isinstance(transform, FreeForm) else _linear_splines(transform, fixed)
    refuse_sheared(splines.grid, path)
    spacing, direction, origin = in_lps(splines.grid)
    vectors = sitk.GetArrayFromImage(vector_image(splines.grid, splines.field))
    ndim = splines.ndim
    return {
        "Transform": ("BSplineTransform",),
        "NumberOfParameters": (vectors.size,),
        "TransformParameters": np.moveaxis(vectors, -1, 0).ravel(),
        "GridSize": splines.grid.shape,
        "GridIndex": (0,) * ndim,
        "GridSpacing": spacing,
        "GridOrigin": origin,
        "GridDirection": direction.T.ravel(),
        "BSplineTransformSplineOrder": (splines.degree,),
        "UseCyclicTransform": ("false",),
    }


def _linear_splines(transform: Transform, fixed: Grid) -> FreeForm:
    """Return a field as splines of order 1, with the zeros around it to which it fades."""
    grid = transform.grids[0] if is_field(transform) else fixed
    field = transform.displacement(grid)[:1].detach().cpu().double()
    return FreeForm(F.pad(field, (1, 1) * grid.ndim), grid.padded((1,) * grid.ndim), 1)


def _word(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else f"{value:.17g}" if isinstance(value, float) else str(value)


def _looks(evidence: Evidence) -> bool:
    return re.search(r"^\s*\(Transform\s+\"", evidence.text, re.MULTILINE) is not None


def _write(transform: Transform, path: str | Path, fixed: Grid | None, moving: Grid | None) -> tuple[Path, ...]:
    write_elastix(transform, path, fixed)
    return (Path(path),)


def _reads(path: str | Path) -> tuple[Path, ...]:
    """Return the file and all that it goes on from."""
    chain: list[Path] = []
    step: Path | None = Path(path)
    while step is not None and step not in chain:
        chain.append(step)
        step = Parameters.read(step).initial
    return tuple(chain)


KIND = Kind(
    "elastix",
    _looks,
    lambda name: name.startswith("transformparameters") and name.endswith(".txt"),
    lambda path, fixed, moving: read_elastix(path),
    _write,
    lambda path: "a transform of elastix, LPS mm: transformix -tp brings images moving → fixed",
    _reads,
)
