"""Images of FreeSurfer, MINC and TIFF, and grey with alpha: opened as their own libraries do, or refused."""

from importlib import resources

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image as Picture

from pullback.errors import InputError
from pullback.files import is_series, read_grid, read_image, read_labels, read_scalar, read_series

TURN = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
AFFINE = np.block([[TURN * [1.1, 0.9, 1.3], np.array([[20], [-30], [10]])], [np.zeros((1, 3)), np.ones((1, 1))]])


@pytest.mark.parametrize("ending", [".mgz", ".mgh"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
def test_freesurfers_images_lie_where_nibabel_says(tmp_path, ending, dtype):
    values = (np.random.default_rng(0).random((8, 9, 7)) * 200).astype(dtype)
    path = tmp_path / f"t1{ending}"
    nib.save(nib.MGHImage(values, AFFINE), path)
    image = read_image(path)
    np.testing.assert_array_equal(image.data[0, 0], values.astype(np.float32))
    np.testing.assert_allclose(image.grid.affine, nib.load(path).affine, atol=1e-6)
    if dtype is not np.float32:
        np.testing.assert_array_equal(read_labels(path).data[0, 0], values)


def test_frames_of_freesurfer_keep_their_time(tmp_path):
    image = nib.MGHImage(np.random.default_rng(0).random((5, 6, 7, 3), np.float32), np.eye(4))
    image.header.set_zooms((1, 1, 1, 2000))
    nib.save(image, tmp_path / "bold.mgz")
    series = read_series(tmp_path / "bold.mgz")
    assert series.unit == "ms"
    assert series.times.tolist() == [0, 2000, 4000]


def test_a_cut_mgz_is_refused(tmp_path):
    nib.save(nib.MGHImage(np.random.default_rng(0).random((8, 9, 7), np.float32), np.eye(4)), tmp_path / "t1.mgh")
    (tmp_path / "cut.mgh").write_bytes((tmp_path / "t1.mgh").read_bytes()[:900])
    for name, content in (("cut.mgh", None), ("empty.mgz", b""), ("text.mnc", b"subject,age\n" * 99)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            read_image(tmp_path / name)


@pytest.mark.parametrize("name", ["small.mnc", "minc1_1_scale.mnc", "minc2_1_scale.mnc"])
def test_minc_lies_where_nibabel_says(name):
    path = resources.files("nibabel") / "tests" / "data" / name
    if not path.is_file():
        pytest.skip("this nibabel comes without its example files")
    theirs, image = nib.load(path), read_scalar(str(path))
    np.testing.assert_allclose(image.data[0, 0], theirs.get_fdata(), rtol=1e-6)
    np.testing.assert_allclose(image.grid.affine, theirs.affine, atol=1e-6)


def test_frames_of_minc_are_refused():
    path = resources.files("nibabel") / "tests" / "data" / "minc2_4d.mnc"
    if not path.is_file():
        pytest.skip("this nibabel comes without its example files")
    with pytest.raises(InputError, match="mnc2nii"):
        read_image(str(path))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(20, 24), (5, 20, 24)])
def test_tiff_is_read_as_pictures_and_stacks(tmp_path, dtype, shape):
    values = (np.random.default_rng(0).random(shape) * 250).astype(dtype)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "a.tif"))
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.data[0, 0], values.T.astype(np.float32))
    assert image.grid.spacing.tolist() == [1.0] * len(shape)
    assert not is_series(tmp_path / "a.tif")


def test_pictures_of_several_values_a_pixel(tmp_path):
    grey = (np.random.default_rng(0).random((20, 24)) * 255).astype(np.uint8)
    opaque = np.full_like(grey, 255)
    Picture.fromarray(np.dstack([grey, opaque]), "LA").save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(read_image(tmp_path / "opaque.png").data[0, 0], grey.T.astype(np.float32))
    Picture.fromarray(np.dstack([grey, grey]), "LA").save(tmp_path / "clear.png")
    Picture.fromarray(np.dstack([grey] * 3)).save(tmp_path / "rgb.tif")
    colours = np.dstack([grey.astype(np.uint16)] * 3)
    sitk.WriteImage(sitk.GetImageFromArray(colours, isVector=True), str(tmp_path / "deep.tif"))
    with pytest.raises(InputError, match=r"clear\.png.*save it"):
        read_image(tmp_path / "clear.png")
    for name in ("rgb.tif", "deep.tif"):  # of one grey: luminance is that, or on bright glass what it lacks of white
        read = read_image(tmp_path / name).data[0, 0].numpy()
        seen = grey.T / 255 if name == "rgb.tif" else grey.T / 65535
        np.testing.assert_allclose(np.minimum(abs(read - seen), abs(read - (1 - seen))), 0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("IM0001.dcm", bytes(128) + b"DICM" + bytes(200), "not a readable image"),
        ("cst.trk", b"TRACK\0" + bytes(994), "streamlines"),
        ("cst.tck", b"mrtrix tracks\n", "streamlines"),
    ],
)
def test_what_is_no_image_is_told_so(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}.*{says}"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("thin", [0, 1, 2])
def test_a_slice_may_keep_its_plane_in_the_world(tmp_path, thin):
    shape = tuple(1 if axis == thin else n for axis, n in enumerate((8, 9, 7)))
    values = np.random.default_rng(0).random(shape, np.float32)
    stored = nib.Nifti1Image(values, AFFINE)
    stored.set_qform(AFFINE, 1)
    nib.save(stored, tmp_path / "slice.nii")
    image = read_scalar(tmp_path / "slice.nii", ndim=3)
    np.testing.assert_array_equal(image.data[0, 0], values)
    np.testing.assert_allclose(image.grid.affine, AFFINE, atol=1e-6)
    assert read_grid(tmp_path / "slice.nii", 3) == image.grid
    assert read_grid(tmp_path / "slice.nii", 2).ndim == read_grid(tmp_path / "slice.nii").ndim == 2
