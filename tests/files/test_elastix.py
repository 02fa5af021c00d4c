"""Transforms of elastix: by its own transformix, where it is installed, by ITK's of the same name, and by their sum."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from pullback.errors import InputError
from pullback.files import read_grid, read_transform, write_any
from pullback.space import Affine, Displacement, FreeForm

LPS = np.array([-1.0, -1, 1])


@pytest.fixture
def elastix():
    itk = pytest.importorskip("itk", reason="comparisons with elastix need itk-elastix")
    if not hasattr(itk, "ElastixRegistrationMethod"):
        pytest.skip("comparisons with elastix need itk-elastix")
    return itk


@pytest.fixture
def image(tmp_path, oblique, waves, to_sitk):
    grid = oblique((18, 20, 16), 1, 1.0)
    value = waves(3, 3, 12)(grid.to_world(grid.voxels(torch.zeros(1, dtype=torch.float64))[None]))
    sitk.WriteImage(to_sitk(value[0, 0].float().numpy(), grid.affine.numpy()), str(tmp_path / "fixed.nii.gz"))
    return tmp_path / "fixed.nii.gz"


def transformix(elastix, image, folder, *files):
    """What elastix makes of points of the image, and the points, RAS."""
    grid = read_grid(image)
    points = grid.to_world(grid.voxels(torch.zeros(1, dtype=torch.float64))[None])[0].flatten(1).T[::61].numpy()
    lines = "\n".join(" ".join(map(repr, point)) for point in (points * LPS).tolist())
    (folder / "points.txt").write_text(f"point\n{len(points)}\n{lines}\n")
    parameters = elastix.ParameterObject.New()
    parameters.ReadParameterFiles([str(file) for file in files])
    machine = elastix.TransformixFilter.New(elastix.imread(str(image), elastix.F))
    machine.SetTransformParameterObject(parameters)
    machine.SetFixedPointSetFileName(str(folder / "points.txt"))
    machine.SetOutputDirectory(str(folder))
    machine.LogToConsoleOff()
    machine.Update()
    said = (folder / "outputpoints.txt").read_text().splitlines()
    moved = [line.split("OutputPoint = [")[1].split("]")[0].split() for line in said]
    return points, np.array(moved, float) * LPS


@pytest.mark.slow  # of loading itk's modules
@pytest.mark.parametrize("kind", ["affine", "field", "splines 1", "splines 2", "splines 3"])
def test_transformix_moves_points_by_our_files_as_we_do(tmp_path, image, elastix, smooth_field, kind):
    grid = read_grid(image)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3] += torch.randn(3, 4, dtype=torch.float64) * torch.tensor([0.1, 0.1, 0.1, 2])
    knots = grid.at_spacing((5.0, 6.0, 4.0)).padded((2, 2, 2))
    truth = {
        "affine": Affine(matrix),
        "field": Displacement(smooth_field(grid.shape, 1, amplitude=1.5), grid),
        **{f"splines {n}": FreeForm(torch.randn(1, 3, *knots.shape, dtype=torch.float64), knots, n) for n in (1, 2, 3)},
    }[kind]
    path = tmp_path / "TransformParameters.0.txt"
    write_any(truth, path, None, grid)
    points, moved = transformix(elastix, image, tmp_path, path)
    np.testing.assert_allclose(moved, truth(torch.from_numpy(points)), atol=1e-5)
    np.testing.assert_allclose(moved, read_transform(path)(torch.from_numpy(points)), atol=1e-5)
    assert np.abs(moved - points).max() > 1


@pytest.mark.slow  # of loading itk's modules
@pytest.mark.parametrize("how", ["Compose", "Add"])
def test_we_move_points_by_elastix_own_chain_as_it_does(tmp_path, image, elastix, how):
    """A similarity and then splines, as a registration writes them: the second goes on from the first."""
    grid = read_grid(image)
    moving = sitk.Resample(
        sitk.ReadImage(str(image)), sitk.Euler3DTransform((0, 0, 0), 0.05, -0.1, 0.08, (0.7, -1, 0.5))
    )
    sitk.WriteImage(moving, str(tmp_path / "moving.nii.gz"))
    parameters = elastix.ParameterObject.New()
    for name, transform in (("affine", "SimilarityTransform"), ("bspline", "BSplineTransform")):
        stage = (
            parameters.GetDefaultParameterMap(name, 1, 6.0)
            if name == "bspline"
            else parameters.GetDefaultParameterMap(name, 1)
        )
        stage["Transform"], stage["HowToCombineTransforms"] = [transform], [how]
        stage["MaximumNumberOfIterations"], stage["NumberOfSpatialSamples"] = ["15"], ["800"]
        parameters.AddParameterMap(stage)
    machine = elastix.ElastixRegistrationMethod.New(
        elastix.imread(str(image), elastix.F), elastix.imread(str(tmp_path / "moving.nii.gz"), elastix.F)
    )
    machine.SetParameterObject(parameters)
    machine.SetOutputDirectory(str(tmp_path))
    machine.LogToConsoleOff()
    machine.UpdateLargestPossibleRegion()
    files = [tmp_path / f"TransformParameters.{n}.txt" for n in (0, 1)]
    points, moved = transformix(elastix, image, tmp_path, *files)
    np.testing.assert_allclose(read_transform(files[1])(torch.from_numpy(points)), moved, atol=2e-3)
    assert np.abs(moved - points).max() > 0.3
    assert read_transform(files[0]).as_affine is not None
    assert grid.ndim == 3


def parameters(path, transform, numbers, ndim=3, **more):
    words = {
        "Transform": f'"{transform}"',
        "FixedImageDimension": ndim,
        "TransformParameters": " ".join(map(str, numbers)),
    }
    words |= {"CenterOfRotationPoint": " ".join(map(str, (3.0, -2.0, 5.0)[:ndim])), **more}
    path.write_text("// made\n" + "".join(f"({key} {value})\n" for key, value in words.items()))
    return path


NAMED = {
    ("TranslationTransform", 2): sitk.TranslationTransform(2),
    ("TranslationTransform", 3): sitk.TranslationTransform(3),
    ("EulerTransform", 2): sitk.Euler2DTransform(),
    ("EulerTransform", 3): sitk.Euler3DTransform(),
    ("SimilarityTransform", 2): sitk.Similarity2DTransform(),
    ("SimilarityTransform", 3): sitk.Similarity3DTransform(),
    ("AffineTransform", 2): sitk.AffineTransform(2),
    ("AffineTransform", 3): sitk.AffineTransform(3),
}


@pytest.mark.parametrize(("name", "ndim"), NAMED)
def test_linear_transforms_are_itks_of_the_same_parameters(tmp_path, name, ndim):
    theirs = NAMED[name, ndim]
    numbers = np.random.default_rng(0).uniform(0.1, 0.4, theirs.GetNumberOfParameters())
    if not name.startswith("Trans"):
        theirs.SetCenter((3.0, -2.0, 5.0)[:ndim])
    theirs.SetParameters(numbers.tolist())
    found = read_transform(parameters(tmp_path / "t.txt", name, numbers, ndim))
    points = np.random.default_rng(1).uniform(-9, 9, (5, ndim))
    moved = np.array([theirs.TransformPoint(point) for point in points.tolist()])
    ours = found(torch.from_numpy(points * LPS[:ndim] if ndim == 3 else -points)).numpy()
    np.testing.assert_allclose(ours * (LPS if ndim == 3 else -1), moved, atol=1e-9)


def test_euler_angles_in_the_other_order(tmp_path):
    theirs = sitk.Euler3DTransform()
    theirs.SetComputeZYX(True)
    theirs.SetParameters((0.2, -0.3, 0.4, 1, 2, 3))
    numbers = theirs.GetParameters()
    flags = {"ComputeZYX": '"true"', "CenterOfRotationPoint": "0 0 0"}
    found = read_transform(parameters(tmp_path / "t.txt", "EulerTransform", numbers, **flags))
    np.testing.assert_allclose(
        found(torch.tensor([[-1.0, -2, 3]], dtype=torch.float64))[0] * torch.from_numpy(LPS),
        theirs.TransformPoint((1.0, 2, 3)),
    )


def test_added_and_composed_are_told_apart_and_a_moved_folder_is_found(tmp_path):
    one = parameters(tmp_path / "t.0.txt", "AffineTransform", [1.1, 0.1, 0, 0, 0.9, 0.2, -0.1, 0, 1, 1, 2, 3])
    point = torch.tensor([[4.0, -5, 6]], dtype=torch.float64)
    before = read_transform(one)(point)
    for how in ("Compose", "Add"):
        more = {"InitialTransformParametersFileName": '"/elsewhere/t.0.txt"', "HowToCombineTransforms": f'"{how}"'}
        two = parameters(tmp_path / "t.1.txt", "EulerTransform", [0.2, -0.3, 0.1, -2, 0, 1], **more)
        own = read_transform(parameters(tmp_path / "own.txt", "EulerTransform", [0.2, -0.3, 0.1, -2, 0, 1]))
        truth = own(before) if how == "Compose" else before + own(point) - point
        torch.testing.assert_close(read_transform(two)(point), truth)


@pytest.mark.parametrize(
    ("name", "more", "says"),
    [
        ("SplineKernelTransform", {}, "transformix -def all"),
        ("EulerTransform", {"UseDirectionCosines": '"false"'}, "transformix -def all"),
        ("EulerTransform", {"UseBinaryFormatForTransformationParameters": '"true"'}, "transformix -def all"),
        ("EulerTransform", {"InitialTransformParametersFileName": '"t.txt"'}, "goes on from itself"),
        ("EulerTransform", {"TransformParameters": "1 2 3"}, "6 are expected"),
        ("BSplineTransform", {}, "GridSize"),
    ],
)
def test_what_is_not_read_is_refused(tmp_path, name, more, says):
    with pytest.raises(InputError, match=says):
        read_transform(parameters(tmp_path / "t.txt", name, [0.0] * 6, **more))
