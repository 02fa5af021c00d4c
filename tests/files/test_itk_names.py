"""Files whose names are no UTF-8, which ITK does not open: read and written all the same."""

import os

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from pullback.files import read_image, read_transform, write_transform
from pullback.files.itk_names import name_for_itk
from pullback.space import Affine, Displacement, Grid

LATIN = os.fsdecode(b"M\xfcller")
NAMES = [f"{LATIN}/file", f"plain/{LATIN}", f"{LATIN}/{LATIN}", "plain/file", "a ← b/ü"]


@pytest.fixture(params=NAMES, ids=["folder", "file", "both", "neither", "of UTF-8"])
def name(request, tmp_path):
    path = tmp_path / request.param
    path.parent.mkdir()
    return path


@pytest.mark.parametrize("ending", [".h5", ".tfm", ".mat"])
def test_transforms(name, ending):
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[0, 3] = 1.5
    path = name.with_name(name.name + ending)
    write_transform(Affine(matrix), path)
    torch.testing.assert_close(read_transform(path).params[0], matrix[:-1])
    assert [os.fsencode(found.name) for found in path.parent.iterdir()] == [os.fsencode(path.name)]


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_fields(name, ending):
    grid = Grid.centred((5, 6, 4))
    field = Displacement(torch.rand(1, 3, *grid.shape, generator=torch.Generator().manual_seed(0)), grid)
    path = name.with_name(name.name + ending)
    write_transform(field, path)
    torch.testing.assert_close(read_transform(path).params[0], field.field)


@pytest.mark.parametrize("ending", [".mha", ".nrrd", ".png"])
def test_images(name, tmp_path, ending):
    values = np.arange(30, dtype=np.uint8).reshape(5, 6)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / f"image{ending}"))
    path = name.with_name(name.name + ending)
    (tmp_path / f"image{ending}").rename(path)
    assert np.array_equal(read_image(path).data[0, 0].numpy(), values.T)


def test_voxels_beside_a_header_are_found(tmp_path):
    """Of a folder that is no UTF-8; the link is gone afterwards."""
    values = np.arange(30, dtype=np.uint8).reshape(5, 6)
    folder = tmp_path / LATIN
    folder.mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "image.mhd"))
    for part in ("image.mhd", "image.raw"):
        (tmp_path / part).rename(folder / part)
    assert np.array_equal(read_image(folder / "image.mhd").data[0, 0].numpy(), values.T)
    with name_for_itk(folder / "image.mhd") as link:
        assert os.path.isfile(link)
    assert not os.path.exists(link)
