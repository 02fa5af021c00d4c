"""ITK transform files that we did not write."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from pullback.errors import InputError
from pullback.files.transforms.convert import read_transform
from pullback.files.transforms.itk import write_transform
from pullback.space import Affine, Displacement, Transform


@pytest.mark.parametrize("ndim", [2, 3])
def test_an_empty_composite_moves_nothing(tmp_path, ndim):
    sitk.WriteTransform(sitk.CompositeTransform(ndim), str(tmp_path / "empty.h5"))
    transform = read_transform(tmp_path / "empty.h5")
    points = torch.rand(5, ndim, dtype=torch.float64)
    torch.testing.assert_close(transform(points), points)


def test_a_field_that_is_not_finite(tmp_path):
    vectors = np.zeros((6, 5, 4, 3))
    vectors[0, 0, 0] = np.nan
    field = sitk.DisplacementFieldTransform(sitk.GetImageFromArray(vectors, isVector=True))
    sitk.WriteTransform(field, str(tmp_path / "field.h5"))
    with pytest.raises(InputError, match=r"field.h5: 3 components are NaN"):
        read_transform(tmp_path / "field.h5")


def test_a_transform_without_a_form_in_itk_names_the_file(tmp_path):
    class Odd(Transform):
        params, ndim, batch = (), 3, 1
        with_params = at = inverse = nth = None

    with pytest.raises(InputError, match=r"odd.h5: Odd has no form in ITK"):
        write_transform(Odd(), tmp_path / "odd.h5")
    assert not list(tmp_path.iterdir())


def test_affine_after_field_moves_points_as_itk_does(tmp_path, oblique, smooth_field):
    grid = oblique((12, 13, 14), 1)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, 3], matrix[0, 1] = torch.tensor([1.0, 2, 3]), 0.1  # transforms may shear; grids may not
    transform = Affine(matrix) @ Displacement(smooth_field(grid.shape, 1, amplitude=2.0), grid)
    write_transform(transform, tmp_path / "both.h5")
    theirs, again = sitk.ReadTransform(str(tmp_path / "both.h5")), read_transform(tmp_path / "both.h5")
    points, lps = grid.to_world(torch.full((1, 3, 1), 5.3, dtype=torch.float64))[0].mT, np.array([-1.0, -1, 1])
    expected = lps * theirs.TransformPoint((lps * points[0].numpy()).tolist())
    np.testing.assert_allclose(transform(points)[0], expected, atol=1e-5)
    np.testing.assert_allclose(again(points)[0], expected, atol=1e-4)
