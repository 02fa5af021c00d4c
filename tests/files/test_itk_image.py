"""ITK's image formats lie where ITK lays them, and hold what it holds."""

import struct

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from pullback.errors import InputError
from pullback.files import Severity, audit, audit_pair, read_grid, read_image, read_labels

ENDINGS = ["mha", "mhd", "nrrd", "nhdr"]
TYPES = [np.uint8, np.int16, np.uint16, np.float32, np.float64]


def made(oblique, to_sitk, ndim, dtype=np.int16):
    grid = oblique((9, 10, 11)[:ndim], seed=ndim)
    values = np.random.default_rng(0).integers(0, 200, grid.shape).astype(dtype)
    return values, to_sitk(values, grid.affine.numpy())


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("dtype", TYPES)
def test_every_voxel_lies_where_itk_lays_it(tmp_path, oblique, to_sitk, ndim, ending, dtype):
    values, image = made(oblique, to_sitk, ndim, dtype)
    path = tmp_path / f"image.{ending}"
    sitk.WriteImage(image, str(path))
    read = read_image(path)
    np.testing.assert_array_equal(read.data[0, 0].numpy(), values.astype(np.float32))
    signs = np.array([-1.0, -1, 1])[:ndim]
    for index in ([0] * ndim, [8, 3, 7][:ndim]):
        at = torch.tensor(index, dtype=torch.float64).view(1, ndim, 1)
        expected = np.array(image.TransformIndexToPhysicalPoint(index)) * signs
        np.testing.assert_allclose(read.grid.to_world(at).flatten().numpy(), expected, atol=1e-4)
    assert read_grid(path) == read.grid
    if dtype is not np.float64:
        np.testing.assert_array_equal(read_labels(path).data[0, 0].numpy(), values)


def test_the_same_image_in_two_formats(tmp_path, oblique, to_sitk):
    _, image = made(oblique, to_sitk, 3)
    paths = [tmp_path / name for name in ("image.nrrd", "image.nii.gz")]
    for path in paths:
        sitk.WriteImage(image, str(path))
    one, two = map(read_image, paths)
    assert one.grid == two.grid
    assert torch.equal(one.data, two.data)


def test_the_header_is_not_rounded(tmp_path):
    image = sitk.GetImageFromArray(np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    image.SetSpacing([1.366, 0.1, 2.5])
    sitk.WriteImage(image, str(tmp_path / "image.mha"))
    assert read_image(tmp_path / "image.mha").grid.spacing.tolist() == [1.366, 0.1, 2.5]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_pictures_are_read_with_a_note(tmp_path, dtype):
    values = np.random.default_rng(0).integers(0, 255, (20, 30)).astype(dtype)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "grey.png"))
    read = read_image(tmp_path / "grey.png")
    np.testing.assert_array_equal(read.data[0, 0].numpy(), values.T)
    assert read.grid.spacing.tolist() == [1, 1]
    (finding,) = [f for f in audit(tmp_path / "grey.png") if "picture" in f.what]
    assert finding.severity is Severity.NOTE


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_dots_per_inch_are_no_size(tmp_path, ending):
    """Slides carry the resolution of some print; all pictures are a millimetre a pixel, so that they fit each other."""
    path, pixels = tmp_path / f"grey.{ending}", np.random.default_rng(0).integers(0, 255, (20, 30)).astype(np.uint8)
    picture = sitk.GetImageFromArray(pixels)
    picture.SetSpacing((0.35, 0.35))
    sitk.WriteImage(picture, str(path))
    if ending == "jpg":  # which ITK reads and does not write: 72 dots per inch
        content = bytearray(path.read_bytes())
        content[13:18] = struct.pack(">BHH", 1, 72, 72)
        path.write_bytes(content)
    assert sitk.ReadImage(str(path)).GetSpacing()[0] != 1  # it is written there
    assert torch.equal(read_image(path).grid.affine, torch.diag(torch.tensor([-1.0, -1.0, 1.0])).double())


@pytest.mark.parametrize(("count", "says"), [(3, "colours"), (4, "colours"), (2, "5-D")])
@pytest.mark.parametrize("shape", [(20, 30), (9, 20, 30)])
def test_several_numbers_per_voxel_are_refused(tmp_path, count, says, shape):
    path = tmp_path / "colours.mha"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((*shape, count), np.uint8), isVector=True), str(path))
    with pytest.raises(InputError, match=says):
        read_image(path)
    assert audit(path)[0].severity is Severity.ERROR


def test_a_voxel_file_that_is_missing(tmp_path, oblique, to_sitk):
    _, image = made(oblique, to_sitk, 3)
    sitk.WriteImage(image, str(tmp_path / "image.mhd"))
    next(tmp_path.glob("*raw")).unlink()
    with pytest.raises(InputError, match=r"image\.mhd"):
        read_image(tmp_path / "image.mhd")


def test_all_images_of_two_collections_are_read(shared):
    paths = [
        path
        for name in ("monai_small_anat", "elastix_examples")
        for path in sorted((shared / "data" / name).rglob("*"))
        if path.name.endswith((".nii", ".nii.gz", ".mha", ".mhd"))
    ]
    assert len(paths) == 15
    for path in paths:
        image = read_image(path)
        assert image.grid.ndim in (2, 3)
        assert not [finding for finding in audit(path) if finding.severity is Severity.ERROR]
        assert audit_pair(path, path) == ()
        if any(word in path.name for word in ("mask", "label", "segmentation")):
            assert read_labels(path, on=image.grid).data.any()
