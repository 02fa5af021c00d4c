"""A slice keeps its plane: laid and flattened, read and placed."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from pullback.errors import InputError
from pullback.files.images.plane import SlicePlane, read_slice
from pullback.space import Grid, Image, Labels

TURN = torch.linalg.qr(torch.rand(3, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64))[0]
PLANE = SlicePlane(torch.tensor([4.0, -7, 30]).double(), TURN[:, :2])


def flat_image(dtype=torch.float32):
    affine = torch.tensor([[-0.5, 0.1, 3], [0.2, 0.7, -2], [0, 0, 1]], dtype=torch.float64)
    data = (torch.rand(1, 1, 6, 9, generator=torch.Generator().manual_seed(0)) * 9).to(dtype)
    grid = Grid((6, 9), affine)
    return Labels(data, grid) if dtype == torch.int64 else Image(data, grid, data > 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_a_slice_laid_is_flat_again_and_every_pixel_lies_in_the_plane(dtype):
    image = flat_image(dtype)
    laid = PLANE.lay(image, thickness=2.5)
    assert laid.grid.shape == (6, 9, 1)
    assert float(laid.grid.spacing[2]) == pytest.approx(2.5)
    where = laid.grid.to_world(laid.grid.voxels(laid.data.double())[None])[0, ..., 0]
    expected = PLANE.points(image.grid.to_world(image.grid.voxels(laid.data.double())[None])[0].movedim(0, -1))
    torch.testing.assert_close(where.movedim(0, -1), expected)
    off = (where.movedim(0, -1) - PLANE.origin) @ PLANE.normal
    assert float(off.abs().max()) < 1e-12
    again = PLANE.flat(laid)
    assert torch.equal(again.data, image.data)
    torch.testing.assert_close(again.grid.affine, image.grid.affine)


def test_the_plane_of_a_grid_is_that_of_its_voxels():
    laid = PLANE.lay(flat_image())
    plane = SlicePlane.of(
        Grid(laid.grid.shape, PLANE.lay(Image(torch.zeros(1, 1, 6, 9), Grid.centred((6, 9)))).grid.affine)
    )
    assert abs(float(plane.normal @ PLANE.normal)) == pytest.approx(1)
    assert float((plane.origin - PLANE.origin) @ PLANE.normal) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("thin", [0, 1, 2])
def test_a_slice_of_a_file_lies_where_nibabel_says(thin, tmp_path):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = TURN.numpy() * [1.1, 0.9, 1.3], (20, -30, 10)
    shape = tuple(1 if axis == thin else n for axis, n in enumerate((8, 9, 7)))
    values = np.random.default_rng(0).random(shape, np.float32)
    image = nib.Nifti1Image(values, affine)
    image.set_qform(affine, 1)
    nib.save(image, tmp_path / "slice.nii")
    read = read_slice(tmp_path / "slice.nii")
    np.testing.assert_array_equal(read.data[0, 0], values)
    np.testing.assert_allclose(read.grid.affine, affine, atol=1e-6)
    assert SlicePlane.of(read.grid).flat(read).grid.shape == tuple(n for n in shape if n > 1)


def test_a_picture_is_laid_at_height_0(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (20, 30), dtype=np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "a.png"))
    read = read_slice(tmp_path / "a.png", thickness=3.0)
    np.testing.assert_array_equal(read.data[0, 0, :, :, 0].T, values)
    assert read.grid.spacing.tolist() == [1, 1, 3]
    assert read.grid.affine[:3, 3].tolist() == [0, 0, 0]


def test_what_is_no_slice_or_lies_elsewhere(tmp_path):
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((5, 6, 7), np.float32), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(InputError, match="one slice is expected"):
        read_slice(tmp_path / "a.nii")
    with pytest.raises(ValueError, match="one voxel thick"):
        SlicePlane.of(Grid.centred((5, 6, 7)))
    with pytest.raises(ValueError, match="another plane"):
        SlicePlane(PLANE.origin + PLANE.normal, PLANE.axes).flat(PLANE.lay(flat_image()))
    with pytest.raises(ValueError, match="orthonormal"):
        SlicePlane(torch.zeros(3), torch.ones(3, 2))
    with pytest.raises(ValueError, match="2-D image expected"):
        PLANE.lay(Image(torch.zeros(1, 1, 3, 3, 3), Grid.centred((3, 3, 3))))
