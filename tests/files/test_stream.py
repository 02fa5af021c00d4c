"""Frames that are streamed: what nibabel reads is what was written, under the header that was there."""

import nibabel as nib
import numpy as np
import pytest
import torch

from pullback.errors import InputError
from pullback.files import read_series
from pullback.files.images.stream import stream_series
from pullback.space import Grid, Image


def stored(path, dtype=np.int16, kind=nib.Nifti1Image):
    """A file of three frames whose header says much."""
    values = np.random.default_rng(0).integers(0, 900, (6, 5, 4, 3)).astype(dtype)
    affine = np.array([[-2, 0.1, 0, 30], [0.1, 2, 0, -20], [0, 0, 3, 7], [0, 0, 0, 1.0]])
    image = kind(values, affine)
    image.header.set_xyzt_units("mm", "msec")
    image.header["pixdim"][4], image.header["toffset"] = 2500, 40
    image.header["descrip"], image.header["slice_code"] = b"scanner", 3
    image.header.set_dim_info(0, 1, 2)
    image.set_qform(affine, 1)
    image.set_sform(affine, 4)
    nib.save(image, path)
    return values


@pytest.mark.parametrize(
    ("name", "kind"), [("a.nii", nib.Nifti1Image), ("a.nii.gz", nib.Nifti1Image), ("a.nii", nib.Nifti2Image)]
)
@pytest.mark.parametrize("exact", [True, False])
def test_what_was_written_is_read_and_the_header_stays(tmp_path, name, kind, exact):
    source, out = tmp_path / "source.nii", tmp_path / name
    values = stored(source, kind=kind)
    stream_series(iter(read_series(source)), out, source, exact)
    found, known = nib.load(out), nib.load(source)
    np.testing.assert_array_equal(np.asanyarray(found.dataobj), values)
    assert found.get_data_dtype() == (np.int16 if exact else np.float32)
    assert type(found) is kind
    for field in (
        "pixdim",
        "toffset",
        "descrip",
        "slice_code",
        "xyzt_units",
        "dim_info",
        "qform_code",
        "sform_code",
        "dim",
    ):
        np.testing.assert_array_equal(found.header[field], known.header[field], err_msg=field)
    np.testing.assert_array_equal(found.affine, known.affine)


def test_scaled_numbers_and_the_other_byte_order_are_meant_as_they_were(tmp_path):
    source, out = tmp_path / "source.nii", tmp_path / "out.nii.gz"
    values = np.random.default_rng(1).random((5, 4, 3, 2)) * 10
    image = nib.Nifti1Image(values.astype(">f4"), np.eye(4), nib.Nifti1Header(endianness=">"))
    image.set_data_dtype(np.int16)  # nibabel finds slope and intercept
    nib.save(image, source)
    read = nib.load(source).get_fdata()
    stream_series(iter(read_series(source)), out, source, exact=True)
    np.testing.assert_allclose(nib.load(out).get_fdata(), read, rtol=1e-6)


def test_frames_that_do_not_fit_are_refused_and_leave_no_file(tmp_path):
    source, out = tmp_path / "source.nii", tmp_path / "out.nii.gz"
    stored(source)
    frames = list(read_series(source))
    with pytest.raises(InputError, match="3 frames expected, got 2"):
        stream_series(frames[:2], out, source)
    with pytest.raises(InputError, match="voxels as in"):
        stream_series([Image(torch.zeros(1, 1, 3, 3, 3), Grid.centred((3, 3, 3)))], out, source)
    with pytest.raises(InputError, match="nii"):
        stream_series(frames, tmp_path / "out.mgz", source)
    assert [path.name for path in tmp_path.iterdir()] == ["source.nii"]
